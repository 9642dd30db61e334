"""A Job runs once: to run it again, it is made again."""

from collections.abc import Mapping
from typing import Any


def again(job: Mapping[str, Any]) -> dict[str, Any]:
    """Return a Job as it was first made: without its status, and what the cluster added to tell its pods apart."""
    metadata, spec = job["metadata"], dict(job["spec"])
    template = dict(spec["template"])
    own = dict(template.get("metadata") or {})
    own["labels"] = {
        name: value
        for name, value in (own.get("labels") or {}).items()
        if name not in {"controller-uid", "job-name"} and not name.startswith("batch.kubernetes.io/")
    }
    own.pop("creationTimestamp", None)
    template["metadata"] = own
    spec["template"] = template
    spec.pop("selector", None)
    kept = {key: metadata[key] for key in ("name", "labels", "annotations") if metadata.get(key)}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": kept, "spec": spec}
