"""Bad input: no error of nginx's own making, no way past a limit, no way past an access rule."""

import json
import secrets
import socket
from collections.abc import Callable
from contextlib import ExitStack
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.integration.edge.container import Edge, Raw

# The console is restricted to other addresses; a credential or an address may send five requests a minute on /v1.
PLAIN = {
    "consoleAllowFrom": ["203.0.113.0/24"],
    "rateLimits": {
        "v1": {"requests": 5, "seconds": 60, "addressRequests": 0, "addressConcurrent": 0},
        "login": {"requests": 5, "seconds": 60},
    },
}
SILENCE_SECONDS = 1.0
# Said about the client's own request: a method or a coding, a version.
CLIENTS_FAULT = {501, 505}
BOUNDED = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def strict(start_edge: Callable[..., Edge]) -> Edge:
    """An edge with narrow limits and a closed console."""
    return start_edge(plain=PLAIN)


def own_failures(answer: Raw) -> list[int]:
    """Return the statuses of 500 and above that nginx made by itself."""
    if b"x-from-upstream" in answer.everything.lower():
        return []
    return [status for status in answer.statuses if status >= 500 and status not in CLIENTS_FAULT]


def request(path: bytes, *lines: bytes, body: bytes = b"", method: bytes = b"GET") -> bytes:
    """Return a request, with whatever lines."""
    head = [method + b" " + path + b" HTTP/1.1", b"Host: localhost", b"Connection: close", *lines]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


METHODS = st.sampled_from(
    [b"GET", b"POST", b"OPTIONS", b"TRACE", b"CONNECT", b"HEAD", b"get", b"G\xe9T", b"X" * 300]
)
PIECES = st.sampled_from(
    [
        b"/v1",
        b"/console/api",
        b"/files",
        b"/",
        b"//",
        b"..",
        b".",
        b"%2e%2e",
        b"%2f",
        b"%00",
        b"%",
        b"%zz",
        b"?",
        b"#",
        b";",
        b"\\",
        b"\xff\xfe",
        b"\xc3(",
        b"*",
        b"http://localhost/",
        b"a" * 9000,
        b"~",
        b"%c0%ae",
        b" ",
    ]
)
TARGETS = st.lists(PIECES, max_size=6).map(b"".join)
VERSIONS = st.sampled_from(
    [b"HTTP/1.1"] * 6 + [b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/9.9", b"HTTX/1.1", b""]
)
LINES = st.sampled_from(
    [b"Host: localhost"] * 6
    + [b"Host: ", b"Host: a b", b"Host: localhost:x", b"Host: \xff", b"Host: unknown.test"]
    + [b"Content-Length: %s" % v for v in (b"0", b"5", b"+5", b"-1", b"5, 5", b"0x5", b"9" * 25, b"5 5", b"")]
    + [
        b"Transfer-Encoding: %s" % v
        for v in (b"chunked", b"identity", b"chunked, gzip", b"xchunked", b"\x0bchunked")
    ]
    + [b"Transfer-Encoding : chunked", b"Transfer_Encoding: chunked", b" folded", b"no colon", b": no name"]
    + [
        b"X-Nul: a\x00b",
        b"X-Bad: \xff\xfe\xc3\x28",
        b"X-Large: " + b"x" * 20_000,
        b"X-Larger: " + b"x" * 80_000,
    ]
    + [b"Expect: 100-continue", b"Expect: something", b"Upgrade: h2c", b"Range: bytes=0-,0-,0-"]
    + [
        b"Authorization: Bearer " + b"a" * 30,
        b"Cookie: " + b"a=b; " * 2000,
        b"Connection: close",
        b"TE: trailers",
    ]
    + [
        b"Origin: \xff",
        b"Access-Control-Request-Method: \xff",
        b"X-Forwarded-For: 1, 2, \xff",
        b"If-Match: \xff",
    ]
)
BODIES = st.sampled_from(
    [
        b"",
        b"hello",
        b"5\r\nhello\r\n0\r\n\r\n",
        b"zz\r\nhello\r\n",
        b"ffffffffffffffffff\r\nx",
        b"5\r\nhel",
        b"5;a=b\r\nhello\r\n0\r\nTrailer: x\r\n\r\n",
        b"0\r\n\r\nGET /console/api/setup HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"-5\r\nhello\r\n",
        b"\x00" * 100,
        b"5\nhello\n0\n\n",
    ]
)


REQUESTS = st.builds(
    lambda method, target, version, lines, body: (
        b"\r\n".join([method + b" " + target + b" " + version, *lines]) + b"\r\n\r\n" + body
    ),
    METHODS,
    TARGETS,
    VERSIONS,
    st.lists(LINES, max_size=6),
    BODIES,
)


@BOUNDED
@given(REQUESTS)
def test_nothing_makes_nginx_fail(strict: Edge, sent: bytes) -> None:
    answer = strict.raw(sent, seconds=SILENCE_SECONDS)

    assert own_failures(answer) == [], answer.everything[:300]
    # No console behind any of it, in a second request of the same connection either.
    assert not [path for path in paths_seen(answer) if is_console(path)]


def paths_seen(answer: Raw) -> list[str]:
    """Return the paths that upstream saw, as it received them."""
    lines = answer.everything.split(b"\r\n")
    return [
        json.loads(line[: line.rindex(b"}") + 1])["path"] for line in lines if line.startswith(b'{"method"')
    ]


def is_console(path: str) -> bool:
    """Tell whether a server of Dify could take a path for the console's: decoded once, dots and slashes merged."""
    decoded = unquote(urlsplit(path if not path.startswith("//") else f".{path}").path).removeprefix(".")
    kept: list[str] = []
    for part in decoded.split("/"):
        if part == "..":
            kept = kept[:-1]
        elif part not in {"", "."}:
            kept.append(part)
    merged = [part for part in decoded.split("/") if part]
    return kept[:2] == ["console", "api"] or merged[:2] == ["console", "api"]


TRICKS = [
    b"//console/api/setup",
    b"///console///api///setup",
    b"/console//api/setup",
    b"/./console/api/setup",
    b"/v1/../console/api/setup",
    b"/v1/%2e%2e/console/api/setup",
    b"/v1/.%2E/console/api/setup",
    b"/v1%2f..%2fconsole%2fapi%2fsetup",
    b"/%63onsole/api/setup",
    b"/console/%61pi/setup",
    b"/console%2fapi%2fsetup",
    b"/console/api/",
    b"/console/api",
    b"/console/api?x=/v1",
    b"/console/api#/v1",
    b"/console/api/setup/../../../v1/200",
    b"/console/api/workspaces/current/model-providers/x/../../../../../../v1/models",
    b"http://localhost/console/api/setup",
    b"http://localhost//console/api/setup",
    b"/console/api;x/setup",
    b"/console/./api/setup",
    b"/x/..//console/api/setup",
]


@pytest.mark.parametrize("path", TRICKS)
def test_no_way_of_writing_a_path_reaches_the_console(strict: Edge, path: bytes) -> None:
    answer = strict.raw(request(path))

    assert answer.status in {403, 404} or paths_seen(answer)
    assert not [one for one in paths_seen(answer) if is_console(one)]


@pytest.mark.parametrize("path", [b"/CONSOLE/api/setup", b"/Console/API/setup", b"/console/API/setup"])
def test_another_case_is_another_path(strict: Edge, path: bytes) -> None:
    # Dify tells cases apart as well: its web frontend has no such page.
    assert strict.raw(request(path)).response.json()["path"] == path.decode()


SEGMENTS = st.sampled_from(
    [
        "console",
        "api",
        "v1",
        "setup",
        "..",
        ".",
        "",
        "%2e",
        "%2E%2e",
        "%2f",
        "%63onsole",
        "%61pi",
        "console%2fapi",
        "%252e%252e",
        "..;",
        "#",
        "?",
        "\\",
        "%5c",
        "console/api",
        "CONSOLE",
        "console%00",
        "é",
        "..%2f",
    ]
)


@BOUNDED
@given(st.lists(SEGMENTS, min_size=1, max_size=8))
def test_made_up_paths_do_not_reach_the_console(strict: Edge, segments: list[str]) -> None:
    answer = strict.raw(request(("/" + "/".join(segments)).encode("latin-1")))

    assert own_failures(answer) == []
    assert not [one for one in paths_seen(answer) if is_console(one)]


def token_for_dify(value: bytes) -> str:
    """Return the token that Dify reads from an Authorization header (its api/libs/token.py does the same)."""
    text = value.decode("latin-1").strip()
    if " " not in text:
        return ""
    scheme, token = text.split(None, 1)
    return token.strip() if scheme.lower() == "bearer" else ""


GAPS = st.lists(
    st.sampled_from([b" ", b"\t", b"\x0b", b"\x0c", b"\x1c", b"\x1f", b"\x85", b"\xa0"]), max_size=4
)


@settings(BOUNDED, max_examples=15)
@given(
    st.lists(
        st.tuples(st.sampled_from([b"Bearer", b"bearer", b"BEARER"]), GAPS, GAPS), min_size=20, max_size=20
    )
)
def test_no_way_of_writing_a_credential_gets_another_bucket(
    strict: Edge, written: list[tuple[bytes, list[bytes], list[bytes]]]
) -> None:
    token = f"app-{secrets.token_urlsafe(18)}"
    passed = 0
    for scheme, before, after in written:
        value = scheme + b" " + b"".join(before) + token.encode() + b"".join(after)
        answer = strict.raw(request(b"/v1/200", b"Authorization: " + value))
        passed += answer.status == 200 and token_for_dify(value) == token

    # However it is written, it is one credential.
    assert passed <= 5


def cookies_for_dify(value: bytes) -> str:
    """Return the session that Dify reads from a Cookie header, as werkzeug does."""
    for item in value.decode("utf-8", errors="replace").split(";"):
        name, _, found = item.partition("=")
        if name.strip() == "access_token":
            found = found.strip()
            return found[1:-1] if len(found) > 1 and found[0] == found[-1] == '"' else found
    return ""


COOKIES = st.lists(
    st.sampled_from(
        [
            "ACCESS_TOKEN=junk{n}",
            "x=access_token={n}{n}",
            "\xa0access_token={t}",
            "access_token = {t}",
            "a=b",
            "access_token={t}",
            'access_token="{t}"',
            "access_token=junk{n}",
            "__Host-access_token={n}",
            "\taccess_token={t}",
        ]
    ),
    min_size=1,
    max_size=4,
)


@settings(BOUNDED, max_examples=15)
@example(["\u00a0access_token={t}", "access_token={n}{n}"])
@example(["access_token = {t}", "access_token={n}{n}"])
@example(['access_token="{t}"', "__Host-access_token={n}{n}"])
@given(COOKIES)
def test_no_way_of_writing_a_session_gets_another_bucket(edge_for_sessions: Edge, cookies: list[str]) -> None:
    token = secrets.token_urlsafe(120)
    passed = 0
    for _ in range(20):
        value = "; ".join(cookies).replace("{t}", token).replace("{n}", secrets.token_urlsafe(60)).encode()
        answer = edge_for_sessions.raw(request(b"/console/api/200", b"Cookie: " + value))
        passed += answer.status == 200 and cookies_for_dify(value) == token

    # Five as this session, five as this address.
    assert passed <= 10


@pytest.fixture(scope="module")
def edge_for_sessions(start_edge: Callable[..., Edge]) -> Edge:
    """An edge with narrow limits on an open console."""
    console = {"requests": 5, "seconds": 60, "addressRequests": 0, "addressConcurrent": 0}
    return start_edge(plain={"rateLimits": {"console": console}})


SMUGGLED = b"GET /console/api/setup HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize(
    ("lines", "body"),
    [
        ((b"Content-Length: 5", b"Transfer-Encoding: chunked"), b"0\r\n\r\n" + SMUGGLED),
        ((b"Transfer-Encoding: chunked", b"Content-Length: 5"), b"0\r\n\r\n" + SMUGGLED),
        ((b"Content-Length: 0", b"Content-Length: 60"), SMUGGLED),
        ((b"Content-Length: 60, 0",), SMUGGLED),
        ((b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"), b"0\r\n\r\n" + SMUGGLED),
        ((b"Transfer-Encoding: \x0bchunked",), b"0\r\n\r\n" + SMUGGLED),
        ((b"Transfer-Encoding: chunked, identity",), b"0\r\n\r\n" + SMUGGLED),
        ((b"Host: localhost",), b""),
        ((b"Authorization: Bearer aaaaaaaaaaaaaaaaaaaa", b"Authorization: Bearer bbbbbbbbbbbbbbbbbbbb"), b""),
        ((b"Transfer-Encoding: chunked",), b"5\r\nhelloX\r\n0\r\n\r\n"),
    ],
)
def test_two_ways_to_read_a_request_are_none(strict: Edge, lines: tuple[bytes, ...], body: bytes) -> None:
    answer = strict.raw(request(b"/files/200", *lines, body=body, method=b"POST"))

    assert answer.statuses in ([400], [501])
    assert answer.response.headers["content-type"] == "application/json"
    assert answer.response.json()["status"] == answer.status


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (request(b"/files/" + b"a" * 70_000), 414, "uri_too_long"),
        (request(b"/files/200", b"X-Large: " + b"x" * 70_000), 431, "headers_too_large"),
        (
            request(b"/files/200", *[b"X-%d: %s" % (n, b"x" * 8000) for n in range(20)]),
            431,
            "headers_too_large",
        ),
        (request(b"/files/200", b"Content-Length: 99999999", method=b"POST"), 413, "request_too_large"),
        (request(b"/files/200", method=b"TRACE"), 405, "method_not_allowed"),
        (request(b"/files/%zz"), 400, "bad_request"),
        (b"GET /files/200 HTTP/1.1\r\n\r\n", 400, "bad_request"),
        (b"GET /files/200 HTTP/9.9\r\nHost: localhost\r\n\r\n", 505, "version_not_supported"),
        (request(b"/files/200", b"Transfer-Encoding: gzip", method=b"POST"), 501, "not_implemented"),
    ],
)
def test_refusals_are_told_in_json(strict: Edge, sent: bytes, status: int, code: str) -> None:
    answer = strict.raw(sent, seconds=SILENCE_SECONDS).response

    assert answer.status_code == status
    assert (answer.json()["code"], answer.json()["status"]) == (code, status)
    assert answer.headers.get_list("content-type") == ["application/json"]
    assert answer.headers["x-request-id"]


def test_chunks_beyond_the_limit_are_refused(strict: Edge) -> None:
    chunk = b"%x\r\n%s\r\n" % (1024 * 1024, b"x" * 1024 * 1024)

    answer = strict.raw(request(b"/files/200", b"Transfer-Encoding: chunked", body=chunk * 4, method=b"POST"))

    # It may close before everything was sent, and then the answer can be lost.
    assert answer.status in {413, 0}


def test_slow_clients_keep_nobody_waiting(strict: Edge) -> None:
    started = b"POST /files/200 HTTP/1.1\r\nHost: localhost\r\n"
    with ExitStack() as slow:
        for number in range(200):
            stream = slow.enter_context(socket.create_connection(("127.0.0.1", strict.port_number)))
            # Half of them stop in their headers, the others in their bodies.
            stream.sendall(started + (b"Content-Length: 100\r\n\r\nhalf" if number % 2 else b"X-Half"))

        answers = [strict.http.get("/mcp/200") for _ in range(20)]

    assert {answer.status_code for answer in answers} == {200}
    assert max(answer.elapsed.total_seconds() for answer in answers) < 2


def test_half_a_body_reaches_nobody(strict: Edge) -> None:
    with socket.create_connection(("127.0.0.1", strict.port_number), timeout=5) as stream:
        stream.sendall(request(b"/files/200", b"Content-Length: 100", body=b"half", method=b"POST"))
        stream.shutdown(socket.SHUT_WR)
        received = stream.recv(65536)

    assert received == b"" or own_failures(Raw(everything=received)) == []
    assert b"x-from-upstream" not in received.lower()
