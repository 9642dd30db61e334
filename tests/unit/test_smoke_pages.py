"""Which origins the smoke tests open pages at."""

import pytest

from smoke_tests.cors import Policy, policy_of
from smoke_tests.pages import allowed_origin, cut_off, refused_origin

LOCAL = "http://localhost:8080"
PUBLIC = "https://dify.example.com"
APP = "https://app.example.com"
PLAIN_APP = "http://app.example.com"


def policy(*allowed: str, url: str = PUBLIC) -> Policy:
    return policy_of("v1", url=url, allowed=allowed, own=url)


@pytest.mark.parametrize(
    ("allowed", "url", "expected"),
    [
        pytest.param((), PUBLIC, "", id="none"),
        pytest.param((APP,), PUBLIC, APP, id="one"),
        pytest.param((APP, "https://b.example.com"), PUBLIC, APP, id="the-first"),
        pytest.param((PUBLIC,), PUBLIC, "", id="a-page-of-the-apis-own-origin-proves-nothing"),
        pytest.param((PUBLIC, APP), PUBLIC, APP, id="another-than-the-apis-own"),
        pytest.param((PLAIN_APP, APP), PUBLIC, APP, id="same-scheme-first"),
        pytest.param((APP, PLAIN_APP), LOCAL, PLAIN_APP, id="same-scheme-first-plain"),
        pytest.param((APP,), LOCAL, APP, id="another-scheme-when-there-is-no-choice"),
        pytest.param(("*",), PUBLIC, "https://unrelated.example", id="every-origin"),
        pytest.param(("*",), LOCAL, "http://unrelated.example", id="every-origin-plain"),
        pytest.param((APP, "*"), PUBLIC, APP, id="a-named-one-before-every-origin"),
    ],
)
def test_allowed_origin(allowed: tuple[str, ...], url: str, expected: str) -> None:
    assert allowed_origin(policy(*allowed, url=url)) == expected


@pytest.mark.parametrize(
    ("allowed", "url", "expected"),
    [
        pytest.param((), PUBLIC, "https://unrelated.example", id="none-allowed"),
        pytest.param((APP,), LOCAL, "http://unrelated.example", id="plain"),
        pytest.param(("*",), PUBLIC, "", id="every-origin-allowed"),
    ],
)
def test_refused_origin(allowed: tuple[str, ...], url: str, expected: str) -> None:
    assert refused_origin(policy(*allowed, url=url)) == expected


ABORTED = "net::ERR_NETWORK_CHANGED"
DENIED = (
    "Access to fetch at 'http://localhost:8080/v1/info' from origin 'https://a.example' has been blocked by CORS "
    "policy: Permission was denied for this request to access the `loopback` address space."
)
REFUSED = (
    "Access to fetch at 'x' from origin 'y' has been blocked by CORS policy: No 'Access-Control-Allow-Origin'"
)


@pytest.mark.parametrize(
    ("failed", "console", "permitted", "expected"),
    [
        pytest.param([ABORTED], [], True, True, id="network-changed"),
        pytest.param(
            [], [f"Failed to load resource: {ABORTED}"], False, True, id="network-changed-in-the-console"
        ),
        pytest.param(["net::ERR_FAILED"], [DENIED], True, True, id="denied-though-granted"),
        pytest.param(["net::ERR_FAILED"], [DENIED], False, False, id="denied-as-it-was-not-granted"),
        pytest.param(["net::ERR_FAILED"], [REFUSED], True, False, id="refused-by-cors"),
        pytest.param([], [], True, False, id="answered"),
    ],
)
def test_calls_to_repeat(failed: list[str], console: list[str], permitted: bool, expected: bool) -> None:
    assert cut_off(failed, console, permitted=permitted) is expected
