"""Connections that send nothing or an incomplete request: they are limited by address and block no other client."""

import resource
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from infra.catalogue import ports
from tests.integration.edge.container import Edge

# More than the workers of one nginx took before it had a limit: 2 of 4096 each.
FLOOD = 9000
MOST = 200
PROBE = """
import http.client, sys
connection = http.client.HTTPConnection("{host}", {port}, timeout=20)
connection.request("GET", "/v1/200", headers={{"Host": "localhost"}})
print(connection.getresponse().status)
"""


@pytest.fixture(scope="module")
def bounded(start_edge: Callable[..., Edge]) -> Edge:
    """An edge that lets an address hold few connections."""
    return start_edge(plain={"addressConnections": MOST})


def is_open(stream: socket.socket) -> bool:
    """Tell whether the other side still holds a connection on which it has nothing to say."""
    stream.settimeout(0.05)
    try:
        return stream.recv(1) != b""
    except TimeoutError:
        return True
    except OSError:
        return False


def hold(edge: Edge, stack: ExitStack, count: int, sent: bytes = b"") -> list[socket.socket]:
    """Open connections that send no whole request; return those that the edge holds."""
    address = edge.nginx.attrs["NetworkSettings"]["Networks"][edge.name]["IPAddress"]
    streams = []
    for _ in range(count):
        stream = socket.socket()
        stream.settimeout(10)
        # To the container itself: what stands between it and a published port has limits of its own.
        stream.connect((address, ports.EDGE_HTTP))
        stack.callback(stream.close)
        if sent:
            try:
                stream.sendall(sent)
            except OSError:
                continue
        streams.append(stream)
    return streams


def from_elsewhere(edge: Edge) -> str:
    """Ask from another address, inside the network; return the status."""
    host = edge.nginx.attrs["NetworkSettings"]["Networks"][edge.name]["IPAddress"]
    done = edge.upstream.exec_run(["python3", "-c", PROBE.format(host=host, port=ports.EDGE_HTTP)])
    return str(done.output.decode().strip())


@pytest.mark.parametrize("sent", [b"", b"GET /v1/200 HTTP/1.1\r\nHost: loc"])
def test_an_address_holds_so_many_connections_and_no_more(bounded: Edge, sent: bytes) -> None:
    bounded.nginx.reload()
    with ExitStack() as stack:
        streams = hold(bounded, stack, MOST + 100, sent)
        time.sleep(0.5)
        held = [stream for stream in streams if is_open(stream)]

        # The client of these tests may hold one as well.
        assert MOST - 5 <= len(held) <= MOST
        assert from_elsewhere(bounded) == "200"

    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with ExitStack() as stack:
            (stream,) = hold(
                bounded, stack, 1, b"GET /v1/200 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            )
            stream.settimeout(10)
            try:
                if stream.recv(20).startswith(b"HTTP/1.1 200"):
                    return
            except OSError:
                pass
        time.sleep(0.2)
    raise AssertionError("the address is shut out although it closed its connections")


def test_a_flood_from_one_address_silences_nobody(edge: Edge) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < FLOOD + 1000:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, FLOOD + 1000), hard))
    edge.nginx.reload()
    with ExitStack() as stack:
        hold(edge, stack, FLOOD, b"GET /v1/200 HTTP/1.1\r\nHost: loc")

        found = [from_elsewhere(edge) for _ in range(5)]

    assert found == ["200"] * 5


def test_a_trusted_proxy_may_hold_those_of_everybody(start_edge: Callable[..., Edge]) -> None:
    networks = ["172.16.0.0/12", "192.168.0.0/16", "10.0.0.0/8"]
    edge = start_edge(plain={"addressConnections": MOST, "trustedProxies": networks})
    edge.nginx.reload()
    with ExitStack() as stack:
        streams = hold(edge, stack, MOST + 50)
        time.sleep(0.5)

        assert len([stream for stream in streams if is_open(stream)]) == MOST + 50


def test_the_client_is_who_connected(bounded: Edge) -> None:
    seen = dict(bounded.http.get("/v1/200").json()["seen"])

    assert seen["X-Real-IP"].count(".") == 3
    assert seen["X-Real-IP"] not in {"unix:", "127.0.0.1"}
