"""What the nginx templates may know: policies and routes of the edge, and no secret."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from infra.catalogue import ports
from infra.catalogue.releases import Release
from infra.catalogue.request_headers import IDENTITY, KINDS, MORE, PASSED
from infra.catalogue.selection import port_of
from infra.edge import errors as edge_errors
from infra.edge.gate import EdgeGate, edge_gate, gate_limits, gate_routes
from infra.edge.limits import EdgeLimits, edge_limits
from infra.edge.llm import EdgeLlm, edge_llm
from infra.edge.oauth import GATEWAY, EdgeOAuth, edge_oauth, oauth_limits, oauth_routes, oauth_services
from infra.edge.paths import DRAIN_MARK, RUN_DIRECTORY
from infra.edge.routes import SOCKET_GROUP, EdgeLocation, EdgeRoute, locations
from infra.edge.schema import schema_patterns
from infra.edge.tls import EdgeTls, edge_tls
from infra.settings.origins import DEFAULT_PORTS
from infra.settings.stack import Settings
from infra.settings.urls import CORS_GROUPS, CREDENTIALED_GROUPS

# Docker's own name server, the same address in every container.
DOCKER_RESOLVER = "127.0.0.11"
# Multipart borders and fields come on top of a file.
BODY_OVERHEAD_MEGABYTES = 1
# Dify takes webhooks of up to 10 MB, whatever the limit for uploads is.
WEBHOOK_MEGABYTES = 10
READ_TIMEOUT_SECONDS = 3600
# Whose route is looked for first.
BUSIEST_GROUP = "v1"
# The service that nginx reaches without a hop.
DIRECT = "api"
# They listen before Dify is imported, so that requests wait for that.
LISTENS_EARLY = frozenset({"api", "api_websocket"})
RETRY_SECONDS = 5
# In the official image njs waits to be loaded; Debian's package loads it by itself.
OFFICIAL_JS_MODULE = "modules/ngx_http_js_module.so"
# Chromium keeps a preflight's answer for two hours at most.
PREFLIGHT_SECONDS = 7200

# What Dify's own frontends and clients send, and what they read (Dify's api/extensions/ext_blueprints.py).
ALLOWED_HEADERS = (
    "Authorization",
    "Content-Type",
    "X-App-Code",
    "X-App-Passport",
    "X-CSRF-Token",
    "X-Requested-With",
)
# What OpenAI's own clients send besides, in browsers too (the JavaScript client's src/internal/detect-platform.ts).
LLM_ALLOWED_HEADERS = (
    "Authorization",
    "Content-Type",
    "X-Requested-With",
    "OpenAI-Organization",
    "OpenAI-Project",
    "OpenAI-Beta",
    *(
        f"X-Stainless-{name}"
        for name in (
            *("Lang", "Package-Version", "OS", "Arch", "Runtime", "Runtime-Version"),
            *("Retry-Count", "Timeout", "Helper-Method", "Async"),
        )
    ),
)
EXPOSED_HEADERS = ("X-Version", "X-Env", "X-Trace-Id", "X-Request-Id", "Retry-After")


@dataclass(frozen=True, kw_only=True)
class EdgeService:
    """A service behind the edge, by its name and port in the stack's network.

    `direct`: the address is known to the live configuration, which saves a hop on the busiest routes.
    `host` is the service's own name, where nginx knows one of its ports by another; empty for the same.
    """

    name: str
    port: int
    direct: bool = False
    host: str = ""

    @property
    def address(self) -> str:
        """Where it is, for nginx to look up."""
        return f"{self.host or self.name}:{self.port}"


@dataclass(frozen=True, kw_only=True)
class EdgeContext:
    """Everything the nginx templates read, as `edge`. `cors` maps a group to its allowed origins.

    `js_module` is the module to load for njs, empty where the image does so by itself.
    """

    server_names: tuple[str, ...]
    routes: tuple[EdgeRoute, ...]
    services: tuple[EdgeService, ...]
    cors: Mapping[str, tuple[str, ...]]
    public_scheme: str
    public_port: int
    max_body_megabytes: int
    limits: EdgeLimits
    trusted_proxies: tuple[str, ...] = ()
    console_allow_from: tuple[str, ...] = ()
    schema_patterns: tuple[str, ...] = ()
    access_log: str = "all"
    tls: EdgeTls | None = None
    llm: EdgeLlm | None = None
    js_module: str = ""
    oauth: EdgeOAuth | None = None
    gate: EdgeGate | None = None
    revision: str = ""
    workers: str = "2"
    credentialed_groups: tuple[str, ...] = (*CREDENTIALED_GROUPS, SOCKET_GROUP)
    socket_group: str = SOCKET_GROUP
    allowed_headers: tuple[str, ...] = ALLOWED_HEADERS
    llm_allowed_headers: tuple[str, ...] = LLM_ALLOWED_HEADERS
    exposed_headers: tuple[str, ...] = EXPOSED_HEADERS
    passed_headers: tuple[str, ...] = PASSED
    identity_headers: tuple[str, ...] = tuple(sorted(IDENTITY))
    more_headers: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MORE)
    header_kinds: Mapping[str, str] = field(default_factory=lambda: KINDS)
    error_bodies: Mapping[str, str] = field(default_factory=edge_errors.bodies)
    error_shapes: Mapping[str, str] = field(default_factory=lambda: edge_errors.GROUP_SHAPES)
    default_error_shape: str = edge_errors.DEFAULT_SHAPE
    challenges: Mapping[str, str] = field(default_factory=lambda: edge_errors.CHALLENGES)
    resolver: str = DOCKER_RESOLVER
    run_dir: str = RUN_DIRECTORY
    drain_mark: str = DRAIN_MARK
    http_port: int = ports.EDGE_HTTP
    status_port: int = ports.EDGE_STATUS
    # Between the port that clients connect to and http: stream/clients.conf.
    http_socket: str = f"{RUN_DIRECTORY}/http.sock"
    https_socket: str = f"{RUN_DIRECTORY}/https.sock"
    # How many connections an address may hold; 0: any number.
    address_connections: int = 0
    read_timeout_seconds: int = READ_TIMEOUT_SECONDS
    retry_seconds: int = RETRY_SECONDS
    preflight_seconds: int = PREFLIGHT_SECONDS

    @property
    def grouped_routes(self) -> tuple[EdgeRoute, ...]:
        """Every route but that of all other paths, the busiest first. No prefix is the beginning of another one's."""
        found = (route for route in self.routes if route.prefix != "/")
        return tuple(sorted(found, key=lambda route: route.group != BUSIEST_GROUP))

    @property
    def not_hidden(self) -> str:
        """A pattern's condition that none of `schema_patterns` fits what follows."""
        hidden = "|".join(pattern.removeprefix("^") for pattern in self.schema_patterns)
        return f"(?!(?i:{hidden}))" if hidden else ""

    @property
    def client_sockets(self) -> Mapping[int, str]:
        """The sockets behind the ports that clients connect to."""
        return {self.http_port: self.http_socket, **({self.tls.port: self.https_socket} if self.tls else {})}

    @property
    def starting(self) -> tuple[EdgeService, ...]:
        """The services that listen before they can answer."""
        return tuple(service for service in self.services if service.name in LISTENS_EARLY)

    @property
    def starting_names(self) -> frozenset[str]:
        """Their names."""
        return frozenset(service.name for service in self.starting)

    @property
    def locations(self) -> tuple[EdgeLocation, ...]:
        """The locations of nginx that the routes become."""
        found = locations(
            self.routes,
            guarded=bool(self.console_allow_from) or self.gate is not None,
            limited=self.limits.rates.keys(),
        )
        gate = self.gate
        if gate is None:
            return found
        return tuple(replace(one, gated=gate.guards(group=one.group, console=one.console)) for one in found)


def edge_context(settings: Settings, release: Release) -> EdgeContext:
    """Derive the edge's policies from the settings and the routes from the release."""
    upload = settings.max_upload_megabytes + BODY_OVERHEAD_MEGABYTES
    package = settings.plugins.max_package_megabytes + BODY_OVERHEAD_MEGABYTES
    bodies = {
        "console": max(upload, package),
        "triggers": max(upload, WEBHOOK_MEGABYTES + BODY_OVERHEAD_MEGABYTES),
        "endpoints": max(upload, WEBHOOK_MEGABYTES + BODY_OVERHEAD_MEGABYTES),
    }
    origin = urlsplit(settings.public_url)
    names = dict.fromkeys(route.service for route in release.routes)
    return EdgeContext(
        server_names=settings.server_names,
        routes=(
            *oauth_routes(settings.oauth),
            *gate_routes(settings.oidc_gate),
            *(
                EdgeRoute(
                    prefix=route.prefix,
                    group=route.group,
                    service=route.service,
                    max_body_megabytes=bodies.get(route.group),
                )
                for route in release.routes
            ),
        ),
        services=(
            *(EdgeService(name=name, port=port_of(name), direct=name == DIRECT) for name in names),
            *(
                EdgeService(name=name, port=port, host=GATEWAY)
                for name, port in oauth_services(on=settings.gateway)
            ),
        ),
        cors={
            **{group: settings.cors.origins(group) for group in CORS_GROUPS},
            # A part of the console, with its cookies.
            SOCKET_GROUP: settings.cors.origins("console"),
        },
        public_scheme=origin.scheme,
        public_port=origin.port or DEFAULT_PORTS[origin.scheme],
        max_body_megabytes=upload,
        limits=edge_limits(
            settings.rate_limits, {**oauth_limits(settings.oauth), **gate_limits(settings.oidc_gate)}
        ),
        trusted_proxies=settings.trusted_proxies,
        console_allow_from=settings.console_allow_from,
        schema_patterns=schema_patterns(release.routes, opened=settings.api_schema),
        passed_headers=tuple(dict.fromkeys((*PASSED, *settings.request_headers))),
        access_log=settings.access_log,
        address_connections=settings.address_connections,
        tls=edge_tls(settings),
        llm=edge_llm(settings.llm),
        js_module="" if settings.images == "local" else OFFICIAL_JS_MODULE,
        oauth=edge_oauth(settings.oauth),
        gate=edge_gate(settings.oidc_gate),
        error_bodies={**edge_errors.bodies(), **(edge_errors.token_bodies() if settings.oauth else {})},
    )
