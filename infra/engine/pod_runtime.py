"""The pods of a service on a cluster as a `Runtime`: commands, logs and state of one of them.

A reference of a Deployment, a StatefulSet or a Job means one of its ready pods, a reference of a Pod that one alone.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Self

from infra.engine import pod_logs, pod_state, pod_streams
from infra.engine.cluster import POD, Cluster, ClusterError, Workload
from infra.engine.pod_streams import BrokenStreamError, Stream
from infra.engine.runtime import (
    CommandFailedError,
    Ran,
    Runtime,
    Said,
    State,
    UnreachableError,
    WorkloadError,
    WorkloadMissingError,
)

COMMAND_SECONDS = 60
SERVICE_LABEL = "dify-kit.service"
MEASURE_SECONDS = 10
# Of what a command wrote, the end.
MOST_OUTPUT = 16 << 10
# Of the container's own control group, in version 2 or 1: the memory in use without the cache that can be dropped, and
# the CPU time in microseconds.
_MEMORY = """
cd /sys/fs/cgroup
if [ -f memory.current ]; then cat memory.current; grep '^inactive_file ' memory.stat
else cat memory/memory.usage_in_bytes; grep '^total_inactive_file ' memory/memory.stat; fi
"""
_CPU = """
cd /sys/fs/cgroup
if [ -f cpu.stat ]; then grep '^usage_usec ' cpu.stat; else echo usage_nsec "$(cat cpuacct/cpuacct.usage)"; fi
"""


def connect(reference: str, timeout: float) -> Runtime:
    """Return the workload that a reference names (`infra.engine.cluster.Workload`). Raises UnreachableError."""
    try:
        at = Workload.parse(reference)
        # Each answer of the API has a time of its own: this one is for what a command writes.
        return PodRuntime(at, at.cluster(), timeout)
    except (ClusterError, ValueError) as problem:
        fix = f"; {problem.fix}" if isinstance(problem, ClusterError) else ""
        raise UnreachableError(f"{problem}{fix}") from None


class PodRuntime(Runtime):
    """A pod of a workload. What changes a pod is left to Kubernetes and not supported."""

    def __init__(self, at: Workload, cluster: Cluster, silence: float) -> None:
        self._at = at
        self._cluster = cluster
        self._silence = silence

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
        """See Runtime."""
        try:
            return pod_state.state_of(self._pod())
        except WorkloadMissingError:
            return None

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
        pod = self._pod()
        name = str(pod["metadata"]["name"])
        try:
            ran = self._cluster.execute(
                self._at.namespace, name, self._service(pod), command, seconds=seconds, line=line
            )
        except ClusterError as problem:
            raise WorkloadError(str(problem)) from None
        answered = bool(line) and ran.stdout.endswith(b"\n")
        return Said(
            stdout=ran.stdout, stderr=ran.stderr, late=ran.code is None and not answered, code=ran.code
        )

    def read(self, command: Sequence[str]) -> Iterator[bytes]:
        """See Runtime."""
        with self._running(command) as stream:
            yield from stream.output(self._silence)
        if stream.code:
            raise CommandFailedError(command[0], stream.code, stream.errors)

    def write(self, command: Sequence[str], content: Iterable[bytes], *, seconds: float) -> Ran:
        """See Runtime."""
        said = b""
        with self._running(command, stdin=True) as stream:
            # A command that ends before the content is not sent the rest: its exit code says why.
            with suppress(BrokenPipeError, ConnectionResetError):
                stream.send(content, seconds)
            for block in stream.output(seconds):
                said = (said + block)[-MOST_OUTPUT:]
        return Ran(code=int(stream.code or 0), output=said.decode(errors="replace") + stream.errors)

    @contextmanager
    def _running(self, command: Sequence[str], *, stdin: bool = False) -> Iterator[Stream]:
        pod = self._pod()
        name = str(pod["metadata"]["name"])
        try:
            with pod_streams.running(
                self._cluster, self._at.namespace, name, self._service(pod), command, stdin=stdin
            ) as stream:
                yield stream
        except (ClusterError, BrokenStreamError) as problem:
            raise WorkloadError(f"{command[0]} in {name} broke off: {problem}") from None

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
        if errors:
            raise self._unsupported("a log of one stream")
        try:
            return pod_logs.past(self._cluster, self._pod(), lines=lines, since=since, times=times)
        except ClusterError as problem:
            raise WorkloadError(str(problem)) from None

    def follow(self, *, since: float) -> Iterator[bytes]:
        """See Runtime. It also ends when nothing is logged for some minutes."""
        pod = self._pod()
        try:
            yield from pod_logs.follow(self._cluster, pod, self._service(pod), since=since)
        except ClusterError as problem:
            raise WorkloadError(str(problem)) from None

    def cpu_seconds(self) -> float:
        """See Runtime."""
        name, _, number = self._measured(_CPU).strip().partition(" ")
        return int(number) / (1e9 if name == "usage_nsec" else 1e6) if number.isdigit() else 0.0

    def memory_bytes(self) -> int:
        """See Runtime."""
        words = self._measured(_MEMORY).split()
        numbers = [int(word) for word in words if word.isdigit()]
        return max(0, numbers[0] - numbers[1]) if len(numbers) == 2 else 0  # noqa: PLR2004  # use and cache

    def _measured(self, script: str) -> str:
        try:
            return self.ask(["sh", "-c", script], seconds=MEASURE_SECONDS).stdout.decode(errors="replace")
        except WorkloadError:
            return ""

    def ending(self) -> int:
        """See Runtime: pods that end, within their grace."""
        try:
            pods = self._cluster.pods(self._at.namespace, f"{SERVICE_LABEL}={self._at.name}")
        except ClusterError as problem:
            raise UnreachableError(f"{problem}; {problem.fix}") from None
        return sum(1 for pod in pods if pod["metadata"].get("deletionTimestamp"))

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
        """Return the pod of the reference, or the same one of the ready pods each time, as long as it is there."""
        at = self._at
        try:
            if at.kind == POD:
                if found := self._cluster.pod(at.namespace, at.name):
                    return found
                raise WorkloadMissingError(f"there is no pod {at.name} in namespace {at.namespace}")
            pods = self._cluster.pods(at.namespace, f"{SERVICE_LABEL}={at.name}")
        except ClusterError as problem:
            raise UnreachableError(f"{problem}; {problem.fix}") from None
        ready = [pod for pod in pods if pod_state.ready(pod)]
        if not ready:
            raise WorkloadMissingError(f"{at.kind} {at.name} in namespace {at.namespace} has no ready pod")
        return min(ready, key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]))

    def _service(self, pod: Mapping[str, Any]) -> str:
        """Return the name of the service, which is that of the main container of its pods."""
        return self._at.name if self._at.kind != POD else str(pod["metadata"]["labels"][SERVICE_LABEL])
