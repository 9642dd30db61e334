"""Checks the stack's published address from outside, and repairs it when it fails while the edge is healthy.

What Docker puts between a port of the host and a container can end by itself: thousands of half-open connections end
the userland proxy, and the port stays dead. The container's health check does not cover that. A
restart of the container makes Docker publish the port again.
"""

import http.client
import ipaddress
import json
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from dify_kit.containers.docker_host import Container
from dify_kit.errors import KitError
from dify_kit.stack import settings
from dify_kit.talk import say, warn
from dify_kit.workspace.files import StackFiles
from infra.settings.network import addresses_of
from infra.settings.origins import host_of

EDGE = "nginx"
PATH = "/healthz"
ANSWER_SECONDS = 5.0
PAUSE_SECONDS = 1.0
# On a busy machine a healthy edge may be slow to respond; a dead port never responds.
PATIENCE_SECONDS = 30.0
AFTER_RESTART_SECONDS = 90.0


class Engine(Protocol):
    """The engine, as far as it is needed here: see `dify_kit.containers.docker_host.Engine`."""

    def local(self) -> bool:
        """Whether the engine runs on this machine."""

    def containers(self, stack: str) -> list[Container]:
        """Return the stack's containers."""

    def restart_container(self, container_id: str) -> None:
        """Stop a container, and start it again."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """Where clients of this machine find the edge, and a host name that it serves; ``tls`` where HTTP is refused.

    ``proxied``: the port expects the PROXY protocol.
    """

    address: str
    port: int
    host: str
    tls: bool = False
    proxied: bool = False

    @property
    def preface(self) -> bytes:
        """What a connection begins with: of the PROXY protocol, that it is for no other client."""
        return b"PROXY UNKNOWN\r\n" if self.proxied else b""

    def __str__(self) -> str:
        """Return address and port as they are written."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


def find(files: StackFiles, engine: Engine) -> Published | None:
    """Return where to send the request; None for another machine's loopback, and for settings that cannot work."""
    reading = settings.read(files)
    if not reading.sound("bindAddress", "httpPort", "publicUrl") or reading.settings.kubernetes:
        # On a cluster clients come by a Service, at the address of a node or a load balancer.
        return None
    found = reading.settings
    address = ipaddress.ip_address(addresses_of(found.bind_address)[0])
    if not engine.local() and (address.is_loopback or address.is_unspecified):
        return None
    if address.is_unspecified:
        address = ipaddress.ip_address("::1" if address.version == 6 else "127.0.0.1")  # noqa: PLR2004  # IPv6
    return Published(
        address=str(address),
        port=found.http_port,
        host=host_of(found.public_url),
        proxied=found.proxy_protocol,
    )


def public(files: StackFiles) -> Published | None:
    """Return where clients of a stack on a cluster find it, by its public URL; None for one on an engine.

    What is before the edge there (a load balancer, an Ingress) belongs to the cluster: nothing here repairs it.
    """
    reading = settings.read(files)
    if not reading.settings.kubernetes or not reading.sound("publicUrl", "kubernetes"):
        return None
    parts = urlsplit(reading.settings.public_url)
    tls = parts.scheme == "https"
    host = parts.hostname or ""
    return Published(address=host, port=parts.port or (443 if tls else 80), host=host, tls=tls)


def problem(published: Published, seconds: float = ANSWER_SECONDS) -> str:
    """Request the edge's health through the published port; return what is wrong with the response, or nothing."""
    connection = _connection(published, seconds)
    try:
        connection.connect()
        if published.preface:
            connection.sock.sendall(published.preface)
        # With TLS too, the edge serves this path by plain HTTP, for load balancers.
        connection.request(
            "GET", PATH, headers={"Host": f"{published.host}:{published.port}", "Connection": "close"}
        )
        answer = connection.getresponse()
        text = answer.read(1000).decode(errors="replace")
    except (OSError, http.client.HTTPException) as failure:
        return f"{type(failure).__name__}: {failure}"
    finally:
        connection.close()
    try:
        well = answer.status == http.client.OK and json.loads(text).get("status") == "ok"
    except (ValueError, AttributeError):
        well = False
    return "" if well else f"status {answer.status} where the edge's own 200 is right"


def _connection(published: Published, seconds: float) -> http.client.HTTPConnection:
    if not published.tls:
        return http.client.HTTPConnection(published.address, published.port, timeout=seconds)
    # It is looked at, and not relied on: the certificate has a check of its own.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection(published.address, published.port, timeout=seconds, context=context)


def edge_of(stack: str, engine: Engine) -> Container | None:
    """Return the stack's running edge when it is healthy inside; None otherwise, which other checks report."""
    return next(
        (one for one in engine.containers(stack) if one.service == EDGE and not one.job and not one.sick()),
        None,
    )


def ensure(
    files: StackFiles,
    engine: Engine,
    *,
    ask: Callable[[Published], str] = problem,
    patience: float = PATIENCE_SECONDS,
    after_restart: float = AFTER_RESTART_SECONDS,
) -> None:
    """Check the published address; restart the edge when it is dead. Raises KitError when that does not help."""
    published, edge = find(files, engine), edge_of(files.stack, engine)
    if published is None or edge is None:
        return
    found = _wait(published, ask, patience)
    if not found:
        return
    warn(f"{published} does not answer, although {edge.name} is healthy inside ({found}): restarting it")
    engine.restart_container(edge.id)
    found = _wait(published, ask, after_restart)
    if found:
        raise KitError(
            f"{published} does not answer: {found}",
            f"see `docker logs {edge.name}`, and what else of this machine stands before that port: a firewall, "
            "`ps aux | grep docker-proxy`",
        )
    say(f"{published} answers again")


def _wait(published: Published, ask: Callable[[Published], str], seconds: float) -> str:
    """Repeat the request until the response is right; return the last problem after so many seconds."""
    deadline = time.monotonic() + seconds
    while found := ask(published):
        if time.monotonic() > deadline:
            return found
        time.sleep(PAUSE_SECONDS)
    return ""
