"""The pods of a service on a cluster as a `Runtime`: commands, logs and state of one of its ready pods."""

from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from infra.engine.cluster import Cluster, ClusterError, Workload
from infra.engine.runtime import (
    RUNNING,
    Ran,
    Runtime,
    Said,
    State,
    UnreachableError,
    WorkloadError,
    WorkloadMissingError,
)

COMMAND_SECONDS = 60
LOG_LINES = 1000


def connect(reference: str, timeout: float) -> Runtime:
    """Return the workload that a reference names (`infra.engine.cluster.Workload`). Raises UnreachableError."""
    del timeout  # each answer of the API has its own
    try:
        at = Workload.parse(reference)
        return PodRuntime(at, at.cluster())
    except (ClusterError, ValueError) as problem:
        fix = f"; {problem.fix}" if isinstance(problem, ClusterError) else ""
        raise UnreachableError(f"{problem}{fix}") from None


class PodRuntime(Runtime):
    """The ready pod of a workload that was made first. What changes a pod is left to Kubernetes and not supported."""

    def __init__(self, at: Workload, cluster: Cluster) -> None:
        self._at = at
        self._cluster = cluster

    def __enter__(self) -> Self:
        """See Runtime."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        """See Runtime: each request has a connection of its own."""

    def identity(self) -> str:
        """Return the uid of the pod."""
        return str(self._pod()["metadata"]["uid"])

    def state(self) -> State | None:
        """See Runtime: that of a pod that is ready."""
        try:
            self._pod()
        except WorkloadMissingError:
            return None
        return State(status=RUNNING, health="healthy")

    def run(self, command: Sequence[str], *, root: bool = False) -> Ran:
        """See Runtime. A command in a pod has the pod's own user."""
        if root:
            raise self._unsupported("a command of root")
        said = self.ask(command, seconds=COMMAND_SECONDS)
        if said.code is None:
            raise WorkloadError(f"{command[0]} in {self._at.name} did not end within {COMMAND_SECONDS} s")
        return Ran(code=said.code, output=(said.stdout + said.stderr).decode(errors="replace"))

    def ask(self, command: Sequence[str], *, seconds: float, line: bytes = b"") -> Said:
        """See Runtime."""
        pod = str(self._pod()["metadata"]["name"])
        try:
            ran = self._cluster.execute(
                self._at.namespace, pod, self._at.name, command, seconds=seconds, line=line
            )
        except ClusterError as problem:
            raise WorkloadError(str(problem)) from None
        answered = bool(line) and ran.stdout.endswith(b"\n")
        return Said(
            stdout=ran.stdout, stderr=ran.stderr, late=ran.code is None and not answered, code=ran.code
        )

    def unpack(self, directory: str, archive: bytes) -> None:
        """See Runtime."""
        del directory, archive
        raise self._unsupported("a file in a running pod")

    def address_in(self, network: str) -> str:
        """See Runtime: nginx finds services by their names alone."""
        del network
        return ""

    def logs(
        self,
        *,
        lines: int | None = None,
        since: float | None = None,
        errors: bool = False,
        times: bool = False,
    ) -> bytes:
        """See Runtime. A cluster keeps both streams together."""
        if since is not None or errors or times:
            raise self._unsupported("a part of a log")
        pod = str(self._pod()["metadata"]["name"])
        try:
            text = self._cluster.logs(self._at.namespace, pod, self._at.name, lines=lines or LOG_LINES)
        except ClusterError as problem:
            raise WorkloadError(str(problem)) from None
        return text.encode()

    def follow(self, *, since: float) -> Iterator[bytes]:
        """See Runtime."""
        del since
        raise self._unsupported("a log that is followed")

    def cpu_seconds(self) -> float:
        """See Runtime: not reported."""
        return 0.0

    def memory_bytes(self) -> int:
        """See Runtime: not reported."""
        return 0

    def start(self) -> None:
        """See Runtime."""
        raise self._unsupported("a start")

    def restart(self, grace: int) -> None:
        """See Runtime."""
        del grace
        raise self._unsupported("a restart")

    def _unsupported(self, what: str) -> WorkloadError:
        return WorkloadError(f"{self._at.name}: {what} is not supported on dify:platform kubernetes")

    def _pod(self) -> Mapping[str, Any]:
        """Return the same one of the ready pods each time, as long as it is there."""
        try:
            pods = self._cluster.pods(self._at.namespace, f"dify-kit.service={self._at.name}")
        except ClusterError as problem:
            raise UnreachableError(f"{problem}; {problem.fix}") from None
        ready = [pod for pod in pods if _ready(pod)]
        if not ready:
            raise WorkloadMissingError(
                f"{self._at.kind} {self._at.name} in namespace {self._at.namespace} has no ready pod"
            )
        return min(ready, key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]))


def _ready(pod: Mapping[str, Any]) -> bool:
    if pod["metadata"].get("deletionTimestamp"):
        return False
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
