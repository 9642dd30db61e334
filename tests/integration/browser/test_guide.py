"""docs/guides/browser.md, in a browser against the main stack: its page as it stands, and its table of messages."""

import re
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Request

from smoke_tests.pages import Page, Pages, Seen, bearer
from support.stacks import Stack
from tests.integration.browser.conftest import APP
from tests.integration.browser.guide import GUIDE, ask, guides_page

pytestmark = pytest.mark.browser

UNRELATED = "http://unrelated.example"
Call = Callable[[Page, str], Seen]


@pytest.fixture(scope="module")
def key(stack: Stack) -> str:
    """An app's key."""
    return str(stack.outputs(secrets_too=True)["appKeys"]["echo-chat"])


def test_the_guides_page_chats(stack: Stack, pages: Pages, key: str) -> None:
    first, second = (f"guide {secrets.token_hex(4)}" for _ in range(2))
    bodies: list[Any] = []

    def note(sent: Request) -> None:
        if sent.method == "POST":
            bodies.append(sent.post_data_json)

    with pages.at(APP, guides_page(stack.url, key)) as page:
        page.tab.on("request", note)
        ask(page, first, first)
        ask(page, second, second)

    assert list(dict.fromkeys(body["query"] for body in bodies)) == [first, second]
    assert "conversation_id" not in bodies[0]
    assert bodies[-1]["conversation_id"], "the second question belongs to the conversation of the first"


def test_the_guides_page_shows_what_is_wrong_with_a_key(stack: Stack, pages: Pages) -> None:
    with pages.at(APP, guides_page(stack.url, "app-of-nobody")) as page:
        ask(page, "hello", "401: ")
        shown = page.tab.text_content("output") or ""

    assert "Access token is invalid" in shown
    assert re.search(r"\(request [0-9a-f]{32}\)$", shown), shown


def test_the_guides_page_tells_a_refused_visitor_nothing(stack: Stack, pages: Pages, key: str) -> None:
    with pages.at(UNRELATED, guides_page(stack.url, key)) as page:
        ask(page, "hello", "Failed to fetch")


# What provokes a message of the table: whose page, whether a person permitted private addresses, the call.
PROVOKED: dict[str, tuple[str, bool, Call]] = {
    "No 'Access-Control-Allow-Origin' header is present on the requested resource": (
        UNRELATED,
        True,
        lambda page, url: page.once("GET", url),
    ),
    "Response to preflight request doesn't pass access control check": (
        UNRELATED,
        True,
        lambda page, url: page.once("GET", url, headers=bearer("app-of-nobody")),
    ),
    "is not allowed by Access-Control-Allow-Headers in preflight response": (
        APP,
        True,
        lambda page, url: page.once("GET", url, headers={"X-Anything": "1"}),
    ),
    "must be 'true' when the request's credentials mode is 'include'": (
        APP,
        True,
        lambda page, url: page.once("GET", url, credentials="include"),
    ),
    "Permission was denied for this request to access the": (
        APP,
        False,
        lambda page, url: page.once("GET", url),
    ),
    "The request client is not a secure context": (
        "http://intranet.example",
        False,
        lambda page, url: page.once("GET", url),
    ),
    "Mixed Content": (
        APP,
        True,
        lambda page, _: page.once("GET", "http://dify.example/v1/parameters"),
    ),
    "Failed to load resource: net::ERR_NAME_NOT_RESOLVED": (
        APP,
        True,
        lambda page, _: page.once("GET", "https://dify.example/v1/parameters"),
    ),
    "the server responded with a status of 401": (
        APP,
        True,
        lambda page, url: page.once("GET", url),
    ),
}
# The edge never sends these; tests/integration/browser/test_defects.py has a server that does.
NOT_OURS = {"contains multiple values"}


def test_the_guide_names_methods() -> None:
    assert {"GET", "POST", "DELETE"} <= set(methods_of_the_guide())


def test_the_table_of_messages_is_provoked() -> None:
    table = GUIDE.partition("| the console says |")[2].partition("\n\n")[0]

    assert set(re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)) == {*PROVOKED, *NOT_OURS}


@pytest.mark.parametrize("message", PROVOKED)
def test_the_console_says_so(stack: Stack, pages: Pages, message: str) -> None:
    origin, permitted, call = PROVOKED[message]
    with pages.at(origin, permitted=permitted) as page:
        seen = call(page, f"{stack.url}/v1/parameters")

    assert [line for line in seen.console if message in line], seen


@pytest.fixture
def page(pages: Pages) -> Iterator[Page]:
    """A page at the allowed origin."""
    with pages.at(APP) as page:
        yield page


def test_a_page_reads_the_headers_that_the_guide_names(stack: Stack, page: Page, key: str) -> None:
    named = re.search(r"- Headers of an answer: (.*?)The browser hides", GUIDE, re.DOTALL)
    assert named
    wanted = {name.lower() for name in re.findall(r"`([\w-]+)`", named.group(1))}

    seen = page.read("GET", f"{stack.url}/v1/parameters", headers=bearer(key))

    assert wanted == {"retry-after", "x-request-id", "x-version", "x-env", "x-trace-id"}
    assert seen.status == 200, seen
    # What an answer has, of what is exposed; anything else is among those that browsers never hide.
    assert {"x-request-id", "x-version", "x-env"} <= set(seen.headers)
    assert set(seen.headers) <= wanted | {"content-length", "content-type", "cache-control"}


def methods_of_the_guide() -> list[str]:
    """Return the methods that the guide says a page may use."""
    named = re.search(r"^- Methods: (.*)\.$", GUIDE, re.MULTILINE)
    assert named
    return re.findall(r"[A-Z]+", named.group(1))


@pytest.mark.parametrize("method", methods_of_the_guide())
def test_a_page_may_use_the_methods_that_the_guide_names(stack: Stack, page: Page, method: str) -> None:
    seen = page.read(method, f"{stack.url}/v1/parameters", headers=bearer("app-of-nobody"))

    # Dify has no such route for most of them; what counts is that the page gets its answer.
    assert seen.status in {401, 405}, seen
