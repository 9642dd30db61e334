"""The load against a server in this process: counts, limits, errors by kind, cleaning up, no key in sight."""

import json
import threading
import time
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import dify_kit.bench_command  # noqa: F401  # registers the command
from dify_kit.app import app
from dify_kit.benchmark.statistics import percentile

KEY = "app-not-to-be-shown"


class Server(ThreadingHTTPServer):
    """Counts what it is asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.asked = self.now = self.most = 0
        self.status = 200
        self.open: set[str] = set()


class Handler(BaseHTTPRequestHandler):
    """Dify's chat, or a refusal."""

    server: Server

    def do_POST(self) -> None:
        """Stream one answer."""
        self.rfile.read(int(self.headers["Content-Length"]))
        server, made = self.server, str(uuid.uuid4())
        with server.lock:
            server.asked += 1
            server.now += 1
            server.most = max(server.most, server.now)
        time.sleep(0.01)
        self.send_response(server.status if self.headers["Authorization"] == f"Bearer {KEY}" else 401)
        self.end_headers()
        with server.lock:
            server.now -= 1
            if server.status == 200:
                server.open.add(made)
        for event in ({"event": "message", "answer": "hi"}, {"event": "message_end"}):
            self.wfile.write(f"data: {json.dumps(event | {'conversation_id': made})}\n\n".encode())

    def do_DELETE(self) -> None:
        """Delete a conversation."""
        self.server.open.discard(self.path.rsplit("/", 1)[1])
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Run the server, with the key in the environment."""
    monkeypatch.setenv("BENCH_KEY", KEY)
    with Server() as one:
        threading.Thread(target=one.serve_forever, args=(0.01,), daemon=True).start()
        yield one
        one.shutdown()


@pytest.mark.parametrize(("status", "kind"), [(200, ""), (429, "rate_limited"), (503, "http_503")])
def test_counts_limits_and_cleaning(server: Server, tmp_path: Path, status: int, kind: str) -> None:
    server.status = status
    file = tmp_path / "result.json"
    url = f"http://127.0.0.1:{server.server_port}/v1"
    told = CliRunner().invoke(
        app, ["bench", "--url", url, "--requests", "13", "--concurrency", "3", "--json", str(file)]
    )
    assert told.exit_code == (1 if kind else 0), told.output
    result = json.loads(file.read_text())
    assert result["requests"] == server.asked == 13
    assert 1 <= server.most <= 3
    assert result["errors"] == ({kind: 13} if kind else {})
    assert (result["firstTokenMs"]["p50"] is None) == bool(kind)
    assert not server.open
    assert KEY not in told.output + file.read_text()


@given(st.lists(st.floats(0, 1e6), min_size=1), st.integers(1, 100))
def test_a_percentile_is_the_smallest_value_that_enough_do_not_exceed(
    values: list[float], percent: int
) -> None:
    found = percentile(values, percent)
    assert found in values
    assert sum(one <= found for one in values) * 100 >= percent * len(values)
    assert sum(one < found for one in values) * 100 < percent * len(values)
