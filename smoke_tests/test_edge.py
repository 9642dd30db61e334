"""What nginx does itself, before it proxies to Dify."""

import ssl

import httpx
import pytest

from smoke_tests.client import CONNECT_SECONDS, Client, is_loopback, made_up
from smoke_tests.closed import FORBIDDEN, SOCKETS, WEBSOCKET, schema_paths, schema_problem
from smoke_tests.cors import UNRELATED
from smoke_tests.target import Target

UNKNOWN_HOST = "unknown.invalid"
# A proxy in front of the environment may refuse an unknown host with another status.
REFUSED_BY_A_PROXY = {400, 403, 404, 421}


@pytest.mark.needs_edge
def test_an_unknown_host_gets_no_answer(target: Target, visitor: Client, trust: ssl.SSLContext) -> None:
    url, expected = target.probe
    assert visitor.ask("GET", url).status == expected
    local = is_loopback(url)
    with httpx.Client(timeout=CONNECT_SECONDS, trust_env=not target.direct, verify=trust) as client:
        try:
            status = client.get(url, headers={"Host": UNKNOWN_HOST}).status_code
        except httpx.RemoteProtocolError:
            status = None

    # On this machine there is no proxy in between.
    if local:
        assert status is None, (
            f"status {status} for the unknown host {UNKNOWN_HOST}: a closed connection expected"
        )
    assert status is None or status in REFUSED_BY_A_PROXY


@pytest.mark.needs_edge
@pytest.mark.parametrize("path", ["/console/api/setup", "/v1/parameters", "/v1/smoke-test"])
def test_every_answer_has_a_request_id(target: Target, visitor: Client, path: str) -> None:
    base = target.service_url if path.startswith("/v1") else target.console_url
    first, second = (visitor.once("GET", base + path).header("x-request-id") for _ in range(2))

    assert first
    assert second
    assert first != second


def test_an_unknown_route_gets_difys_own_404(target: Target, visitor: Client) -> None:
    answer = visitor.ask("GET", f"{target.service_url}/v1/smoke-test")

    assert answer.status == 404
    # Dify sends its version with every answer; nginx does not.
    assert answer.header("x-version")
    assert (answer.header("content-type") or "").startswith("text/html")
    assert "404 Not Found" in answer.text


@pytest.mark.needs_edge
def test_a_body_over_the_limit_is_refused_in_json(target: Target, visitor: Client) -> None:
    answer = visitor.announce(f"{target.service_url}/v1/files/upload", size=target.too_large)

    assert answer.status == 413
    assert answer.header("content-type") == "application/json"
    assert answer.header("x-request-id")
    error = answer.json()
    assert error["status"] == 413
    assert error["code"]
    assert error["message"]


@pytest.mark.needs_stack
def test_the_server_hides_its_version(target: Target, visitor: Client) -> None:
    servers = visitor.once("GET", f"{target.console_url}/console/api/setup").values("server")

    assert not [value for value in servers if any(one.isdigit() for one in value)]


@pytest.mark.needs_edge
@pytest.mark.needs_closed_schema
def test_no_schema_of_the_api_is_served(target: Target, visitor: Client) -> None:
    paths = schema_paths(target.schemas)
    # Each with a credential of its own, so that the limit of an address counts none of them.
    found = [
        schema_problem(visitor.ask("GET", f"{target.url}{path}", headers=made_up()), path) for path in paths
    ]

    assert not [problem for problem in found if problem]


@pytest.mark.needs_edge
@pytest.mark.needs_sockets
@pytest.mark.parametrize("origin", [UNRELATED, "null"])
@pytest.mark.parametrize(("transport", "headers"), [("polling", {}), ("websocket", WEBSOCKET)])
def test_other_origins_cannot_open_console_sockets(
    target: Target, visitor: Client, origin: str, transport: str, headers: dict[str, str]
) -> None:
    url = f"{target.console_url}{SOCKETS}{transport}"
    answer = visitor.ask("GET", url, headers={**headers, "Origin": origin})

    # Without a stack it is unknown whether there are sockets: then 404 is accepted too.
    assert answer.status in ({FORBIDDEN} if target.has_sockets else {FORBIDDEN, 400, 404}), repr(answer)


@pytest.mark.needs_sockets
@pytest.mark.usefixtures("_console")
def test_the_console_can_open_its_sockets(target: Target, visitor: Client) -> None:
    headers = {"Origin": target.console_url}
    answer = visitor.ask("GET", f"{target.console_url}{SOCKETS}polling", headers=headers)

    assert answer.status != FORBIDDEN, repr(answer)
