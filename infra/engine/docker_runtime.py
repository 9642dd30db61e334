"""Workloads that are containers of a Docker engine (`infra.engine`), through its API alone.

Nothing here needs a path of the engine's machine, so a remote engine works as a local one does.
"""

import socket
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import docker
import requests
from docker.utils import socket as docker_socket

from infra import engine
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

_BROKEN = (docker.errors.DockerException, requests.RequestException, docker_socket.SocketError, OSError)
# What the engine writes for a time that has not come.
_NEVER = "0001-"
# Of what a command wrote, the end.
_MOST_OUTPUT = 16 << 10


def connect(reference: str, timeout: float) -> Runtime:
    """See `infra.engine.runtime.Module`. `reference` is the id or the name of a container."""
    try:
        client = engine.client(timeout)
    except (docker.errors.DockerException, requests.RequestException) as problem:
        raise UnreachableError(f"the Docker engine does not answer: {problem}") from None
    return DockerContainer(reference, client)


class DockerContainer(Runtime):
    """A container, by its id or its name."""

    def __init__(self, reference: str, client: docker.DockerClient) -> None:
        self._id = reference
        self._client = client
        self._api: Any = client.api

    def __enter__(self) -> Self:
        """See Runtime."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        """See Runtime."""
        self._client.close()

    def identity(self) -> str:
        """Return the id of the running container. Raises WorkloadMissingError."""
        try:
            found = self._inspected()
        except (docker.errors.DockerException, requests.RequestException) as problem:
            raise UnreachableError(f"the Docker engine does not answer: {problem}") from None
        if found is None:
            raise WorkloadMissingError(f"there is no container {self._id}")
        if not found["State"]["Running"]:
            raise WorkloadMissingError(f"container {self._id} does not run ({found['State']['Status']})")
        return str(found["Id"])

    def state(self) -> State | None:
        """See Runtime."""
        found = self._inspected()
        if found is None:
            return None
        state = found["State"]
        return State(
            status=state["Status"],
            health=(state.get("Health") or {}).get("Status", ""),
            restarts=int(found.get("RestartCount") or 0),
            exit_code=int(state.get("ExitCode") or 0),
            finished=_moment(state.get("FinishedAt") or _NEVER),
        )

    def run(self, command: Sequence[str], *, root: bool = False) -> Ran:
        """See Runtime."""
        try:
            made = self._api.exec_create(self._id, list(command), user="0" if root else "")
            output: bytes = self._api.exec_start(made["Id"])
            code = int(self._api.exec_inspect(made["Id"])["ExitCode"])
        except docker.errors.APIError as problem:
            raise WorkloadError(str(problem.explanation)) from None
        return Ran(code=code, output=output.decode(errors="replace"))

    def ask(self, command: Sequence[str], *, seconds: float, line: bytes = b"") -> Said:
        """See Runtime. Not every way to an engine can be closed in one direction, or passes on the end of a stream."""
        with _told():
            made = self._api.exec_create(self._id, list(command), stdin=bool(line))
            said = _exchange(self._api.exec_start(made["Id"], socket=True), seconds, line)
            if said.late or line:
                return said
            code = int(self._api.exec_inspect(made["Id"])["ExitCode"])
        return Said(stdout=said.stdout, stderr=said.stderr, code=code)

    def read(self, command: Sequence[str]) -> Iterator[bytes]:
        """See Runtime."""
        errors = b""
        with _told():
            made = self._api.exec_create(self._id, list(command))
            for stdout, stderr in self._api.exec_start(made["Id"], stream=True, demux=True):
                errors = (errors + (stderr or b""))[-_MOST_OUTPUT:]
                if stdout:
                    yield stdout
            code = int(self._api.exec_inspect(made["Id"])["ExitCode"])
        if code:
            raise CommandFailedError(command[0], code, errors.decode(errors="replace"))

    def write(self, command: Sequence[str], content: Iterable[bytes], *, seconds: float) -> Ran:
        """See Runtime. Not every way to an engine can be closed in one direction."""
        with _told():
            made = self._api.exec_create(self._id, list(command), stdin=True)
            stream = self._api.exec_start(made["Id"], socket=True)
            said = _fed(stream, content, seconds)
            code = self._api.exec_inspect(made["Id"])["ExitCode"]
        return Ran(code=1 if code is None else int(code), output=said.decode(errors="replace"))

    def unpack(self, directory: str, archive: bytes) -> None:
        """See Runtime."""
        try:
            self._api.put_archive(self._id, directory, archive)
        except (docker.errors.DockerException, requests.RequestException) as problem:
            raise WorkloadError(f"{directory} took no file: {problem}") from None

    def address_in(self, network: str) -> str:
        """See Runtime."""
        found = self._inspected()
        place = (found["NetworkSettings"]["Networks"].get(network) or {}) if found else {}
        return str(place.get("IPAddress") or "")

    def logs(
        self,
        *,
        lines: int | None = None,
        since: float | None = None,
        errors: bool = False,
        times: bool = False,
    ) -> bytes:
        """See Runtime."""
        logged: bytes = self._api.logs(
            self._id,
            stdout=not errors,
            tail="all" if lines is None else lines,
            since=None if since is None else int(since),
            timestamps=times,
        )
        return logged

    def follow(self, *, since: float) -> Iterator[bytes]:
        """See Runtime. Without a limit of time for each piece: a service may log nothing for hours."""
        self._api.timeout = None
        pieces: Iterator[bytes] = self._api.logs(
            self._id, stream=True, follow=True, timestamps=True, since=since if since > 0 else None
        )
        return pieces

    def cpu_seconds(self) -> float:
        """See Runtime."""
        try:
            said = self._api.stats(self._id, stream=False, one_shot=True)
            return float(said["cpu_stats"]["cpu_usage"]["total_usage"]) / 1e9
        except (docker.errors.DockerException, requests.RequestException, KeyError, TypeError):
            return 0.0

    def memory_bytes(self) -> int:
        """See Runtime. As docker's own command line counts: cgroup v1 and v2 name the cache differently."""
        try:
            said = self._api.stats(self._id, stream=False, one_shot=True)["memory_stats"]
            detail = said.get("stats") or {}
            cache = detail.get("total_inactive_file", detail.get("inactive_file", 0))
            return max(0, int(said["usage"]) - int(cache))
        except (docker.errors.DockerException, requests.RequestException, KeyError, TypeError):
            return 0

    def ending(self) -> int:
        """See Runtime: a service is one container."""
        return 0

    def start(self) -> None:
        """See Runtime."""
        self._api.start(self._id)

    def restart(self, grace: int) -> None:
        """See Runtime."""
        self._api.restart(self._id, timeout=grace)

    def _inspected(self) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = self._api.inspect_container(self._id)
        except docker.errors.NotFound:
            return None
        return found


@contextmanager
def _told() -> Iterator[None]:
    """Turn what docker's SDK and its sockets raise into WorkloadError."""
    try:
        yield
    except _BROKEN as problem:
        raise WorkloadError(str(problem)) from None


def _exchange(stream: Any, seconds: float, line: bytes) -> Said:  # noqa: ANN401  # of docker's SDK
    """Send a line, if any, and read what comes for at most `seconds`. docker's own reader waits without end."""
    raw = getattr(stream, "_sock", stream)
    output = {1: b"", 2: b""}
    late = threading.Event()

    def give_up() -> None:
        # The reader polls without end; a connection that was shut down wakes it.
        late.set()
        with suppress(OSError):
            raw.shutdown(socket.SHUT_RDWR)

    watch = threading.Timer(seconds, give_up)
    watch.daemon = True
    watch.start()
    try:
        raw.settimeout(seconds)
        raw.sendall(line)
        for number, data in docker_socket.frames_iter(stream, tty=False):  # type: ignore[no-untyped-call]
            output[number] += data
            if line and number == 1 and data.endswith(b"\n"):
                break
    finally:
        watch.cancel()
        stream.close()
    return Said(stdout=output[1], stderr=output[2], late=late.is_set())


def _fed(stream: Any, content: Iterable[bytes], seconds: float) -> bytes:  # noqa: ANN401  # of docker's SDK
    """Send content, and return the end of what came until the command ended. Raises WorkloadError when it does not."""
    raw = getattr(stream, "_sock", stream)
    raw.settimeout(seconds)
    said = bytearray()

    def listen() -> None:
        # The exit code says how a connection ended that broke.
        with suppress(OSError, docker_socket.SocketError):
            for _, block in docker_socket.frames_iter(stream, tty=False):  # type: ignore[no-untyped-call]
                said.extend(block)
                del said[:-_MOST_OUTPUT]
        # The engine takes no content for a command that has ended, and does not say so: this wakes the sender.
        with suppress(OSError):
            raw.shutdown(socket.SHUT_RDWR)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        for block in content:
            raw.sendall(block)
    except (BrokenPipeError, ConnectionResetError):
        # The command has ended before the content: its exit code says why.
        pass
    except BaseException:
        raw.close()
        raise
    listener.join(seconds)
    if listener.is_alive():
        raw.close()
        raise WorkloadError(f"the command did not end within {seconds:.0f} s")
    return bytes(said)


def _moment(text: str) -> datetime | None:
    """Return a time of the engine, to the second: it writes nanoseconds, which fromisoformat does not read."""
    return None if text.startswith(_NEVER) else datetime.fromisoformat(text[:19]).replace(tzinfo=UTC)
