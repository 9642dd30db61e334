"""The state of a pod of one service in Docker's terms, from its form in the Kubernetes API."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from infra.engine.runtime import RUNNING, State

Plain = Mapping[str, Any]
CRASHED = "CrashLoopBackOff"


def ready(pod: Plain) -> bool:
    """Tell whether a pod is ready and stays."""
    if pod["metadata"].get("deletionTimestamp"):
        return False
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def state_of(pod: Plain) -> State:
    """Return the state of a pod's service. A container that runs before it and fails is what the pod waits for."""
    status = pod.get("status") or {}
    statuses = status.get("containerStatuses") or []
    if not statuses:
        return State(status="created", reason=_why_not(pod))
    one = statuses[0]
    now, last = one.get("state") or {}, one.get("lastState") or {}
    ended = now.get("terminated") or last.get("terminated") or {}
    restarts = int(one.get("restartCount") or 0)
    common: dict[str, Any] = {
        "restarts": restarts,
        "exit_code": int(ended.get("exitCode") or 0),
        "finished": _moment(ended.get("finishedAt")),
    }
    last_reason = str(ended.get("reason") or "")
    if pod["metadata"].get("deletionTimestamp"):
        return State(status="removing", **common)
    if waiting := now.get("waiting"):
        reason = str(waiting.get("reason") or "")
        if reason == CRASHED:
            return State(status="restarting", reason=_ended(last_reason, common["exit_code"]), **common)
        return State(status="created", reason=_why_not(pod) or _said(waiting), **common)
    if now.get("terminated"):
        why = str(status.get("reason") or last_reason)
        return State(status="exited", reason="" if why == "Completed" else why, **common)
    reason = _ended(last_reason, common["exit_code"]) if restarts else ""
    return State(status=RUNNING, health=_health(pod, one), reason=reason, **common)


def _ended(reason: str, code: int) -> str:
    """Say how a run ended: `OOMKilled, exit code 137`."""
    return ", ".join(filter(None, ["" if reason == "Error" else reason, f"exit code {code}"]))


def _said(waiting: Plain) -> str:
    return ": ".join(filter(None, [str(waiting.get("reason") or ""), str(waiting.get("message") or "")]))


def _why_not(pod: Plain) -> str:
    """Say why a service has not started: no node takes the pod, or what runs before it fails; empty for neither."""
    status = pod.get("status") or {}
    if status.get("phase") == "Failed":
        return _said(status)
    for one in status.get("conditions") or []:
        if one["type"] == "PodScheduled" and one["status"] == "False":
            return _said(one)
    for one in status.get("initContainerStatuses") or []:
        now = one.get("state") or {}
        if (waiting := now.get("waiting")) and waiting.get("reason") not in {None, "PodInitializing"}:
            return f"{one['name']}: {_said(waiting)}"
        if (ended := now.get("terminated")) and ended.get("exitCode"):
            return f"{one['name']}: {_ended(str(ended.get('reason') or ''), int(ended['exitCode']))}"
    return ""


def _health(pod: Plain, one: Plain) -> str:
    if not pod["spec"]["containers"][0].get("readinessProbe"):
        return ""
    if one.get("ready"):
        return "healthy"
    return "unhealthy" if one.get("started") else "starting"


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text).astimezone(UTC) if text else None
