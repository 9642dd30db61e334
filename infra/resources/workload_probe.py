"""A workload of a cluster, its pods and their Events, as `infra.resources.workload_ready` looks at them."""

from typing import Any, Protocol

from infra.resources import image_trial
from infra.resources.workload_state import Plain, trouble, unscheduled

JOB_GONE_SECONDS = 60.0


class Probe(Protocol):
    """One workload as the cluster shows it."""

    def workload(self) -> Plain | None:
        """Return the Deployment, StatefulSet or Job; None when it is gone."""

    def pods(self, workload: Plain) -> list[Plain]:
        """Return the pods of the workload's present template."""

    def stuck(self, workload: Plain) -> list[str]:
        """Return the names of the pods of an earlier template that cannot start and keep the new one from starting."""

    def outdated(self, workload: Plain) -> Plain | None:
        """Return the pod of an earlier template that is replaced by deleting it; None where there is none."""

    def trial(self, workload: Plain, pod: Plain) -> Plain | None:
        """Return the trial of the image of a pod's successor; None where the pod has that image."""

    def end_trials(self) -> None:
        """Delete every trial that was made."""

    def events(self) -> list[Plain]:
        """Return the Events of the namespace."""

    def logs(self, pod: str, container: str) -> str:
        """Return the last log lines of a container, of its last run where it runs no more."""

    def delete(self, pod: str) -> None:
        """Delete a pod."""

    def run_again(self, workload: Plain) -> None:
        """Run a Job again."""


class ClusterProbe:
    """A workload of a cluster."""

    def __init__(self, workload: str) -> None:
        from infra.engine.cluster import Workload  # noqa: PLC0415  # kept out of the pickled provider

        self._at = Workload.parse(workload)
        self._cluster = self._at.cluster()
        self._trials: set[str] = set()

    def workload(self) -> Plain | None:
        """See Probe."""
        found = self._cluster.workload(self._at.kind, self._at.namespace, self._at.name)
        # The API leaves the kind out of what it reads by name.
        return None if found is None else {**found, "kind": self._at.kind}

    def pods(self, workload: Plain) -> list[Plain]:
        """See Probe."""
        key, value = self._present(workload)
        return [pod for pod in self._all(workload) if pod["metadata"]["labels"].get(key) == value]

    def stuck(self, workload: Plain) -> list[str]:
        """See Probe. Only a StatefulSet waits for such a pod."""
        if self._at.kind != "StatefulSet":
            return []
        key, value = self._present(workload)
        return [
            str(pod["metadata"]["name"])
            for pod in self._all(workload)
            if value
            and pod["metadata"]["labels"].get(key) != value
            and not pod["metadata"].get("deletionTimestamp")
            and (trouble(pod) or unscheduled(pod))
        ]

    def outdated(self, workload: Plain) -> Plain | None:
        """See Probe."""
        if (workload["spec"].get("updateStrategy") or {}).get("type") != "OnDelete":
            return None
        key, value = self._present(workload)
        for pod in self._all(workload):
            if (
                value
                and pod["metadata"]["labels"].get(key) != value
                and not pod["metadata"].get("deletionTimestamp")
            ):
                return pod
        return None

    def trial(self, workload: Plain, pod: Plain) -> Plain | None:
        """See Probe."""
        if not image_trial.needed(workload, pod):
            return None
        _, revision = self._present(workload)
        found = self._cluster.pods(self._at.namespace, f"{image_trial.LABEL}={revision}")
        trial = (
            found[0]
            if found
            else self._cluster.create_pod(self._at.namespace, image_trial.manifest(workload, pod, revision))
        )
        self._trials.add(str(trial["metadata"]["name"]))
        return trial

    def end_trials(self) -> None:
        """See Probe."""
        for name in self._trials:
            self._cluster.delete_pod(self._at.namespace, name)

    def events(self) -> list[Plain]:
        """See Probe."""
        return list(self._cluster.events(self._at.namespace))

    def logs(self, pod: str, container: str) -> str:
        """See Probe."""
        found = self._cluster.logs(self._at.namespace, pod, container, previous=True)
        return found or self._cluster.logs(self._at.namespace, pod, container)

    def delete(self, pod: str) -> None:
        """See Probe."""
        self._cluster.delete_pod(self._at.namespace, pod)

    def run_again(self, workload: Plain) -> None:
        """See Probe."""
        self._cluster.run_job_again(self._at.namespace, workload, JOB_GONE_SECONDS)

    def _all(self, workload: Plain) -> list[dict[str, Any]]:
        labels = workload["spec"]["template"]["metadata"]["labels"]
        selector = ",".join(
            f"{key}={value}" for key, value in sorted(labels.items()) if key == "dify-kit.service"
        )
        return self._cluster.pods(self._at.namespace, selector)

    def _present(self, workload: Plain) -> tuple[str, str]:
        """Return the label by which the pods of the present template are known, and its value; empty for none yet."""
        if self._at.kind == "Job":
            return "batch.kubernetes.io/controller-uid", str(workload["metadata"]["uid"])
        if self._at.kind == "StatefulSet":
            return "controller-revision-hash", str((workload.get("status") or {}).get("updateRevision") or "")
        revision = "deployment.kubernetes.io/revision"
        wanted = (workload["metadata"].get("annotations") or {}).get(revision)
        sets = self._cluster.replica_sets(self._at.namespace, f"dify-kit.service={self._at.name}")
        hashes = [
            one["metadata"]["labels"].get("pod-template-hash", "")
            for one in sets
            if (one["metadata"].get("annotations") or {}).get(revision) == wanted
        ]
        observed = int((workload.get("status") or {}).get("observedGeneration", 0))
        current = observed >= int(workload["metadata"]["generation"])
        return "pod-template-hash", hashes[0] if hashes and wanted and current else ""
