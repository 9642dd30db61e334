"""The logs of a pod, in the form of the Docker engine: each line with its time, all of its containers together.

The containers that run before the service come first, and the run before the last restart, the only one that a node
keeps, comes before the present one.
"""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from infra.engine.cluster import BAD_REQUEST, NOT_FOUND, TIMEOUT_SECONDS, Cluster

# The clock of a node differs from the one of this machine. What is too old is left out by its own time.
CLOCK_SECONDS = 60
# A connection on which nothing comes for this long is closed, and the next look opens another one.
SILENCE_SECONDS = 300
_BLOCK_BYTES = 64 << 10


def runs(pod: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    """Yield the name of each container of a pod in the order of their starts; True is the run before a restart."""
    status = pod.get("status") or {}
    for key in ("initContainerStatuses", "containerStatuses"):
        for one in status.get(key) or []:
            if int(one.get("restartCount") or 0):
                yield str(one["name"]), True
            yield str(one["name"]), False


def past(
    cluster: Cluster, pod: Mapping[str, Any], *, lines: int | None, since: float | None, times: bool
) -> bytes:
    """Return what a pod has logged: the last `lines`, and nothing before `since` (seconds of the epoch)."""
    rows: list[bytes] = []
    for container, previous in runs(pod):
        wanted: dict[str, Any] = {"previous": previous}
        # How many of the last lines are of which container is known afterwards: as many are read of each.
        wanted |= {} if lines is None else {"tail_lines": lines}
        with _opened(cluster, pod, container, since, TIMEOUT_SECONDS, **wanted) as answer:
            rows += [row for row in answer.read().split(b"\n") if row] if answer else []
    if since is not None:
        rows = [row for row in rows if _moment(row) >= since]
    if lines is not None:
        rows = rows[max(0, len(rows) - lines) :]
    return b"".join((row if times else row.partition(b" ")[2]) + b"\n" for row in rows)


def follow(cluster: Cluster, pod: Mapping[str, Any], container: str, *, since: float) -> Iterator[bytes]:
    """Yield what a container logs from about a moment on, until it ends, or logs nothing for five minutes."""
    with _opened(cluster, pod, container, since, SILENCE_SECONDS, follow=True) as answer:
        if answer:
            yield from answer.stream(_BLOCK_BYTES)


@contextmanager
def _opened(
    cluster: Cluster,
    pod: Mapping[str, Any],
    container: str,
    since: float | None,
    read_seconds: float,
    **wanted: Any,  # noqa: ANN401  # of the client
) -> Iterator[Any]:
    """Yield the answer of the API to read from, or None where a node has no such log. Raises ClusterError."""
    from kubernetes.client.exceptions import ApiException  # noqa: PLC0415

    name, namespace = str(pod["metadata"]["name"]), str(pod["metadata"]["namespace"])
    if since:
        # The client has no parameter for a moment.
        wanted["since_seconds"] = max(1, math.ceil(time.time() - since) + CLOCK_SECONDS)
    with cluster.asking(f"reading the log of {name}"):
        try:
            answer = cluster.core.read_namespaced_pod_log(
                name,
                namespace,
                container=container,
                timestamps=True,
                _preload_content=False,
                _request_timeout=(TIMEOUT_SECONDS, read_seconds),
                **wanted,
            )
        except ApiException as problem:
            # It has not started, or the node keeps nothing of its run before.
            if problem.status not in {NOT_FOUND, BAD_REQUEST}:
                raise
            yield None
            return
        try:
            yield answer
        finally:
            answer.release_conn() if hasattr(answer, "release_conn") else answer.close()


def _moment(row: bytes) -> float:
    """Return the time of a line in seconds of the epoch; the end of time for a line without one."""
    try:
        # A node writes its own zone.
        return datetime.fromisoformat(row.partition(b" ")[0].decode()).timestamp()
    except (ValueError, UnicodeDecodeError):
        return math.inf
