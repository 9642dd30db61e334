"""The measurement of how long the api of a stack does not answer."""

import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from dify_kit.checks.published import Published
from dify_kit.upgrade import away
from dify_kit.upgrade.away import Away
from support.certificates import issue
from support.ports import free_port
from support.serving import served


class Edge(BaseHTTPRequestHandler):
    """Answers with a status, and notes what was sent."""

    status = 401
    seen: tuple[str, str, str] = ("", "", "")

    def do_GET(self) -> None:
        type(self).seen = (self.path, self.headers["Host"], self.headers["Authorization"])
        self.send_response(self.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def published(port: int) -> Published:
    return Published(address="127.0.0.1", port=port, host="dify.example.com")


@pytest.mark.parametrize(
    ("status", "answers"), [(200, True), (401, True), (429, True), (502, False), (503, False)]
)
def test_an_answer_of_dify_counts_and_one_of_the_edge_in_its_place_does_not(
    status: int, answers: bool
) -> None:
    class Handler(Edge):
        pass

    Handler.status = status
    with served(Handler) as url:
        port = int(url.rpartition(":")[2])
        found = away._answers(published(port), port, encrypted=False)

    assert found is answers
    path, host, key = Handler.seen
    assert (path, host) == ("/v1/info", f"dify.example.com:{port}")
    assert key.startswith("Bearer app-")


def test_a_port_without_a_server_is_no_answer() -> None:
    port = free_port()

    assert not away._answers(published(port), port, encrypted=False)


@contextmanager
def served_by_tls(folder: Path) -> Iterator[int]:
    """Serve with a certificate of no known issuer; yield the port."""
    pair = issue(["dify.example.com"])
    (folder / "chain.pem").write_text(pair.pem)
    (folder / "key.pem").write_text(pair.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "chain.pem", folder / "key.pem")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Edge)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_certificate_of_no_known_issuer_is_an_answer_too(tmp_path: Path) -> None:
    with served_by_tls(tmp_path) as port:
        assert away._answers(published(80), port, encrypted=True)


def test_the_time_without_an_answer_is_counted_and_none_of_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    # One answer a second of a clock that moves with the requests.
    answers = iter([True, True, False, False, False, True, True, False, True])
    asked = threading.Event()

    def clock() -> float:
        return now

    def ask() -> bool:
        nonlocal now
        now += 1.0
        try:
            return next(answers)
        except StopIteration:
            asked.set()
            return True

    monkeypatch.setattr(away, "PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(away, "time", SimpleNamespace(monotonic=clock))
    measured = Away(ask)
    with measured:
        assert asked.wait(60)

    assert measured.seconds == 4.0


def test_what_cannot_be_reached_is_not_measured() -> None:
    measured = Away(None)
    with measured:
        pass

    assert measured.seconds == 0.0


def test_the_measurement_ends_with_its_block() -> None:
    measured = Away(lambda: True)
    with measured:
        time.sleep(0)

    assert not measured._thread.is_alive()
