"""Behind another proxy: whom the edge believes, and who may reach the console."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.integration.edge.container import ALLOWED, Edge

# Every address that Docker gives a network: this machine's requests come from its gateway.
NETWORKS = ["172.16.0.0/12", "192.168.0.0/16", "10.0.0.0/8"]
OFFICE = "203.0.113.0/24"
INSIDE, OUTSIDE = "203.0.113.9", "198.51.100.7"


@pytest.fixture(scope="module")
def behind(start_edge: Callable[..., Edge]) -> Edge:
    """An edge behind a proxy on this machine; its console is for an office."""
    return start_edge(
        plain={
            "trustedProxies": NETWORKS,
            "consoleAllowFrom": [OFFICE, "2001:db8::/32"],
            "publicUrl": "https://dify.example.com",
            "serverNames": ["localhost"],
            "rateLimits": {
                group: {"requests": 5, "seconds": 60, "addressRequests": 5, "addressSeconds": 60}
                for group in ("v1",)
            },
        }
    )


@pytest.fixture(scope="module")
def closed(start_edge: Callable[..., Edge]) -> Edge:
    """An edge without trusted proxies, whose console is restricted to addresses that no test has."""
    return start_edge(plain={"consoleAllowFrom": [OFFICE]})


def seen(answer: httpx.Response) -> dict[str, Any]:
    """Return the headers that upstream saw."""
    return dict(answer.json()["seen"])


def test_trusted_proxy_tells_who_the_client_is(behind: Edge) -> None:
    answer = behind.http.get(
        "/files/200",
        headers={
            "X-Forwarded-For": f"192.0.2.1, {OUTSIDE}, 10.9.9.9",
            "X-Forwarded-Proto": "http",
            "X-Forwarded-Port": "8081",
        },
    )

    received = seen(answer)
    # The nearest that is no trusted proxy; what stands before it is that client's own claim.
    assert (received["X-Real-IP"], received["X-Forwarded-For"]) == (OUTSIDE, OUTSIDE)
    assert (received["X-Forwarded-Proto"], received["X-Forwarded-Port"]) == ("http", "8081")
    entry = json.loads(behind.logged(answer.headers["x-request-id"]))
    assert entry["client"] == OUTSIDE
    assert entry["peer"].startswith(("172.", "192.168.", "10."))


def test_what_a_trusted_proxy_does_not_tell_is_as_configured(behind: Edge) -> None:
    received = seen(behind.http.get("/files/200", headers={"X-Forwarded-Proto": "gopher"}))

    assert (received["X-Forwarded-Proto"], received["X-Forwarded-Port"]) == ("https", "443")


def test_nobody_else_is_believed(edge: Edge) -> None:
    answer = edge.http.get(
        "/files/200",
        headers={
            "X-Forwarded-For": INSIDE,
            "X-Forwarded-Proto": "https",
            "X-Forwarded-Port": "444",
            "X-Real-IP": INSIDE,
        },
    )

    received = seen(answer)
    assert INSIDE not in json.dumps(received)
    assert (received["X-Forwarded-Proto"], received["X-Forwarded-Port"]) == ("http", "8080")


@pytest.mark.parametrize(
    ("first", "second", "third"),
    [
        (OUTSIDE, OUTSIDE, "198.51.100.8"),
        # A customer has 64 bits of addresses: they are one.
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", "2001:db8:1:3::1"),
        ("::ffff:198.51.100.20", "198.51.100.20", "::ffff:198.51.100.21"),
    ],
)
def test_addresses_are_counted_one_by_one(behind: Edge, first: str, second: str, third: str) -> None:
    def ask(address: str, count: int) -> list[int]:
        headers = {"X-Forwarded-For": address}
        return [behind.http.get("/v1/200", headers=headers).status_code for _ in range(count)]

    assert ask(first, 5) == [200] * 5
    assert ask(second, 2) == [429] * 2
    assert ask(third, 1) == [200]


CONSOLE_PATHS = [
    "/console/api",
    "/console/api/setup",
    "/console/api/login",
    "/console/api/oauth/login/github",
    "/console/api/apps/200",
    "/install",
    "/signin",
    "/apps",
    "/explore/apps",
    "/socket.io/?EIO=4",
]


@pytest.mark.parametrize("path", CONSOLE_PATHS)
def test_console_is_for_the_office(behind: Edge, path: str) -> None:
    def ask(address: str) -> httpx.Response:
        return behind.http.get(path, headers={"X-Forwarded-For": address, "Origin": ALLOWED})

    refused = ask(OUTSIDE)

    assert [ask(address).status_code for address in (INSIDE, "2001:db8::1")] == [200, 200]
    assert refused.status_code == 403
    assert refused.json() == {"code": "forbidden", "message": "Access is not allowed.", "status": 403}
    assert refused.headers["x-request-id"]
    if path.startswith("/console/"):
        assert refused.headers["access-control-allow-origin"] == ALLOWED


@pytest.mark.parametrize("path", ["/v1/200", "/api/200", "/files/200", "/mcp/200", "/e/200", "/", "/chat/x"])
def test_everything_else_is_open(behind: Edge, path: str) -> None:
    headers = {"X-Forwarded-For": "192.0.2.77"}

    assert behind.http.get(path, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "claim", ["X-Forwarded-For", "X-Real-IP", "Forwarded", "X-Client-IP", "CF-Connecting-IP"]
)
def test_claiming_an_address_opens_nothing(closed: Edge, claim: str) -> None:
    assert closed.http.get("/console/api/setup", headers={claim: INSIDE}).status_code == 403
