"""A browser's view of the edge: what a page may read of answers that a healthy stack does not give on demand."""

import json
import secrets
from collections.abc import Callable, Iterator

import pytest

from dify_kit.chromium import find_browser
from smoke_tests.client import Patience
from smoke_tests.cors import policy_of
from smoke_tests.masking import Redactor
from smoke_tests.pages import Page, Pages, bearer, browsing
from tests.integration.browser.guide import ask, guides_page
from tests.integration.edge.container import ALLOWED, Edge

pytestmark = pytest.mark.browser

UNRELATED = "http://unrelated.example"
KEY = bearer("app-of-this-test")
# The edge's limit of these tests is below 3 MB.
TOO_LARGE = 5 * 1024 * 1024
STREAM_SECONDS = 0.8
PIECE_SECONDS = STREAM_SECONDS / 16
ATTEMPTS = 8


@pytest.fixture(scope="module")
def pages(edge: Edge) -> Iterator[Pages]:
    """A running browser that opens pages against this edge."""
    policy = policy_of("v1", url=edge.url, allowed=(ALLOWED,), own=edge.url)
    with browsing(
        find_browser(), policy, redact=Redactor(), patience=Patience(seconds=0), verify=True
    ) as pages:
        yield pages


@pytest.fixture
def page(pages: Pages) -> Iterator[Page]:
    """A page at the allowed origin."""
    with pages.at(ALLOWED) as page:
        yield page


@pytest.fixture
def other(pages: Pages) -> Iterator[Page]:
    """A page at another."""
    with pages.at(UNRELATED) as page:
        yield page


# 429 with and without a preflight: the answer that a page has to understand, not just to get.
@pytest.mark.parametrize("status", [200, 401, 403, 404, 429, 500, 502, 503])
@pytest.mark.parametrize("headers", [pytest.param({}, id="plain"), pytest.param(KEY, id="preflighted")])
def test_a_page_reads_every_status_and_its_body(
    edge: Edge, page: Page, status: int, headers: dict[str, str]
) -> None:
    seen = page.once("GET", f"{edge.url}/v1/{status}", headers=headers)

    assert (seen.status, seen.kind) == (status, "cors"), seen
    assert json.loads(seen.text)["path"] == f"/v1/{status}"
    assert seen.headers["x-request-id"]
    assert len(seen.preflights) == bool(headers)


@pytest.fixture(scope="module")
def limited(start_edge: Callable[..., Edge]) -> Edge:
    """An edge where one credential may send two requests in a minute on /v1."""
    return start_edge(
        plain={"rateLimits": {"v1": {"requests": 2, "seconds": 60, "concurrent": 0, "addressRequests": 0}}}
    )


@pytest.mark.parametrize("how", ["read", "stream"])
def test_a_page_reads_the_edges_own_429(limited: Edge, page: Page, how: str) -> None:
    method, last = {"read": ("GET", "200"), "stream": ("POST", "stream")}[how]
    key = bearer(f"app-{secrets.token_urlsafe(18)}")

    seen = [page.once(method, f"{limited.url}/v1/{last}", headers=key) for _ in range(3)]

    assert [one.status for one in seen] == [200, 200, 429], seen
    refused = seen[-1]
    wait = int(refused.headers["retry-after"])
    assert json.loads(refused.text) == {"error": "rate_limit_exceeded", "retry_after": wait}
    assert 0 < wait <= 31
    assert refused.headers["x-request-id"]


def test_the_guides_page_says_how_long_to_wait(limited: Edge, pages: Pages) -> None:
    key = f"app-{secrets.token_urlsafe(18)}"
    spent = [limited.http.get("/v1/200", headers=bearer(key)) for _ in range(3)][-1]

    with pages.at(ALLOWED, guides_page(limited.url, key)) as page:
        ask(page, "hello", f"Try again in {spent.headers['retry-after']} seconds.")


def test_another_origin_does_not_read_it(limited: Edge, other: Page) -> None:
    key = bearer(f"app-{secrets.token_urlsafe(18)}")
    statuses = [limited.http.get("/v1/200", headers=key).status_code for _ in range(3)]

    seen = other.once("GET", f"{limited.url}/v1/200", headers=key)

    assert statuses == [200, 200, 429]
    assert seen.error == "TypeError: Failed to fetch", seen
    assert (seen.status, seen.headers, seen.text) == (0, {}, ""), seen


@pytest.mark.parametrize("status", [200, 401, 429, 500])
@pytest.mark.parametrize("headers", [pytest.param({}, id="plain"), pytest.param(KEY, id="preflighted")])
def test_another_origin_reads_none(edge: Edge, other: Page, status: int, headers: dict[str, str]) -> None:
    seen = other.once("GET", f"{edge.url}/v1/{status}", headers=headers)

    assert seen.error == "TypeError: Failed to fetch", seen
    assert (seen.status, seen.headers, seen.text) == (0, {}, ""), seen
    assert seen.refusals, seen


def test_a_page_reads_that_its_body_is_too_large(edge: Edge, page: Page) -> None:
    seen = page.once("POST", f"{edge.url}/v1/files/upload", headers=KEY, body="x" * TOO_LARGE)

    assert seen.status == 413, seen
    assert json.loads(seen.text)["status"] == 413


def test_a_page_reads_that_dify_is_away(edge: Edge, page: Page) -> None:
    edge.upstream.stop(timeout=0)
    try:
        seen = page.once("POST", f"{edge.url}/v1/chat-messages", headers=KEY)
    finally:
        edge.upstream.start()
        edge.wait()

    assert seen.status == 503, seen
    assert seen.headers["retry-after"] == "5"
    assert json.loads(seen.text)["status"] == 503


@pytest.mark.parametrize("how", ["read", "listen"])
def test_a_page_gets_the_pieces_of_a_stream_as_they_are_made(edge: Edge, page: Page, how: str) -> None:
    url, every = f"{edge.url}/v1/stream", []
    # A stream that is held back comes in one piece every time. A busy machine reads pieces together now and then.
    for _ in range(ATTEMPTS):
        seen = page.read("POST", url, headers=KEY) if how == "read" else page.listen("POST", url, headers=KEY)
        times = [at for at, _ in seen.pieces] or [event.at for event in seen.events]

        assert seen.status == 200, seen
        every.append(times)
        if (
            len(times) == 5
            and times[-1] - times[0] > STREAM_SECONDS / 2
            and times[1] > times[0] + PIECE_SECONDS
        ):
            return
    pytest.fail(f"the pieces of each of {ATTEMPTS} streams arrive together: {every}")
