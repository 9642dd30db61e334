"""The edge from outside: routes, limits of size, and what it says about itself."""

import socket
import ssl
from urllib.parse import urlsplit

import httpx
import pytest

from smoke_tests.client import make_client
from smoke_tests.target import Target

MEGABYTE = 1024 * 1024


def test_instance_is_claimed(anonymous: httpx.Client) -> None:
    response = anonymous.get("/console/api/setup")

    assert response.status_code == httpx.codes.OK
    assert response.json()["step"] == "finished"


def test_console_needs_a_session(anonymous: httpx.Client) -> None:
    assert anonymous.get("/console/api/apps").status_code == httpx.codes.UNAUTHORIZED


def test_frontend_is_served(anonymous: httpx.Client) -> None:
    response = anonymous.get("/signin")

    assert response.status_code == httpx.codes.OK
    assert response.headers["content-type"].startswith("text/html")


def test_unknown_route_gets_difys_own_404(caller: httpx.Client) -> None:
    response = caller.get("/v1/no-such-route")

    assert response.status_code == httpx.codes.NOT_FOUND
    assert "x-version" in response.headers


@pytest.mark.needs_stack
def test_every_answer_has_a_request_id(anonymous: httpx.Client) -> None:
    identities = {anonymous.get("/v1/info").headers["x-request-id"] for _ in range(3)}

    assert len(identities) == 3


@pytest.mark.needs_stack
def test_server_does_not_tell_its_version(anonymous: httpx.Client) -> None:
    assert anonymous.get("/healthz").headers["server"] == "nginx"


@pytest.mark.needs_stack
def test_unknown_host_gets_no_answer(target: Target, pytestconfig: pytest.Config) -> None:
    verify = not pytestconfig.getoption("--insecure")
    with make_client(target.url, verify=verify) as stranger, pytest.raises(httpx.RemoteProtocolError):
        stranger.get("/", headers={"Host": "stranger.example"})


@pytest.mark.needs_stack
def test_body_over_the_limit_is_refused_early(target: Target, anonymous: httpx.Client) -> None:
    assert target.max_upload_megabytes is not None
    parts = urlsplit(target.url)
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    announced = (target.max_upload_megabytes + 2) * MEGABYTE
    # Announced, never sent: the edge answers from the length alone.
    head = (
        f"POST /v1/files/upload HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: text/plain\r\n"
        f"Content-Length: {announced}\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection((parts.hostname or "", port), timeout=10) as plain:
        stream = _secured(plain, parts.hostname or "") if parts.scheme == "https" else plain
        stream.sendall(head.encode())
        answer = b""
        while piece := stream.recv(4096):
            answer += piece

    status, _, rest = answer.partition(b"\r\n")
    assert status.split()[1] == b"413"
    assert b'"code":"request_too_large"' in rest
    assert anonymous.get("/healthz").status_code == httpx.codes.OK


def _secured(plain: socket.socket, name: str) -> ssl.SSLSocket:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(plain, server_hostname=name)
