"""The image of a data store's next pod is on the node before the pod that runs ends.

A data store has one pod, which ends before the next one starts. With an image that cannot be pulled, it would be gone
then. A trial is a pod on the same node that has the same image and ends immediately.
"""

from collections.abc import Mapping
from typing import Any

Plain = Mapping[str, Any]
# The label of a trial; its value is the revision that it is for.
LABEL = "dify-kit.trial"
STACK_LABEL = "dify-kit.stack"
NOT_PULLED = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
WAITING = frozenset({"ContainerCreating", "PodInitializing"})
# An image without such a program is pulled all the same, and the container ends with an error.
COMMAND = ("true",)


def images(spec: Plain) -> set[str]:
    """Return the images of a pod's specification."""
    return {str(one["image"]) for one in (*(spec.get("initContainers") or ()), *spec["containers"])}


def needed(workload: Plain, pod: Plain) -> bool:
    """Tell whether the next pod has an image that the present one does not have."""
    return not images(workload["spec"]["template"]["spec"]) <= images(pod["spec"])


def manifest(workload: Plain, pod: Plain, revision: str) -> dict[str, Any]:
    """Return the trial for a workload's next pod, on the node of the present one. It is deleted with the workload."""
    metadata, spec = workload["metadata"], workload["spec"]["template"]["spec"]
    owner = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "name": metadata["name"],
        "uid": metadata["uid"],
    }
    kept = ("imagePullSecrets", "securityContext", "serviceAccountName")
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": f"{metadata['name']}-image-",
            "labels": {LABEL: revision, STACK_LABEL: metadata["labels"][STACK_LABEL]},
            "ownerReferences": [owner],
        },
        "spec": {
            **{key: spec[key] for key in kept if key in spec},
            "nodeName": pod["spec"]["nodeName"],
            "automountServiceAccountToken": False,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {
                    "name": f"image-{number}",
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": list(COMMAND),
                    "securityContext": spec["containers"][0]["securityContext"],
                    "resources": {
                        "requests": {"cpu": "10m", "memory": "16Mi"},
                        "limits": {"cpu": "1", "memory": "32Mi"},
                    },
                }
                for number, image in enumerate(sorted(images(spec)))
            ],
        },
    }


def problem(trial: Plain) -> str:
    """Return why an image cannot be pulled; empty while it may."""
    for waiting in _waiting(trial):
        if waiting.get("reason") in NOT_PULLED:
            return f"{waiting['reason']}: {waiting.get('message') or 'no message'}"
    return ""


def pulled(trial: Plain) -> bool:
    """Tell whether every image of a trial is on its node."""
    statuses = (trial.get("status") or {}).get("containerStatuses") or []
    return bool(statuses) and not any(one.get("reason") in {*NOT_PULLED, *WAITING} for one in _waiting(trial))


def _waiting(trial: Plain) -> list[Plain]:
    statuses = (trial.get("status") or {}).get("containerStatuses") or []
    return [waiting for one in statuses if (waiting := (one.get("state") or {}).get("waiting"))]
