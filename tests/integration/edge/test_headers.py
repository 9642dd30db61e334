"""Which headers of a request reach the services: a corpus of claims through nginx, at every route group."""

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import product

import pytest

from infra.catalogue.request_headers import MORE, PASSED
from infra.catalogue.route_groups import group as group_of
from infra.catalogue.route_groups import limited_groups
from tests.integration.edge.container import Edge
from tests.integration.edge.test_bad_input import request

CLAIM = "claimed-by-a-client"
# Where services answer, by route group; the last two have callers that name their headers themselves.
PATHS = {
    "v1": "/v1/200",
    "api": "/api/200",
    "openapi": "/openapi/200",
    "console": "/console/api/200",
    "files": "/files/200",
    "mcp": "/mcp/server/200",
    "socket": "/socket.io/200",
    "explore": "/explore/200",
    "web": "/200",
    "triggers": "/triggers/webhook/200",
    "endpoints": "/e/hook/200",
}
OPEN = ("triggers", "endpoints")
# Seen in public: proxies, content networks, frameworks, and lists that testers work through.
_LISTED = """
CF-Connecting-IP CF-Connecting-IPv6 CF-Pseudo-IPv4 CF-IPCountry CF-Visitor CF-Worker True-Client-IP X-True-Client-IP
X-Client-IP Client-IP X-Cluster-Client-IP Cluster-Client-IP Fly-Client-IP Fastly-Client-IP X-Real-IP Real-IP
DO-Connecting-IP Incap-Client-IP Ali-CDN-Real-IP Cdn-Src-Ip Cdn-Real-Ip X-Azure-ClientIP X-Azure-SocketIP
X-Appengine-User-IP X-Appengine-Remote-Addr X-Envoy-External-Address X-Envoy-Original-Path X-Nf-Client-Connection-Ip
X-Vercel-Forwarded-For X-Sucuri-ClientIP WL-Proxy-Client-IP Proxy-Client-IP X-ProxyUser-Ip X-Originating-IP
X-Remote-IP X-Remote-Addr Remote-Addr X-Remote-Host X-Host X-Source-IP X-Forwarded X-Forwarded-By X-Forwarded-For
X-Forwarded-For-Original X-Forwarded-Host X-Forwarded-Server X-Forwarded-Port X-Forwarded-Proto X-Forwarded-Protocol
X-Forwarded-Scheme X-Forwarded-Ssl X-Forwarded-Prefix X-Forwarded-Path X-Forwarded-Uri X-Forwarded-Method
X-Forwarded-User X-Forwarded-Email X-Forwarded-Groups X-Forwarded-Preferred-Username X-Forwarded-Access-Token
X-Forwarded-Client-Cert X-Forwarded-Tls-Client-Cert X-Forwarded-Tls-Client-Cert-Info Forwarded Forwarded-For
Forwarded-Proto Via X-Scheme X-Url-Scheme Front-End-Https X-Https X-ARR-SSL X-ARR-ClientCert X-ARR-LOG-ID
X-Original-URL X-Original-URI X-Original-Host X-Original-Method X-Original-Path X-Original-Forwarded-For
X-Original-Remote-Addr X-Rewrite-URL X-Script-Name Script-Name Path-Info X-Http-Host-Override X-Host-Override
X-HTTP-Method-Override X-Method-Override X-Http-Destinationurl Destination Base-Url Request-Uri X-Request-Uri
Proxy Proxy-Host Proxy-Authorization Proxy-Connection Remote-User X-Remote-User X-Remote-Email X-Remote-Groups
Remote-Email Remote-Groups Remote-Name X-WebAuth-User X-Auth-User X-Auth-Email X-Auth-Username X-Auth-Request-User
X-Auth-Request-Email X-Auth-Request-Groups X-Auth-Request-Preferred-Username X-Auth-Request-Access-Token
X-Auth-Request-Redirect X-Auth-Sub X-Auth-Tenant X-Auth-Scopes X-Auth-Limits X-Auth-Upstream X-Authenticated-User
X-Authenticated-Userid X-Authentik-Username X-Authentik-Email X-Authentik-Groups X-Goog-Authenticated-User-Email
X-Goog-Authenticated-User-Id X-Goog-Iap-Jwt-Assertion Cf-Access-Authenticated-User-Email Cf-Access-Jwt-Assertion
X-Ms-Client-Principal X-Ms-Client-Principal-Name X-Ms-Client-Principal-Id X-Amzn-Oidc-Data X-Amzn-Oidc-Identity
X-Amzn-Oidc-Accesstoken Tailscale-User-Login Tailscale-User-Name Ssl-Client-Verify Ssl-Client-Cert X-SSL-Client-Cert
X-SSL-Client-S-Dn X-SSL-Client-Verify X-Client-Cert X-Client-Verify X-Gate-User X-Gate-Session X-Inner-Api-Key
X-Middleware-Subrequest X-Middleware-Prefetch Next-Url Dify-Hook-Url Dify-Hook-Id X-Accel-Redirect X-Sendfile-Type
"""
KNOWN = _LISTED.split()
WORDS = (
    ("", "X-"),
    (
        "Forwarded",
        "Original",
        "Real",
        "Client",
        "True-Client",
        "Remote",
        "Source",
        "Rewrite",
        "Proxy",
        "User",
        "Auth",
    ),
    (
        "For",
        "Host",
        "IP",
        "Addr",
        "Proto",
        "Scheme",
        "Port",
        "Prefix",
        "URL",
        "URI",
        "Path",
        "User",
        "Email",
        "Name",
    ),
)
MADE_UP = [f"{first}{second}-{third}" for first, second, third in product(*WORDS)]
AT_ONCE = 60


def batches(names: Sequence[str]) -> Iterator[list[str]]:
    """Yield names in numbers that fit into one request."""
    for start in range(0, len(names), AT_ONCE):
        yield list(names[start : start + AT_ONCE])


def spelled(names: Sequence[str]) -> list[str]:
    """Return names as they are, in other cases, and with underscores, which WSGI takes for dashes."""
    return [
        *names,
        *(name.lower() for name in names),
        *(name.replace("-", "_") for name in names if "-" in name),
    ]


def reached(edge: Edge, path: str, names: Sequence[str]) -> list[str]:
    """Return the names under which a client's claims reached the service, or an answer that is none of its."""
    found = []
    for some in batches(names):
        lines = [f"{name}: {CLAIM}.{number}".encode() for number, name in enumerate(some)]
        answer = edge.raw(request(path.encode(), *lines)).response
        if "x-from-upstream" not in answer.headers:
            return [f"{answer.status_code} {answer.text}"]
        found += [name for name, value in answer.json()["seen"] if CLAIM in value]
    return found


@pytest.fixture(scope="module")
def unlimited(start_edge: Callable[..., Edge]) -> Edge:
    """An edge that counts nothing, so that a corpus passes at once."""
    limits = {group: {"requests": 0, "concurrent": 0} for group in limited_groups()}
    return start_edge(plain={"rateLimits": limits, "requestHeaders": ["X-Session-Token"]})


@pytest.mark.parametrize("group", PATHS)
def test_no_known_claim_reaches_a_service(unlimited: Edge, group: str) -> None:
    assert reached(unlimited, PATHS[group], spelled(KNOWN)) == []


@pytest.mark.parametrize("group", [group for group in PATHS if group not in OPEN])
def test_no_made_up_claim_reaches_a_service(unlimited: Edge, group: str) -> None:
    assert (
        reached(unlimited, PATHS[group], [*MADE_UP, "X-Anything", "X-User-Id", "X-Account", "X-Tenant-Id"])
        == []
    )


@pytest.mark.parametrize("group", OPEN)
def test_senders_name_their_headers_as_they_like(unlimited: Edge, group: str) -> None:
    signatures = [
        "X-Hub-Signature-256",
        "X-GitHub-Event",
        "Stripe-Signature",
        "X-Gitlab-Token",
        "X-Api-Key",
        "X-Auth-Token",
    ]

    assert reached(unlimited, PATHS[group], signatures) == sorted(signatures)


@pytest.mark.parametrize("group", PATHS)
def test_what_services_read_passes_as_it_came(unlimited: Edge, group: str) -> None:
    headers = group_of(group).headers
    more = MORE[headers] if headers else ()
    special = {
        "Range": "bytes=0-",
        "Content-Type": "application/json",
        "Authorization": "Bearer app-x",
        "Cookie": "a=b; c=d",
        "Origin": unlimited.url,
    }
    names = (*PASSED, *more, "Authorization", "Cookie", "X-Session-Token")
    sent = {name: special.get(name, f"value-of-{name}") for name in names}
    lines = [f"{name}: {value}".encode() for name, value in sent.items()]
    host = f"Host: {unlimited.url.removeprefix('http://')}".encode()
    head = b"\r\n".join([b"POST " + PATHS[group].encode() + b" HTTP/1.1", host, b"Connection: close", *lines])

    answer = unlimited.raw(head + b"\r\nContent-Length: 2\r\n\r\n{}").response.json()

    received = {name.lower(): value for name, value in answer["seen"]}
    assert {name: received.get(name.lower()) for name in sent} == sent
    assert (received["content-length"], answer["length"]) == ("2", 2)


def test_chunks_pass_without_a_length(unlimited: Edge) -> None:
    sent = request(b"/v1/200", b"Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\n\r\n", method=b"POST")

    assert unlimited.raw(sent).response.json()["length"] == 5


def test_the_edge_writes_what_it_knows(unlimited: Edge) -> None:
    for path in PATHS.values():
        received = dict(unlimited.http.get(path, headers={"X-Forwarded-For": CLAIM}).json()["seen"])
        host = unlimited.url.removeprefix("http://")
        assert received["X-Real-IP"] == received["X-Forwarded-For"]
        assert (received["Host"], received["X-Forwarded-Host"], received["X-Forwarded-Proto"]) == (
            host,
            host,
            "http",
        )
        assert received["X-Request-Id"]


HOSTS = [
    "localhost:18400@evil.example",
    'localhost:"><script>',
    "localhost:8080/evil",
    "localhost:",
    "localhost:123456",
    "localhost:8080:8081",
    "localhost:-1",
    "localhost:80a",
    "localhost#evil.example",
    "localhost?evil.example",
    "localhost,evil.example",
    "localhost.evil.example:1@localhost",
    "[::1]evil.example",
    "[::1]:x",
    "localhost\\evil",
    "localhost;evil",
    "dify.test:443@x",
    "{{7*7}}localhost",
    "localhost%00",
]


@pytest.mark.parametrize("host", HOSTS)
def test_a_strange_host_is_refused(unlimited: Edge, host: str) -> None:
    answer = unlimited.raw(f"GET /v1/200 HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())

    # Closed without an answer, as unknown hosts are, or refused in JSON.
    assert b"x-from-upstream" not in answer.everything.lower()
    assert answer.status in {0, 400, 421}
    if answer.status:
        assert answer.response.json()["status"] == answer.status
        assert host.encode() not in answer.everything


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "[::1]:18400", "dify.test", "dify.test:443"]
)
def test_a_name_of_ours_is_served_with_any_port(unlimited: Edge, host: str) -> None:
    answer = unlimited.raw(f"GET /v1/200 HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())

    assert dict(answer.response.json()["seen"])["Host"] == host


def test_the_request_line_names_no_other_host(unlimited: Edge) -> None:
    def ask(line: str, *lines: str) -> str:
        text = "\r\n".join([line, *lines, "Connection: close", "", ""])
        answer = unlimited.raw(text.encode())
        return json.dumps(answer.response.json()) if answer.status == 200 else str(answer.status)

    assert ask("GET http://localhost/v1/200 HTTP/1.1", "Host: evil.example") == "421"
    assert ask("GET http://localhost/v1/200 HTTP/1.0") == "421"
    assert "evil" not in ask(
        "GET http://localhost/v1/200 HTTP/1.1", "Host: localhost", "X-Forwarded-Host: evil"
    )


def test_a_refusal_of_the_host_is_told_in_json(unlimited: Edge) -> None:
    answer = unlimited.raw(
        b'GET / HTTP/1.1\r\nHost: localhost:"><script>\r\nConnection: close\r\n\r\n'
    ).response

    assert answer.status_code == 421
    assert answer.json() == {
        "code": "misdirected_request",
        "message": "The host is none that this server answers for.",
        "status": 421,
    }
    assert answer.headers["x-request-id"]
    assert answer.headers.get_list("content-type") == ["application/json"]
