"""What a workload, its pods and its Events say about a start, in the form of the Kubernetes API."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

CRASHED = "CrashLoopBackOff"
HOPELESS = frozenset(
    {
        *("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"),
        *("CreateContainerConfigError", "CreateContainerError", "RunContainerError", CRASHED),
    }
)
# Reasons of Events that explain why there is no pod, or why one does not start.
NO_POD, NO_START = "FailedCreate", ("FailedMount", "FailedAttachVolume", "ProvisioningFailed", "Unhealthy")
PREPARING = frozenset({"ContainerCreating", "PodInitializing"})
RESTARTS = 2

Plain = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """What is wrong with a pod. ``final`` is false for what may go away by itself within a few seconds."""

    reason: str
    pod: str
    container: str
    final: bool


def ready(workload: Plain) -> bool:
    """Tell whether all pods of the present template are ready, and no others are left."""
    spec, status = workload["spec"], workload.get("status") or {}
    if workload["kind"] == "Job":
        return bool(status.get("succeeded"))
    wanted = int(spec.get("replicas", 1))
    if int(status.get("observedGeneration", 0)) < int(workload["metadata"]["generation"]):
        return False
    if workload["kind"] == "StatefulSet":
        counts = [status.get("readyReplicas"), status.get("updatedReplicas")]
    else:
        counts = [status.get(key) for key in ("availableReplicas", "updatedReplicas")]
        if int(status.get("replicas") or 0) > wanted:
            return False
    return all(int(one or 0) >= wanted for one in counts)


def failed_job(workload: Plain) -> float | None:
    """Return when a Job has ended without success, in seconds of the epoch; None for one that has not."""
    for one in (workload.get("status") or {}).get("conditions") or []:
        if one["type"] == "Failed" and one["status"] == "True":
            return _epoch(one.get("lastTransitionTime"))
    return None


def trouble(pod: Plain) -> Trouble | None:
    """Return why a pod does not start; None while it may."""
    status = pod.get("status") or {}
    for early, key in ((True, "initContainerStatuses"), (False, "containerStatuses")):
        for one in status.get(key) or []:
            if found := _of_container(pod, one, early=early):
                return found
    return None


def _of_container(pod: Plain, one: Plain, *, early: bool) -> Trouble | None:
    waiting = (one.get("state") or {}).get("waiting") or {}
    ended = (one.get("lastState") or {}).get("terminated") or (one.get("state") or {}).get("terminated") or {}
    code = ended.get("exitCode")
    crashed = bool(code) and int(one.get("restartCount", 0)) >= (1 if early else RESTARTS)
    reason = str(waiting.get("reason") or "")
    if not crashed and reason not in HOPELESS:
        return None
    final = crashed or reason == CRASHED
    if final:
        text = f"exited with code {code}" if code is not None else reason
        if ended.get("reason") == "OOMKilled":
            text += " (OOMKilled: it needs more memory than its limit)"
    else:
        text = f"{reason}: {waiting.get('message') or 'no message'}"
    return Trouble(reason=text, pod=pod["metadata"]["name"], container=one["name"], final=final)


def unscheduled(pod: Plain) -> str:
    """Return why no node takes a pod; empty when one did."""
    for one in (pod.get("status") or {}).get("conditions") or []:
        if one["type"] == "PodScheduled" and one["status"] == "False":
            return f"{one.get('reason')}: {one.get('message')}"
    return ""


def preparing(pod: Plain) -> bool:
    """Tell whether a container of a pod waits for its image or its volumes."""
    status = pod.get("status") or {}
    containers = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    return any(
        ((one.get("state") or {}).get("waiting") or {}).get("reason") in PREPARING for one in containers
    )


def told(events: Sequence[Plain], names: Sequence[str], reasons: Sequence[str], since: float) -> str:
    """Return the newest message of Events about objects, by name; empty without one since a moment (epoch)."""
    found = [
        (moment, f"{one['reason']}: {str(one.get('message') or '').strip()}")
        for one in events
        if one.get("reason") in reasons
        and one["involvedObject"].get("name") in names
        and (moment := _moment(one)) >= since
    ]
    return max(found)[1] if found else ""


def _moment(event: Plain) -> float:
    series = event.get("series") or {}
    return _epoch(series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime"))


def _epoch(text: str | None) -> float:
    return datetime.fromisoformat(text).astimezone(UTC).timestamp() if text else 0.0


def claims_of(pods: Sequence[Plain]) -> list[str]:
    """Return the names of the claims that pods mount."""
    return [
        str(volume["persistentVolumeClaim"]["claimName"])
        for pod in pods
        for volume in pod["spec"].get("volumes") or []
        if volume.get("persistentVolumeClaim")
    ]
