"""The limit of processes: what the engine is asked for, and what becomes of its refusals."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from infra.resources import pids_limit
from infra.resources.pids_limit import PidsLimitProvider

PROPS = {"container": "0123456789abcdef", "service": "certificates", "limit": 256}


class FakeEngine(ThreadingHTTPServer):
    """Answers updates of a container with `statuses`, one after the other; the last one stays."""

    def __init__(self, statuses: list[int]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.statuses = statuses
        self.updates: list[tuple[str, object]] = []


class Handler(BaseHTTPRequestHandler):
    """The two routes of the engine's API that the resource asks for."""

    server: FakeEngine

    def do_GET(self) -> None:
        """Answer the SDK's question for the version."""
        self._answer(200, {"ApiVersion": "1.41"})

    def do_POST(self) -> None:
        """Answer an update."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.updates.append((self.path, body))
        statuses = self.server.statuses
        status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
        self._answer(status, {"Warnings": None} if status == 200 else {"message": "runc did not terminate"})

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def _answer(self, status: int, document: object) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEngine]:
    server = FakeEngine(list(request.param))
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{server.server_port}")
    monkeypatch.delenv("DOCKER_TLS_VERIFY", raising=False)
    monkeypatch.setattr(pids_limit, "AGAIN_SECONDS", 0.01)
    yield server
    server.shutdown()
    server.server_close()
    thread.join(timeout=10)


@pytest.mark.parametrize(
    "engine", [[200], [500, 500, 200]], indirect=True, ids=["at once", "a job that ends"]
)
def test_limit_is_set(engine: FakeEngine) -> None:
    PidsLimitProvider().create(PROPS)

    assert engine.statuses == [200]
    assert engine.updates[-1] == ("/v1.41/containers/0123456789abcdef/update", {"PidsLimit": 256})


@pytest.mark.parametrize("engine", [[500]], indirect=True)
def test_refusal_that_stays_is_an_error_with_the_engines_words(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pids_limit, "REFUSALS_SECONDS", 0.1)

    with pytest.raises(RuntimeError, match=r"certificates: .*limit of 256 processes: runc did not terminate"):
        PidsLimitProvider().create(PROPS)

    assert len(engine.updates) > 1


@pytest.mark.parametrize("engine", [[404]], indirect=True)
def test_container_that_is_gone_is_an_error_without_another_try(engine: FakeEngine) -> None:
    with pytest.raises(RuntimeError, match="certificates: its container 0123456789ab is gone"):
        PidsLimitProvider().create(PROPS)

    assert len(engine.updates) == 1
