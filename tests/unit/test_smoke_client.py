"""The smoke tests' HTTP client: deadlines, rate limits, and messages that say what came."""

import email.utils
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

import pytest

from smoke_tests import client as module
from smoke_tests.client import Answer, Client, Patience, VisitError, is_loopback, retry_after
from smoke_tests.masking import Redactor, Secret
from support.serving import served


@contextmanager
def answering(*answers: bytes, pause: float = 0.0, hold: float = 0.0) -> Iterator[tuple[str, list[str]]]:
    """Serve raw answers, one after the other, the last one for ever; yields the address and what was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            answer = answers[min(len(asked), len(answers)) - 1]
            time.sleep(hold)
            for place in range(0, len(answer), 64):
                self.wfile.write(answer[place : place + 64])
                time.sleep(pause)

        def log_message(self, *_: object) -> None:
            pass

    with served(Handler) as url:
        yield url, asked


def answer(status: int, *headers: str, body: bytes = b"{}") -> bytes:
    head = [f"HTTP/1.1 {status} X", "Connection: close", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(head).encode() + body


@pytest.fixture
def patience() -> Patience:
    return Patience(seconds=3)


@pytest.fixture
def client(patience: Patience) -> Iterator[Client]:
    made = Client(
        key=Secret("app-of-this-test"), redact=Redactor(), patience=patience, direct=True, verify=True
    )
    yield made
    made.close()


def test_a_429_is_waited_out_as_long_as_it_asks(client: Client, patience: Patience) -> None:
    with answering(answer(429, "Retry-After: 1"), answer(429, "Retry-After: 0"), answer(200)) as (url, asked):
        started = time.monotonic()
        found = client.ask("GET", url)

    assert found.status == 200
    assert len(asked) == 3
    assert time.monotonic() - started >= 1.0
    assert patience.waited >= 1.0


def test_patience_ends(client: Client) -> None:
    with (
        answering(answer(429, "Retry-After: 2")) as (url, asked),
        pytest.raises(
            VisitError, match=r"limits .* are exhausted.*429.*requires another 2 s after 2 s.*--patience"
        ),
    ):
        client.ask("GET", url)

    assert len(asked) == 2


def test_a_wait_longer_than_patience_is_not_begun(client: Client) -> None:
    with answering(answer(429, "Retry-After: 3600")) as (url, asked):
        started = time.monotonic()
        with pytest.raises(VisitError, match="requires another 3600 s"):
            client.ask("GET", url)

    assert len(asked) == 1
    assert time.monotonic() - started < 2


def test_once_takes_a_429_as_an_answer(client: Client) -> None:
    with answering(answer(429, "Retry-After: 3600")) as (url, asked):
        assert client.once("GET", url).status == 429

    assert len(asked) == 1


def test_a_503_is_not_tried_again(client: Client) -> None:
    with answering(answer(503, "Retry-After: 0"), answer(200)) as (url, asked):
        assert client.ask("GET", url).status == 503

    assert len(asked) == 1


def test_an_answer_that_trickles_has_an_end(client: Client) -> None:
    with (
        answering(answer(200, body=b"x" * 20000), pause=0.05) as (url, _),
        pytest.raises(VisitError, match=r"did not end within 0 s; received \d+ bytes, the last 'x+'"),
    ):
        client.once("GET", url, seconds=0.3)


def test_silence_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "READ_SECONDS", 0.2)
    quick = Client(key=None, redact=Redactor(), patience=Patience(seconds=0), direct=True, verify=True)
    with answering(answer(200), hold=1.0) as (url, _), pytest.raises(VisitError, match="ReadTimeout"):
        quick.once("GET", url)
    quick.close()


def test_an_endless_answer_is_cut(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST_ANSWER", 1000)
    with (
        answering(answer(200, body=b"x" * 5000)) as (url, _),
        pytest.raises(VisitError, match="exceeds 1000 bytes"),
    ):
        client.once("GET", url)


def test_a_closed_connection_is_explained(client: Client) -> None:
    with answering(b"") as (url, _), pytest.raises(VisitError, match=rf"GET {url}: RemoteProtocolError"):
        client.once("GET", url)


def test_a_redirect_is_an_answer(client: Client) -> None:
    with answering(answer(302, "Location: https://elsewhere.example/")) as (url, asked):
        found = client.ask("GET", url)

    assert (found.status, found.header("location"), len(asked)) == (302, "https://elsewhere.example/", 1)


def test_doubled_headers_are_seen(client: Client) -> None:
    with answering(answer(200, "Vary: Origin", "Vary: Cookie")) as (url, _):
        found = client.ask("GET", url)

    assert found.values("Vary") == ["Origin", "Cookie"]
    with pytest.raises(VisitError, match="vary occurs 2 times"):
        found.header("vary")


def test_a_body_that_is_no_json_is_shown(client: Client) -> None:
    with answering(answer(200, body=b"<html>")) as (url, _):
        found = client.ask("GET", url)

    with pytest.raises(VisitError, match=r"the body is not JSON: .*<html>"):
        found.json()


def test_without_a_key_none_is_sent() -> None:
    keyless = Client(key=None, redact=Redactor(), patience=Patience(seconds=0), direct=True, verify=True)
    with pytest.raises(VisitError, match="no app key"):
        keyless.once("GET", "http://127.0.0.1:1/", key=True)
    keyless.close()


@pytest.mark.parametrize(("value", "seconds"), [("12", 12), ("0", 0), ("soon", 1), ("", 1)])
def test_retry_after(value: str, seconds: float) -> None:
    assert retry_after(limited(value)) == seconds


@pytest.mark.parametrize(("ahead", "least", "most"), [(30, 25, 30), (-30, 0, 0)])
def test_retry_after_a_date(ahead: float, least: float, most: float) -> None:
    date = email.utils.formatdate(time.time() + ahead, usegmt=True)

    assert least <= retry_after(limited(date)) <= most


def limited(value: str) -> Answer:
    return Answer(asked="", status=429, headers=(("retry-after", value),), text="", seconds=0)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://localhost:8080", True),
        ("http://127.0.0.1", True),
        ("http://[::1]:8080", True),
        ("https://dify.example.com", False),
        ("http://localhost.evil.example", False),
        ("http://192.168.1.5", False),
    ],
)
def test_loopback(url: str, *, expected: bool) -> None:
    assert is_loopback(url) == expected
