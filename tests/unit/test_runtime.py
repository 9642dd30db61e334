"""The seam between the kit and what runs its services: how a reference is found, and what a container answers."""

import ast
import socket
import struct
import sys
import weakref
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import docker
import pytest

from infra.catalogue.project import ROOT
from infra.engine import docker_runtime, runtime
from infra.engine.runtime import Ran, State, UnreachableError, WorkloadError, WorkloadMissingError
from infra.resources import console_transport
from infra.resources.console_transport import (
    ContainerMissingError,
    ContainerTransport,
    NotReachedError,
    Request,
    TransportError,
)
from infra.resources.revision_container import ContainerError, RevisionContainer

ID = "0123456789abcdef"
# What talks to Docker in infra/: its own side of the seam. docs/decisions/0016-platforms.md names the same places.
OF_DOCKER = {
    "infra/engine/__init__.py",
    "infra/engine/cores.py",
    "infra/engine/docker_runtime.py",
    "infra/engine/registry_login.py",
    "infra/guards/containers.py",
    "infra/guards/images.py",
    "infra/guards/ports.py",
    "infra/guards/volumes.py",
    "infra/platforms/docker.py",
    "infra/platforms/images.py",
    "infra/resources/pids_limit.py",
}


def imports(path: Path) -> Iterator[str]:
    """Yield the modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_docker_is_used_on_its_own_side_of_the_seam_alone() -> None:
    found = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "infra").rglob("*.py")
        if any(name.split(".")[0] in {"docker", "pulumi_docker"} for name in imports(path))
    }

    assert found == OF_DOCKER


def test_only_the_program_chooses_a_platform() -> None:
    users = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "infra").rglob("*.py")
        if "infra.platforms.docker" in imports(path)
    }

    assert users == {"infra/tiers/platform.py"}


class Engine:
    """The engine's API with one container, or none. A command gives `output`, and ends with `code`."""

    def __init__(self, *, state: dict[str, Any] | None = None, code: int = 0, output: bytes = b"") -> None:
        self.container = None if state is None else {"Id": ID, "RestartCount": 2, "State": state}
        self.code, self.output = code, output
        self.asked: list[tuple[str, Any]] = []
        self.sent: list[bytes] = []
        self.closed = False
        self.refuses = False
        self.timeout: float | None = 5
        self.memory: dict[str, Any] = {}

    def inspect_container(self, container: str) -> dict[str, Any]:
        self.asked.append(("inspect", container))
        if self.container is None:
            raise docker.errors.NotFound("no such container")
        return self.container

    def exec_create(self, container: str, command: list[str], **more: Any) -> dict[str, str]:
        self.asked.append((container, (command, more)))
        if self.refuses:
            raise docker.errors.APIError("refused", explanation="container is paused")
        return {"Id": "e1"}

    def exec_start(self, _exec: str, *, socket: bool = False) -> Any:
        return hijacked(self.output, self.sent) if socket else self.output

    def exec_inspect(self, _exec: str) -> dict[str, int]:
        return {"ExitCode": self.code}

    def stats(self, _container: str, **_more: Any) -> dict[str, Any]:
        return {"memory_stats": self.memory}

    def logs(self, container: str, **more: Any) -> bytes:
        self.asked.append((container, more))
        return b"a line\n"


def hijacked(output: bytes, sent: list[bytes]) -> socket.socket:
    """Return a connection as the engine makes it of an answer: one frame of standard output, then the end.

    What is written to it before it is read is in `sent`.
    """
    ours, theirs = socket.socketpair()
    ours.settimeout(10)

    class Connection(socket.socket):
        """The kit's end, which remembers what is sent."""

        def sendall(self, data: Any, flags: int = 0) -> None:
            sent.append(bytes(data))
            super().sendall(data, flags)

    theirs.sendall(struct.pack(">BxxxL", 1, len(output)) + output if output else b"")
    theirs.shutdown(socket.SHUT_WR)
    connection = Connection(fileno=ours.detach())
    # Open until the kit has read everything.
    weakref.finalize(connection, theirs.close)
    return connection


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let the chosen engine be this one."""

    def connect(engine: Engine) -> Engine:
        client = SimpleNamespace(api=engine, close=lambda: setattr(engine, "closed", True))
        monkeypatch.setattr("infra.engine.client", lambda _timeout: client)
        return engine

    return connect


@pytest.mark.parametrize("reference", [ID, "dify-dev-api"])
def test_reference_without_a_platform_is_a_container_of_docker(connected: Any, reference: str) -> None:
    engine = connected(Engine(state={"Status": "running", "Running": True}))

    with runtime.runtime(reference, 5) as found:
        assert isinstance(found, docker_runtime.DockerContainer)
        assert found.identity() == ID

    assert engine.asked == [("inspect", reference)]
    assert engine.closed


def test_platform_is_found_by_the_first_part_of_a_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("another_platform")
    module.connect = lambda reference, timeout: (reference, timeout)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "another_platform", module)
    monkeypatch.setattr(runtime, "MODULES", {**runtime.MODULES, "other": "another_platform"})

    found: Any = runtime.runtime("other:namespace/api", 7.0)

    assert found == ("other:namespace/api", 7.0)


def test_unknown_platform_is_told_with_those_that_are_known() -> None:
    with pytest.raises(UnreachableError, match=r"'nomad:dev/api' .* platform 'nomad', .* known are docker"):
        runtime.runtime("nomad:dev/api", 5)


def test_engine_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(_timeout: float) -> None:
        raise docker.errors.DockerException("connection refused")

    monkeypatch.setattr("infra.engine.client", silent)

    with pytest.raises(UnreachableError, match="the Docker engine does not answer: connection refused"):
        runtime.runtime(ID, 5)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({"Status": "running", "ExitCode": 0}, State(status="running", restarts=2)),
        (
            {"Status": "running", "Health": {"Status": "unhealthy"}, "FinishedAt": "0001-01-01T00:00:00Z"},
            State(status="running", health="unhealthy", restarts=2),
        ),
        (
            {
                "Status": "exited",
                "ExitCode": 3,
                "Health": None,
                "FinishedAt": "2026-11-29T18:03:02.123456789Z",
            },
            State(
                status="exited",
                exit_code=3,
                restarts=2,
                finished=datetime(2026, 11, 29, 18, 3, 2, tzinfo=UTC),
            ),
        ),
        (None, None),
    ],
)
def test_state_of_a_container(connected: Any, state: dict[str, Any] | None, expected: State | None) -> None:
    connected(Engine(state=state))

    assert runtime.runtime(ID, 5).state() == expected


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (None, f"there is no container {ID}"),
        ({"Status": "exited", "Running": False}, rf"container {ID} does not run \(exited\)"),
    ],
)
def test_what_does_not_run_has_no_identity(connected: Any, state: dict[str, Any] | None, words: str) -> None:
    connected(Engine(state=state))

    with pytest.raises(WorkloadMissingError, match=words):
        runtime.runtime(ID, 5).identity()
    with pytest.raises(ContainerMissingError, match=words):
        ContainerTransport(ID).send(Request(method="GET", path="/health"))


@pytest.mark.parametrize("root", [True, False])
def test_command_ends_with_its_code_and_output(connected: Any, root: bool) -> None:
    engine = connected(Engine(state={"Status": "running"}, code=7, output=b"no\n"))

    assert runtime.runtime(ID, 5).run(["false"], root=root) == Ran(code=7, output="no\n")
    assert engine.asked == [(ID, (["false"], {"user": "0" if root else ""}))]


def test_command_that_cannot_run_is_told_with_state_and_log(connected: Any) -> None:
    engine = connected(Engine(state={"Status": "paused"}))
    engine.refuses = True

    with pytest.raises(WorkloadError, match=r"^container is paused$"):
        runtime.runtime(ID, 5).run(["true"])
    with pytest.raises(
        ContainerError,
        match=r"can run in the container \(paused\): container is paused; last log lines:\na line",
    ):
        RevisionContainer(ID, "/edge").discard("abc")


@pytest.mark.parametrize("line", [b"", b"a secret\n"])
def test_line_goes_to_standard_input_and_an_answer_is_not_waited_beyond(connected: Any, line: bytes) -> None:
    engine = connected(Engine(state={"Status": "running"}, code=4, output=b"said\n"))

    said = runtime.runtime(ID, 5).ask(["cat"], seconds=5, line=line)

    assert (said.stdout, said.stderr, said.late) == (b"said\n", b"", False)
    # With a line the command may still be on its way to its end.
    assert said.code == (None if line else 4)
    assert engine.asked == [(ID, (["cat"], {"stdin": bool(line)}))]
    assert b"".join(engine.sent) == line


@pytest.mark.parametrize(("since", "asked"), [(1700000000.5, 1700000000.5), (0.0, None)])
def test_a_log_is_followed_with_times_and_without_a_deadline(
    connected: Any, since: float, asked: float | None
) -> None:
    engine = connected(Engine(state={"Status": "running"}))

    assert runtime.runtime(ID, 5).follow(since=since)

    assert engine.timeout is None
    assert engine.asked[-1] == (ID, {"stream": True, "follow": True, "timestamps": True, "since": asked})


@pytest.mark.parametrize(
    ("said", "used"),
    [
        ({"usage": 1000, "stats": {"total_inactive_file": 300, "inactive_file": 5}}, 700),
        ({"usage": 1000, "stats": {"inactive_file": 200}}, 800),
        ({"usage": 1000}, 1000),
        ({"usage": 10, "stats": {"inactive_file": 200}}, 0),
        ({}, 0),
    ],
    ids=["cgroup v1", "cgroup v2", "no detail", "all is cache", "stopped"],
)
def test_memory_in_use_is_without_the_cache(connected: Any, said: dict[str, Any], used: int) -> None:
    connected(Engine(state={"Status": "running"})).memory = said

    assert runtime.runtime(ID, 5).memory_bytes() == used


def test_logs_by_count_moment_and_stream(connected: Any) -> None:
    engine = connected(Engine(state={"Status": "running"}))
    found = runtime.runtime(ID, 5)

    assert found.logs(lines=20) == found.logs(since=12.7, errors=True) == found.logs(lines=1, times=True)

    asked: Sequence[Any] = [more for _, more in engine.asked]
    assert asked == [
        {"stdout": True, "tail": 20, "since": None, "timestamps": False},
        {"stdout": False, "tail": "all", "since": 12, "timestamps": False},
        {"stdout": True, "tail": 1, "since": None, "timestamps": True},
    ]


@pytest.mark.parametrize(
    ("output", "kind", "words"),
    [
        (b'{"problem": "nobody", "refused": true}\n', NotReachedError, "nobody"),
        (b'{"problem": "reset", "refused": false}\n', TransportError, "reset"),
        (b"", TransportError, "no answer within 60 s"),
    ],
)
def test_console_tells_what_came_instead_of_an_answer(
    connected: Any, output: bytes, kind: type[Exception], words: str
) -> None:
    connected(Engine(state={"Status": "running", "Running": True}, output=output))

    with pytest.raises(kind, match=rf"GET /health in dify-dev-api: {words}"):
        ContainerTransport("dify-dev-api").send(Request(method="GET", path="/health"))


def test_console_asks_by_standard_input_alone(connected: Any) -> None:
    reply = b'{"status": 200, "headers": [], "body": "{}"}\n'
    engine = connected(Engine(state={"Status": "running", "Running": True}, output=reply))

    answer = ContainerTransport("dify-dev-api").send(
        Request(method="POST", path="/x", json_body={"a": "secret"})
    )

    assert answer.status == 200
    assert ("dify-dev-api", (console_transport.COMMAND, {"stdin": True})) in engine.asked
    assert "secret" not in str(engine.asked)
    assert b"secret" in b"".join(engine.sent)
