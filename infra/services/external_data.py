"""The stack's side of external data services: the proxies that reach them, and the roots that they are verified with.

The clients stay on the internal network of the data tier. `data-proxy` is there, answers to the name in the server's
certificate and passes each connection to `data-egress`, which is on no network of theirs: it resolves the name of the
server as the outside does, and connects to it. TLS is between client and server for PostgreSQL and Redis. For vector
stores with HTTP or gRPC `data-egress` is the client of TLS: it verifies the server, and asks it by its own name.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from infra.catalogue import data_services, networks, ports, services
from infra.catalogue.addresses import CLUSTER_DOMAIN, CLUSTER_RESOLVER, DOCKER_RESOLVER
from infra.catalogue.container_paths import (
    DATABASE_CA_FILE,
    REDIS_CA_FILE,
    STREAM_PROXY_CONFIG,
    VECTOR_CA_FILE,
)
from infra.catalogue.releases import Release
from infra.jinja import render
from infra.services.spec import Detail, Details, File
from infra.settings.roots import public_roots
from infra.settings.stack import Settings
from infra.settings.vector_server import MILVUS, VectorServer

(TEMPLATE,) = services.SERVICES[data_services.DATA_PROXY].templates
# The services whose variables name the database, and Redis, by the service that has their entries in the catalogue.
_DATABASE_CLIENTS = frozenset({services.API, services.PLUGIN_DAEMON})
_REDIS_CLIENTS = _DATABASE_CLIENTS | {"agent-backend"}
# Added to a port of the proxy: a port of its loopback.
LOOPBACK_PORTS = 10000


@dataclass(frozen=True, kw_only=True)
class Pass:
    """A port that a stream proxy listens on, and the host and port that it passes connections to."""

    port: int
    address: str


@dataclass(frozen=True, kw_only=True)
class HttpPass(Pass):
    """A port for HTTP, or for gRPC, and the server that its requests go to, as `host` (a value of that header).

    `inside` is the port on loopback by which a connection to the server's address leaves. `tls_name` is the name in
    the server's certificate, empty without TLS; `roots` the file that the certificate is verified with.
    """

    inside: int
    host: str
    tls_name: str
    roots: str = VECTOR_CA_FILE
    grpc: bool = False

    @property
    def upstream(self) -> str:
        """What the requests are passed to."""
        scheme = "grpc" if self.grpc else "http"
        return f"{scheme}{'s' if self.tls_name else ''}://to_{self.port}"


@dataclass(frozen=True, kw_only=True)
class StreamProxyContext:
    """What the template of both stream proxies reads, as `proxy`."""

    passes: tuple[Pass, ...]
    http: tuple[HttpPass, ...] = ()
    resolver: str = DOCKER_RESOLVER
    status_port: int = ports.EDGE_STATUS


def stream_proxy_files(service: str, settings: Settings) -> dict[str, str]:
    """Render the configuration of a stream proxy: path in the container -> text. Raises RenderError."""
    http = _http_passes(settings.vector_server)
    found = {
        port: server.address
        for port, server in ((ports.POSTGRES, settings.database), (ports.REDIS, settings.redis))
        if server is not None
    }
    if settings.vector_server and settings.vector_server.libpq:
        found[ports.VECTOR_SERVER] = settings.vector_server.address
    egress, cluster = service == data_services.DATA_EGRESS, settings.kubernetes
    if not egress:
        found |= {one.port: one.address for one in http}
    # nginx reads no search domains.
    suffix = f".{cluster.namespace}.svc.{CLUSTER_DOMAIN}" if cluster else ""
    context = StreamProxyContext(
        resolver=CLUSTER_RESOLVER if cluster else DOCKER_RESOLVER,
        passes=tuple(
            Pass(port=port, address=address if egress else f"{data_services.DATA_EGRESS}{suffix}:{port}")
            for port, address in found.items()
        ),
        http=http if egress else (),
    )
    return {STREAM_PROXY_CONFIG: render(TEMPLATE, {"proxy": context}, settings.templates_dir)}


def files(service: str, settings: Settings) -> tuple[File, ...]:
    """Return the files with the authorities that a service verifies external servers with."""
    variables = services.SERVICES[service].variables
    found = []
    if settings.database and settings.database.verified and variables in _DATABASE_CLIENTS:
        found.append(File(path=DATABASE_CA_FILE, content=settings.database.ca or public_roots()))
    if settings.redis and settings.redis.tls and variables in _REDIS_CLIENTS:
        found.append(File(path=REDIS_CA_FILE, content=settings.redis.ca or public_roots()))
    if vectors := settings.vector_server:
        verifies = variables == services.API if vectors.libpq else service == data_services.DATA_EGRESS
        if vectors.verified and verifies:
            found.append(File(path=VECTOR_CA_FILE, content=vectors.ca or public_roots()))
    return tuple(found)


def _http_passes(server: VectorServer | None) -> tuple[HttpPass, ...]:
    """Return the ports of a vector store with HTTP or gRPC; nothing without one."""
    if server is None or server.libpq:
        return ()
    ends = [(ports.VECTOR_SERVER, server.host, server.port, server.server_name, server.kind == MILVUS)]
    if server.grpc_port:
        name = server.grpc_server_name
        ends.append((ports.VECTOR_SERVER_GRPC, server.grpc_host, server.grpc_port, name, True))
    usual = 443 if server.encrypted else 80
    return tuple(
        HttpPass(
            port=port,
            inside=LOOPBACK_PORTS + port,
            address=f"{host}:{outside}",
            host=name if outside == usual else f"{name}:{outside}",
            tls_name=name if server.encrypted else "",
            grpc=grpc,
        )
        for port, host, outside, name, grpc in ends
    )


def _aliases(settings: Settings) -> dict[str, tuple[str, ...]]:
    """Return the names that the clients connect to, on their network alone."""
    servers = (settings.database, settings.redis, settings.vector_server)
    dialled = [server.dialled for server in servers if server is not None]
    names = dict.fromkeys(name for name in dialled if name != data_services.DATA_PROXY)
    return {networks.DATA: tuple(names)} if names else {}


def proxy(settings: Settings, _release: Release) -> Details:
    """Return the stream proxy that the clients connect to."""
    return Details(files=_files(data_services.DATA_PROXY, settings), aliases=_aliases(settings))


def egress(settings: Settings, _release: Release) -> Details:
    """Return the stream proxy that connects to the external servers."""
    return Details(files=_files(data_services.DATA_EGRESS, settings))


def _files(service: str, settings: Settings) -> tuple[File, ...]:
    return tuple(
        File(path=path, content=text) for path, text in stream_proxy_files(service, settings).items()
    )


DETAILS: Mapping[str, Detail] = {data_services.DATA_PROXY: proxy, data_services.DATA_EGRESS: egress}
