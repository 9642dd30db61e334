"""The pods of a service as a `Runtime`: which pod is taken, what a command's output becomes, what is not supported."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from infra.engine import cluster
from infra.engine.cluster import ClusterError, Executed, Workload
from infra.engine.runtime import Ran, State, WorkloadError, runtime
from infra.resources.console_transport import (
    COMMAND,
    ContainerMissingError,
    ContainerTransport,
    NotReachedError,
    Request,
    TransportError,
)

AT = Workload(kubeconfig="/k", context="c", namespace="dify-a", kind="Deployment", name="api")


def pod(
    name: str, *, ready: bool = True, made: str = "2026-01-01T00:00:00Z", **metadata: Any
) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "uid": f"uid-of-{name}", "creationTimestamp": made, **metadata},
        "spec": {"containers": [{"name": "api", "readinessProbe": {"exec": {}}}]},
        "status": {
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            "containerStatuses": [
                {"name": "api", "ready": ready, "started": True, "state": {"running": {}}, "restartCount": 0}
            ],
        },
    }


class FakeCluster:
    """A cluster with pods of one service, and the reply of every command in them."""

    def __init__(
        self,
        pods: Sequence[dict[str, Any]],
        reply: bytes = b"",
        stderr: bytes = b"",
        code: int | None = None,
    ) -> None:
        self._pods = list(pods)
        self._ran = Executed(code=code, stdout=reply, stderr=stderr)
        self.commands: list[tuple[str, str, list[str], bytes]] = []

    def pods(self, namespace: str, selector: str) -> list[dict[str, Any]]:
        assert (namespace, selector) == ("dify-a", "dify-kit.service=api")
        return self._pods

    def execute(
        self, namespace: str, pod: str, container: str, command: list[str], *, seconds: float, line: bytes
    ) -> Executed:
        del namespace, seconds
        self.commands.append((pod, container, command, line))
        return self._ran


def use(monkeypatch: pytest.MonkeyPatch, found: FakeCluster) -> ContainerTransport:
    monkeypatch.setattr(cluster.Workload, "cluster", lambda _self: found)
    return ContainerTransport(str(AT))


def test_the_oldest_ready_pod_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    pods = [
        pod("api-new", made="2026-01-02T00:00:00Z"),
        pod("api-old"),
        pod("api-starting", ready=False, made="2025-01-01T00:00:00Z"),
        pod("api-ending", made="2025-01-01T00:00:00Z", deletionTimestamp="2026-01-02T00:00:00Z"),
    ]

    assert use(monkeypatch, FakeCluster(pods)).identity() == "uid-of-api-old"


def test_without_a_ready_pod_there_is_no_way(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ContainerMissingError, match="Deployment api in namespace dify-a has no ready pod"):
        use(monkeypatch, FakeCluster([pod("api-1", ready=False)])).identity()


def test_a_request_is_a_line_of_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    reply = json.dumps({"status": 201, "headers": [["Set-Cookie", "a=b"]], "body": "{}"}).encode() + b"\n"
    found = FakeCluster([pod("api-1")], reply)
    request = Request(method="POST", path="/console/api/login", json_body={"password": "hidden"})

    answer = use(monkeypatch, found).send(request)

    assert answer.status == 201
    assert answer.cookies() == {"a": "b"}
    ((name, container, command, line),) = found.commands
    assert (name, container, command) == ("api-1", "api", COMMAND)
    assert b"hidden" in line
    assert "hidden" not in " ".join(command)


@pytest.mark.parametrize(
    ("reply", "stderr", "kind", "words"),
    [
        (b"", b"", TransportError, "no answer within 60 s"),
        (b"", b"Traceback\nOSError: disk\n", TransportError, "OSError: disk"),
        (b'{"problem": "refused", "refused": true}\n', b"", NotReachedError, "refused"),
        (b'{"problem": "timed out", "refused": false}\n', b"", TransportError, "timed out"),
    ],
)
def test_what_is_no_answer_is_an_error(
    monkeypatch: pytest.MonkeyPatch, reply: bytes, stderr: bytes, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        # One that wrote an error has ended; the others did not end in time.
        use(monkeypatch, FakeCluster([pod("api-1")], reply, stderr, code=1 if stderr else None)).send(
            Request(method="GET", path="/")
        )


def test_a_cluster_that_does_not_answer_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_self: Workload) -> None:
        raise ClusterError("the cluster does not answer", "start it")

    monkeypatch.setattr(cluster.Workload, "cluster", refuse)
    with pytest.raises(TransportError, match="does not answer; start it"):
        ContainerTransport(str(AT)).identity()


def test_a_command_has_its_code_and_output(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, FakeCluster([pod("api-1")], b"out", b"err", code=7))

    with runtime(str(AT), 5) as found:
        assert found.run(["true"]) == Ran(code=7, output="outerr")
        assert found.state() == State(status="running", health="healthy")


def test_a_command_that_does_not_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, FakeCluster([pod("api-1")], b"so far"))

    with runtime(str(AT), 5) as found, pytest.raises(WorkloadError, match="did not end"):
        found.run(["sleep", "99"])


def test_what_would_change_a_pod_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, FakeCluster([pod("api-1")]))

    with runtime(str(AT), 5) as found:
        with pytest.raises(WorkloadError, match="not supported on dify:platform kubernetes"):
            found.restart(5)
        with pytest.raises(WorkloadError, match="a start is not supported"):
            found.start()
        with pytest.raises(WorkloadError, match="a file in a running pod is not supported"):
            found.unpack("/", b"")
        with pytest.raises(WorkloadError, match="a log of one stream is not supported"):
            found.logs(errors=True)


def test_pods_that_end_after_their_places_were_taken_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    ending = pod("api-old", deletionTimestamp="2026-01-02T00:00:00Z")
    use(monkeypatch, FakeCluster([pod("api-1"), ending]))

    with runtime(str(AT), 5) as found:
        assert found.ending() == 1


@pytest.mark.parametrize(
    ("output", "used"),
    [
        (b"1000\ninactive_file 400\n", 600),
        (b"1000\ntotal_inactive_file 400\n", 600),
        (b"100\ninactive_file 400\n", 0),
        (b"cat: memory.current: No such file\n", 0),
    ],
)
def test_memory_is_that_of_the_containers_own_group(
    monkeypatch: pytest.MonkeyPatch, output: bytes, used: int
) -> None:
    use(monkeypatch, FakeCluster([pod("api-1")], output, code=0))

    with runtime(str(AT), 5) as found:
        assert found.memory_bytes() == used


@pytest.mark.parametrize(
    ("output", "seconds"), [(b"usage_usec 2500000\n", 2.5), (b"usage_nsec 1500000000\n", 1.5), (b"", 0.0)]
)
def test_cpu_time_is_in_seconds(monkeypatch: pytest.MonkeyPatch, output: bytes, seconds: float) -> None:
    use(monkeypatch, FakeCluster([pod("api-1")], output, code=0))

    with runtime(str(AT), 5) as found:
        assert found.cpu_seconds() == seconds
