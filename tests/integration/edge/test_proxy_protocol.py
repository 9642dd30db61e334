"""A load balancer with the PROXY protocol before the edge: whose address counts, and who is believed."""

import http.client
import ipaddress
import json
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dify_kit.checks import published
from dify_kit.watch import certificate
from infra.catalogue import ports
from tests.integration.edge.container import Edge
from tests.integration.edge.pod import POD, PodEdge
from tests.integration.edge.test_access import INSIDE, NETWORKS, OFFICE, OUTSIDE

# One request a minute: however busy the machine is, the second one comes too early.
LIMIT = {"requests": 1, "seconds": 60, "addressRequests": 1, "addressSeconds": 60}
MOST = 20
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
PLAIN, SECURED = ports.EDGE_PROXIED_HTTP, ports.EDGE_PROXIED_HTTPS


def version_1(client: str) -> bytes:
    """Return a header of the PROXY protocol 1 for a client."""
    family, own = ("TCP6", "2001:db8::1") if ":" in client else ("TCP4", "192.0.2.1")
    return f"PROXY {family} {client} {own} 40000 443\r\n".encode()


def version_2(client: str) -> bytes:
    """Return a header of the PROXY protocol 2 for a client, with a part that load balancers add."""
    address = ipaddress.ip_address(client)
    own = ipaddress.ip_address("2001:db8::1" if address.version == 6 else "192.0.2.1")
    added = struct.pack("!BH", 0xEA, 3) + b"vpc"
    body = address.packed + own.packed + struct.pack("!HH", 40000, 443) + added
    return SIGNATURE + struct.pack("!BBH", 0x21, 0x21 if address.version == 6 else 0x11, len(body)) + body


# A health check of a load balancer: the connection is its own.
LOCAL_1, LOCAL_2 = b"PROXY UNKNOWN\r\n", SIGNATURE + struct.pack("!BBH", 0x20, 0, 0)


@dataclass(frozen=True)
class Reply:
    """What came back: a body in JSON is read."""

    status: int
    body: Any
    request_id: str


def send(
    edge: Edge, header: bytes, path: str, *, port: int = PLAIN, headers: dict[str, str] | None = None
) -> Reply:
    """Send a request on a connection that begins with `header`; port 8087 and 8443 of the edge are of TLS."""
    with socket.create_connection(("127.0.0.1", edge.port(port)), timeout=20) as plain:
        plain.sendall(header)
        connection: socket.socket = plain
        if port in {SECURED, ports.EDGE_HTTPS}:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            connection = context.wrap_socket(plain, server_hostname="localhost")
        lines = [f"GET {path} HTTP/1.1", "Host: localhost", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        text = answer.read()
        found = json.loads(text) if text.startswith(b"{") else text
        return Reply(answer.status, found, answer.getheader("x-request-id") or "")


def address_seen(reply: Reply) -> str:
    """Return the address that the service was told."""
    return str(dict(reply.body["seen"])["X-Real-IP"])


@pytest.fixture(scope="module")
def balanced(open_directory: Callable[[], Path]) -> Iterator[PodEdge]:
    """An edge behind a load balancer on this machine; its console is for an office."""
    edge = PodEdge(
        open_directory(),
        open_directory(),
        {
            **POD,
            "trustedProxies": NETWORKS,
            "proxyProtocol": True,
            "consoleAllowFrom": [OFFICE, "2001:db8::/32"],
            "addressConnections": MOST,
            "rateLimits": {"v1": LIMIT},
        },
        published=(ports.EDGE_HTTP, PLAIN, SECURED),
    )
    try:
        yield edge
    finally:
        edge.remove()


@pytest.fixture(scope="module")
def stranger(start_edge: Callable[..., Edge]) -> Edge:
    """An edge that trusts a load balancer which is not this machine."""
    return start_edge(
        plain={
            "trustedProxies": ["203.0.113.250"],
            "proxyProtocol": True,
            "consoleAllowFrom": [OFFICE],
            "rateLimits": {"v1": LIMIT},
        },
        published=(ports.EDGE_HTTP, PLAIN),
    )


@pytest.mark.parametrize("port", [PLAIN, SECURED])
@pytest.mark.parametrize("header", [version_1, version_2])
@pytest.mark.parametrize("client", [OUTSIDE, "2001:db8::9"])
def test_the_load_balancer_tells_who_the_client_is(
    balanced: PodEdge, port: int, header: Callable[[str], bytes], client: str
) -> None:
    # What the client itself says of its address is dropped.
    reply = send(balanced, header(client), "/files/200", port=port, headers={"X-Forwarded-For": INSIDE})

    assert reply.status == 200
    assert address_seen(reply) == client
    assert INSIDE not in json.dumps(reply.body)
    assert json.loads(balanced.logged(reply.request_id))["client"] == client


@pytest.mark.parametrize("header", [version_1, version_2])
@pytest.mark.parametrize("port", [PLAIN, SECURED])
def test_the_console_is_for_the_addresses_that_it_tells(
    balanced: PodEdge, header: Callable[[str], bytes], port: int
) -> None:
    found = [
        send(balanced, header(client), "/console/api/200", port=port).status
        for client in (INSIDE, OUTSIDE, "2001:db8::9", "2001:db9::9")
    ]

    assert found == [200, 403, 200, 403]


@pytest.mark.parametrize(
    ("header", "port", "office"),
    [(version_1, PLAIN, 10), (version_2, PLAIN, 20), (version_1, SECURED, 30), (version_2, SECURED, 40)],
)
def test_limits_count_the_addresses_that_it_tells(
    balanced: PodEdge, header: Callable[[str], bytes], port: int, office: int
) -> None:
    def statuses(last: int) -> list[int]:
        return [
            send(
                balanced,
                header(f"198.51.100.{last}"),
                "/v1/200",
                port=port,
                headers={"Authorization": f"Bearer app-{last}-{number}"},
            ).status
            for number in range(4)
        ]

    # By address, whatever the credential; and each address for itself.
    assert statuses(office) == [200] + [429] * 3
    assert statuses(office + 1) == [200] + [429] * 3


def test_an_address_holds_so_many_connections_and_the_load_balancer_any_number(balanced: PodEdge) -> None:
    with ExitStack() as stack:

        def hold(client: str, count: int) -> list[socket.socket]:
            streams = []
            for _ in range(count):
                stream = stack.enter_context(
                    socket.create_connection(("127.0.0.1", balanced.port_of[PLAIN]), timeout=10)
                )
                stream.sendall(version_1(client) + b"GET /files/200 HTTP/1.1\r\nHost: loc")
                streams.append(stream)
            return streams

        def is_open(stream: socket.socket) -> bool:
            stream.settimeout(0.05)
            try:
                return stream.recv(1) != b""
            except TimeoutError:
                return True
            except OSError:
                return False

        one, other = hold("198.51.100.91", MOST + 10), hold("198.51.100.92", MOST - 5)
        deadline = time.monotonic() + 20
        while sum(map(is_open, one)) > MOST and time.monotonic() < deadline:
            time.sleep(0.2)

        assert sum(map(is_open, one)) == MOST
        assert sum(map(is_open, other)) == MOST - 5


@pytest.mark.parametrize("header", [LOCAL_1, LOCAL_2])
def test_a_health_check_of_the_load_balancer_is_answered(balanced: PodEdge, header: bytes) -> None:
    reply = send(balanced, header, "/healthz")

    assert (reply.status, reply.body) == (200, {"status": "ok"})
    # Of its own address, which is in no office.
    assert send(balanced, header, "/console/api/200").status == 403


def test_a_connection_without_the_protocol_is_closed(balanced: PodEdge) -> None:
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        send(balanced, b"", "/healthz")
    with pytest.raises((ConnectionError, ssl.SSLError)):
        send(balanced, b"", "/healthz", port=SECURED)


def test_probes_of_the_container_and_services_of_the_stack_use_plain_http(balanced: PodEdge) -> None:
    status = f"http://127.0.0.1:{ports.EDGE_STATUS}/healthz"

    assert balanced.nginx.exec_run(["curl", "-fsS", status]).exit_code == 0
    assert balanced.http.get("/healthz").json() == {"status": "ok"}


@pytest.mark.parametrize("header", [version_1, version_2])
def test_nobody_else_is_believed(stranger: Edge, header: Callable[[str], bytes]) -> None:
    reply = send(stranger, header(INSIDE), "/files/200", headers={"X-Forwarded-For": INSIDE})

    assert reply.status == 200
    assert INSIDE not in json.dumps(reply.body)
    assert send(stranger, header(INSIDE), "/console/api/200").status == 403


def test_another_address_in_the_header_is_no_way_around_a_limit(stranger: Edge) -> None:
    found = [
        send(
            stranger,
            version_1(f"203.0.113.{number}"),
            "/v1/200",
            headers={"Authorization": f"Bearer app-{number}"},
        ).status
        for number in range(4)
    ]

    assert found == [200] + [429] * 3


def test_the_kit_s_own_checks_speak_the_protocol(balanced: PodEdge) -> None:
    where = published.Published(
        address="127.0.0.1", port=balanced.port(PLAIN), host="localhost", proxied=True
    )

    assert published.problem(where) == ""
    shown = certificate.presented(
        "127.0.0.1", balanced.port(SECURED), "localhost", "cert-manager", where.preface
    )
    assert shown.subject == "localhost"
