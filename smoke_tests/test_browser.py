"""The browser's view: a web page at an allowed origin can read answers, a page at another origin cannot.

The other CORS tests compare headers. Here a browser applies its own rules to them.
"""

import json
import secrets
from collections.abc import Iterator, Sequence

import pytest

from smoke_tests import replies, sse
from smoke_tests.chat import Chat, least_spread, message
from smoke_tests.pages import Page, Pages, Seen, allowed_origin, bearer, refused_origin
from smoke_tests.target import Target
from smoke_tests.timing import Timing, attempt
from smoke_tests.untested import leave_out

# The edge adds X-Request-Id, by which these tests tell its answers from the browser's.
pytestmark = [pytest.mark.needs_browser, pytest.mark.needs_edge]

NO_HEADER = "No 'Access-Control-Allow-Origin' header is present on the requested resource"
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def page(pages: Pages, target: Target) -> Iterator[Page]:
    """Open a page at an origin that may call /v1."""
    with pages.at(allowed_origin(target.v1)) as page:
        yield page


@pytest.fixture
def other(pages: Pages, target: Target) -> Iterator[Page]:
    """Open a page at an origin that may not call /v1."""
    with pages.at(refused_origin(target.v1)) as page:
        yield page


def wrong_key() -> dict[str, str]:
    return bearer(f"app-{secrets.token_urlsafe(18)}")


def asks(query: str) -> str:
    return json.dumps(message(query, mode="streaming"))


def check_preflight(seen: Seen) -> None:
    """Check that the browser sent a preflight and that the edge answered it: only the edge sets X-Request-Id."""
    assert [one.status for one in seen.preflights] == [204], seen
    assert seen.preflights[0].request_id, seen


def check_nothing_read(seen: Seen) -> None:
    """Check that the page sees only that its call failed, and that CORS is the reason."""
    assert seen.error == "TypeError: Failed to fetch", seen
    assert (seen.status, dict(seen.headers), seen.text, seen.events) == (0, {}, "", ()), seen
    assert [line for line in seen.refusals if NO_HEADER in line], seen


@pytest.mark.needs_allowed_origin
def test_a_page_reads_a_401(page: Page, target: Target) -> None:
    seen = page.read("GET", target.v1.path)

    assert (seen.status, seen.kind) == (401, "cors"), seen
    assert json.loads(seen.text)["code"] == "unauthorized"
    # Headers beyond a handful are hidden from a page unless they are exposed.
    assert seen.headers.get("x-request-id"), seen
    assert not seen.preflights, "a simple GET needs no preflight"


@pytest.mark.needs_allowed_origin
def test_a_page_reads_a_401_after_a_preflight(page: Page, target: Target) -> None:
    seen = page.read("GET", target.v1.path, headers=wrong_key())

    check_preflight(seen)
    assert seen.status == 401, seen
    assert json.loads(seen.text)["code"] == "unauthorized"


@pytest.mark.needs_key
@pytest.mark.needs_allowed_origin
def test_a_page_gets_an_answer(page: Page, target: Target) -> None:
    assert target.key
    seen = page.read("GET", target.v1.path, headers=bearer(target.key))

    check_preflight(seen)
    assert seen.status == 200, seen
    assert "user_input_form" in json.loads(seen.text)


@pytest.mark.needs_key
@pytest.mark.needs_allowed_origin
def test_a_page_reads_a_stream(page: Page, chat: Chat, target: Target) -> None:
    assert target.key
    timing = Timing()
    while not timing.decided:
        seen = page.read(
            "POST",
            f"{chat.url}/v1/chat-messages",
            headers=bearer(target.key) | JSON,
            body=asks("smoke test"),
        )
        events = sse.read((at, piece.encode()) for at, piece in seen.pieces)
        remember(chat, events)
        assert seen.status == 200, seen
        assert seen.headers["content-type"].startswith("text/event-stream"), seen
        arrivals = [at for at, _ in seen.pieces]
        timing.attempts.append(attempt(arrivals, seen.stalls, needed=least_spread(events)))

    assert not timing.held_back, f"the page receives the stream in one piece: {timing}"
    if not timing.streamed:
        leave_out(f"this machine is too busy to time a stream in a page: {timing}")


@pytest.mark.needs_key
@pytest.mark.needs_allowed_origin
def test_a_page_reads_server_sent_events(page: Page, chat: Chat, target: Target) -> None:
    assert target.key
    seen = page.listen(
        "POST", f"{chat.url}/v1/chat-messages", headers=bearer(target.key) | JSON, body=asks("smoke test")
    )
    remember(chat, seen.events)

    assert seen.status == 200, seen
    check_preflight(seen)
    reply = replies.read(seen.events)
    assert reply.faults == (), seen
    assert reply.text.strip(), seen


def remember(chat: Chat, events: Sequence[sse.Event]) -> None:
    """Record the conversation, so that it is deleted after the test."""
    if conversation := replies.read(events).conversation:
        chat.open.add(conversation)


@pytest.mark.needs_allowed_origin
def test_a_page_cannot_send_cookies_along(page: Page, target: Target) -> None:
    # Cookies carry the console's session; /v1 accepts keys only.
    seen = page.read("GET", target.v1.path, credentials="include")

    assert seen.error == "TypeError: Failed to fetch", seen
    assert [line for line in seen.refusals if "'include'" in line], seen


@pytest.mark.needs_refused_origin
def test_another_origin_reads_no_answer(other: Page, target: Target) -> None:
    seen = other.once("GET", target.v1.path)

    check_nothing_read(seen)


@pytest.mark.needs_refused_origin
def test_another_origins_preflight_is_refused(other: Page, target: Target) -> None:
    seen = other.once("GET", target.v1.path, headers=wrong_key())

    check_nothing_read(seen)
    check_preflight(seen)
    assert seen.wire == tuple(seen.preflights), "the browser must not send the request itself"


@pytest.mark.needs_refused_origin
def test_another_origin_cannot_chat(other: Page, target: Target) -> None:
    seen = other.once(
        "POST", f"{target.service_url}/v1/chat-messages", headers=wrong_key() | JSON, body=asks("smoke test")
    )

    check_nothing_read(seen)
    check_preflight(seen)
    assert seen.wire == tuple(seen.preflights), "the browser must not send the request itself"


@pytest.mark.needs_refused_origin
def test_another_origin_in_no_cors_mode_reads_nothing(other: Page, target: Target) -> None:
    seen = other.once("GET", target.v1.path, mode="no-cors")

    assert (seen.error, seen.status, seen.kind) == ("", 0, "opaque"), seen
    assert (dict(seen.headers), seen.text) == ({}, ""), seen
