"""The published address is asked from outside, and a dead one is published again."""

import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dify_kit.checks import published, stack
from dify_kit.checks.result import Status
from dify_kit.containers.docker_host import Container
from dify_kit.errors import KitError
from dify_kit.workspace.files import DataDir, StackFiles

EDGE = Container(
    id="e" * 64, name="dify-dev-nginx", service="nginx", job=False, state="running", health="healthy"
)


class Paper:
    """An engine with one edge; notes what was restarted."""

    def __init__(self, *, edge: Container | None = EDGE, here: bool = True) -> None:
        self.edge, self.here = edge, here
        self.restarted: list[str] = []
        self.on_restart: Callable[[], None] = lambda: None

    def local(self) -> bool:
        return self.here

    def containers(self, stack: str) -> list[Container]:
        return [self.edge] if self.edge and stack == "dev" else []

    def restart_container(self, container_id: str) -> None:
        self.restarted.append(container_id)
        self.on_restart()


@dataclass
class Served:
    """A server: its port, what it answers, and for which hosts it was asked."""

    port: int = 0
    status: int = 200
    body: bytes = b'{"status":"ok"}'
    hosts: list[str] = field(default_factory=list)


@pytest.fixture
def served() -> Iterator[Served]:
    told = Served()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.hosts.append(self.headers["Host"])
            self.send_response(told.status)
            self.send_header("Content-Length", str(len(told.body)))
            self.end_headers()
            self.wfile.write(told.body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield told
    server.shutdown()
    server.server_close()


def files_of(tmp_path: Path, port: object, more: str = "") -> StackFiles:
    """Return a stack whose settings are on paper."""
    files = StackFiles(
        stack="dev", data=DataDir.locate({"DIFY_KIT_HOME": str(tmp_path / "home")}), checkout=tmp_path
    )
    files.stored.parent.mkdir(parents=True)
    files.stored.write_text(f'config:\n  dify:httpPort: "{port}"\n{more}', encoding="utf-8")
    return files


def ensure(files: StackFiles, engine: Paper) -> None:
    published.ensure(files, engine, patience=0, after_restart=0)


def test_an_edge_that_answers_is_left_alone(tmp_path: Path, served: Served) -> None:
    engine = Paper()
    more = "  dify:publicUrl: https://dify.example.com\n  dify:bindAddress: 0.0.0.0\n"

    ensure(files_of(tmp_path, served.port, more), engine)

    assert engine.restarted == []
    assert served.hosts == [f"dify.example.com:{served.port}"]


def test_a_port_with_the_proxy_protocol_is_asked_by_it(tmp_path: Path) -> None:
    more = '  dify:proxyProtocol: "true"\n  dify:trustedProxies: ["10.0.0.0/8"]\n'
    with socket.create_server(("127.0.0.1", 0)) as server:
        received: list[bytes] = []

        def serve() -> None:
            stream, _ = server.accept()
            with stream:
                received.append(stream.recv(1000))
                stream.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"status":"ok"}')

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        where = published.find(files_of(tmp_path, server.getsockname()[1], more), Paper())
        assert where
        found = published.problem(where)
        thread.join(10)

    assert found == ""
    # The connection is for no other client.
    assert received[0].startswith(b"PROXY UNKNOWN\r\n")


def test_a_dead_port_is_published_again(
    tmp_path: Path, served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = Paper()
    served.status = 502

    def well() -> None:
        served.status = 200

    engine.on_restart = well

    ensure(files_of(tmp_path, served.port), engine)

    assert engine.restarted == [EDGE.id]
    told = capsys.readouterr().err
    assert "does not answer, although dify-dev-nginx is healthy inside (status 502" in told
    assert "answers again" in told


def test_a_port_that_stays_dead_is_an_error(tmp_path: Path) -> None:
    engine = Paper()

    with pytest.raises(KitError, match=r"127\.0\.0\.1:9 does not answer") as refused:
        ensure(files_of(tmp_path, 9), engine)

    assert engine.restarted == [EDGE.id]
    assert "docker logs dify-dev-nginx" in refused.value.hint


@pytest.mark.parametrize("engine", [Paper(edge=None), Paper(here=False)], ids=["no-edge", "another-machine"])
def test_what_cannot_be_asked_is_not_judged(tmp_path: Path, engine: Paper) -> None:
    ensure(files_of(tmp_path, 9), engine)

    assert engine.restarted == []


@pytest.mark.parametrize("answer", [(200, b"something else"), (200, b"[]"), (503, b'{"status":"ok"}')])
def test_another_programs_answer_is_none(tmp_path: Path, served: Served, answer: tuple[int, bytes]) -> None:
    served.status, served.body = answer
    where = published.find(files_of(tmp_path, served.port), Paper())

    assert where
    assert published.problem(where)


def test_doctor_tells_and_repairs_when_asked(
    tmp_path: Path, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Paper()
    monkeypatch.setattr(stack, "DockerEngine", lambda: engine)
    monkeypatch.setattr(published, "PATIENCE_SECONDS", 0)
    files = files_of(tmp_path, served.port)

    (well,) = stack.check_published(files)
    served.status = 502
    (dead,) = stack.check_published(files)

    assert (well.status, dead.status) == (Status.OK, Status.FAILED)
    assert "--repair" in dead.hint
    assert engine.restarted == []
    engine.edge = None
    assert stack.check_published(files) == []
