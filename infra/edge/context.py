"""The context of the nginx templates: policies and routes of the edge. It holds no secret."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from urllib.parse import urlsplit

from infra.catalogue import ports, route_groups
from infra.catalogue.addresses import DOCKER_RESOLVER
from infra.catalogue.releases import Release
from infra.catalogue.request_headers import IDENTITY, MORE, PASSED
from infra.catalogue.route_groups import SERVICE_API, Body, CorsKind, ErrorShape, Headers, RouteGroup
from infra.catalogue.selection import port_of
from infra.catalogue.services import GATEWAY, NGINX
from infra.edge import errors as edge_errors
from infra.edge.gate import EdgeGate, edge_gate, gate_limits
from infra.edge.limits import ConnectionZone, EdgeLimits, RateZone, edge_limits
from infra.edge.llm import EdgeLlm, edge_llm
from infra.edge.oauth import EdgeOAuth, edge_oauth, oauth_limits, oauth_services
from infra.edge.owner import Owner
from infra.edge.paths import DRAIN_MARK, RUN_DIRECTORY
from infra.edge.ring import EdgeRing, Step, elsewhere, replica_names, steps
from infra.edge.routes import EdgeLocation, EdgeRoute, locations, own_routes
from infra.edge.schema import schema_patterns
from infra.edge.tls import EdgeTls, edge_tls
from infra.edge.traffic import INTROSPECTION, SESSION, TOKEN, Traffic
from infra.settings.origins import DEFAULT_PORTS
from infra.settings.stack import Settings

# Multipart boundaries and fields add to the size of a file.
BODY_OVERHEAD_MEGABYTES = 1
# Dify accepts webhooks of up to 10 MB, independent of the limit of uploads.
WEBHOOK_MEGABYTES = 10
READ_TIMEOUT_SECONDS = 3600
# The service whose address is in the live configuration: requests to it skip the proxy of stream/upstreams.conf.
DIRECT = "api"
# They listen before Dify is imported: until then, requests would wait.
LISTENS_EARLY = frozenset({"api", "api-websocket"})
RETRY_SECONDS = 5
# The official image does not load njs by default; Debian's package does.
OFFICIAL_JS_MODULE = "modules/ngx_http_js_module.so"
OFFICIAL_JS_STREAM_MODULE = "modules/ngx_stream_js_module.so"
# Chromium caches a preflight for two hours at most.
PREFLIGHT_SECONDS = 7200

# Request and response headers of Dify's frontends and clients (Dify's api/extensions/ext_blueprints.py).
ALLOWED_HEADERS = (
    "Authorization",
    "Content-Type",
    "X-App-Code",
    "X-App-Passport",
    "X-CSRF-Token",
    "X-Requested-With",
)
# The headers that OpenAI's clients send, in browsers too (the JavaScript client's src/internal/detect-platform.ts).
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
class ServiceNames:
    """How nginx resolves the names of services: the address of a DNS server, and what that needs after each name.

    `fresh_seconds` is how long an address is used before its name is resolved again, `wait_seconds` how long a
    connection waits for that. With `fixed` the addresses stay, and the system's own files tell them at nginx's start.
    """

    resolver: str = DOCKER_RESOLVER
    suffix: str = ""
    fresh_seconds: int = 2
    wait_seconds: int = 2
    fixed: bool = False


DOCKER_NAMES = ServiceNames()


@dataclass(frozen=True, kw_only=True)
class EdgeService:
    """A service behind the edge, by its name and port in the stack's network.

    `direct`: the live configuration holds its address, which saves a proxy on the busiest routes. `host` is the name in
    the network where `name` differs from it, empty otherwise; `suffix` follows both.
    """

    name: str
    port: int
    direct: bool = False
    host: str = ""
    suffix: str = ""

    @property
    def address(self) -> str:
        """Its address, with a name for nginx to resolve."""
        return f"{self.host or self.name}{self.suffix}:{self.port}"


@dataclass(frozen=True, kw_only=True)
class EdgeContext:
    """Everything the nginx templates read, as `edge`. `cors` maps a route group to its allowed origins.

    `groups` is the table of route groups by name. `js_module` is the module of njs, empty where the image loads it, and
    `js_stream_module` the one that is loaded with it.
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
    proxy_protocol: bool = False
    console_allow_from: tuple[str, ...] = ()
    schema_patterns: tuple[str, ...] = ()
    access_log: str = "all"
    tls: EdgeTls | None = None
    llm: EdgeLlm | None = None
    js_module: str = ""
    js_stream_module: str = OFFICIAL_JS_STREAM_MODULE
    oauth: EdgeOAuth | None = None
    gate: EdgeGate | None = None
    ring: EdgeRing | None = None
    owner: Owner | None = None
    revision: str = ""
    workers: str = "2"
    groups: Mapping[str, RouteGroup] = field(default_factory=route_groups.groups)
    allowed_headers: tuple[str, ...] = ALLOWED_HEADERS
    llm_allowed_headers: tuple[str, ...] = LLM_ALLOWED_HEADERS
    exposed_headers: tuple[str, ...] = EXPOSED_HEADERS
    passed_headers: tuple[str, ...] = PASSED
    identity_headers: tuple[str, ...] = tuple(sorted(IDENTITY))
    more_headers: Mapping[Headers, tuple[str, ...]] = field(default_factory=lambda: MORE)
    error_bodies: Mapping[str, str] = field(default_factory=edge_errors.bodies)
    error_shapes: Mapping[str, str] = field(default_factory=edge_errors.group_shapes)
    default_error_shape: str = edge_errors.DEFAULT_SHAPE
    challenges: Mapping[ErrorShape, str] = field(default_factory=lambda: edge_errors.CHALLENGES)
    resolver: str = DOCKER_RESOLVER
    resolver_fresh_seconds: int = DOCKER_NAMES.fresh_seconds
    resolver_wait_seconds: int = DOCKER_NAMES.wait_seconds
    fixed_addresses: bool = DOCKER_NAMES.fixed
    run_dir: str = RUN_DIRECTORY
    drain_mark: str = DRAIN_MARK
    http_port: int = ports.EDGE_HTTP
    status_port: int = ports.EDGE_STATUS
    # The sockets of the http servers; clients connect to the ports of stream/clients.conf.
    http_socket: str = f"{RUN_DIRECTORY}/http.sock"
    https_socket: str = f"{RUN_DIRECTORY}/https.sock"
    # The most open connections of one address; 0: no limit.
    address_connections: int = 0
    read_timeout_seconds: int = READ_TIMEOUT_SECONDS
    retry_seconds: int = RETRY_SECONDS
    preflight_seconds: int = PREFLIGHT_SECONDS

    @property
    def grouped_routes(self) -> tuple[EdgeRoute, ...]:
        """Every route except that of /, the busiest group first. No prefix starts with another one."""
        found = (route for route in self.routes if route.prefix != "/")
        return tuple(sorted(found, key=lambda route: route.group != SERVICE_API))

    @property
    def not_hidden(self) -> str:
        """The negative lookahead that excludes paths of `schema_patterns`, for the start of a pattern."""
        hidden = "|".join(pattern.removeprefix("^") for pattern in self.schema_patterns)
        return f"(?!(?i:{hidden}))" if hidden else ""

    @property
    def client_sockets(self) -> Mapping[int, str]:
        """The sockets of the http servers by the port that clients connect to."""
        return {self.http_port: self.http_socket, **({self.tls.port: self.https_socket} if self.tls else {})}

    @property
    def proxied_sockets(self) -> Mapping[int, str]:
        """The same by the ports that a load balancer with the PROXY protocol connects to; none without it."""
        if not self.proxy_protocol:
            return {}
        secured = {ports.EDGE_PROXIED_HTTPS: self.https_socket} if self.tls else {}
        return {ports.EDGE_PROXIED_HTTP: self.http_socket, **secured}

    @property
    def starting(self) -> tuple[EdgeService, ...]:
        """The services that listen before they are ready."""
        return tuple(service for service in self.services if service.name in LISTENS_EARLY)

    @property
    def starting_names(self) -> frozenset[str]:
        """Their names."""
        return frozenset(service.name for service in self.starting)

    @property
    def credentialed_groups(self) -> tuple[str, ...]:
        """The route groups to which pages of allowed origins send cookies."""
        return tuple(name for name in self.cors if route_groups.with_credentials(name))

    @property
    def here(self) -> EdgeLimits:
        """The limits that the replica counts which a client is connected to: none where owners count."""
        return elsewhere(self.limits) if self.ring else self.limits

    @property
    def llm_here(self) -> EdgeLlm | None:
        """The LLM proxy, where these files are those that count and call upstreams."""
        return None if self.owner and not self.owner.here else self.llm

    @property
    def no_llm_here(self) -> str:
        """Why it is not, for a comment."""
        return (
            "The owner of its counts has it (http/owner.conf)." if self.llm else "dify:llm.enabled is false."
        )

    @property
    def traffic(self) -> Traffic | None:
        """How requests are counted: where clients connect, so not at the owner of the LLM proxy's counts."""
        return None if self.owner and self.owner.here else Traffic()

    @property
    def traffic_tables(self) -> str:
        """What the script that counts requests reads, as JSON."""
        calls = [*((TOKEN, INTROSPECTION) if self.oauth else ()), *((SESSION,) if self.gate else ())]
        groups = [*(one.group for one in self.routes), *(("llm",) if self.llm else ()), "web"]
        return Traffic().tables(groups, calls, dry_run=self.limits.dry_run)

    @property
    def request_id(self) -> str:
        """The variable with the id of a request: an owner has that of nginx in front of it."""
        return "$owner_request_id" if self.owner and self.owner.here else "$request_id"

    @property
    def peer(self) -> str:
        """The variable with the address that is connected to nginx in front of an owner."""
        return "$owner_peer" if self.owner and self.owner.here else "$realip_remote_addr"

    @property
    def rate_status(self) -> str:
        """The variable that says what limits of rates did."""
        return "$ring_rate_status" if self.ring else "$limit_req_status"

    @property
    def connection_status(self) -> str:
        """The variable that says what limits of concurrent requests did."""
        return "$ring_connection_status" if self.ring else "$limit_conn_status"

    def zone_key(self, zone: RateZone | ConnectionZone) -> str:
        """Return the variable that a zone counts by."""
        return f"$ring_{zone.name}" if self.ring else zone.key

    def steps_at(self, names: tuple[str, ...], *, verified: bool = False) -> tuple[Step, ...]:
        """Return the owners that a request passes where all of `names` apply; none with one replica."""
        return steps(self.limits, names, verified=verified) if self.ring else ()

    def steps_of(self, zone: RateZone | ConnectionZone) -> tuple[Step, ...]:
        """Return the steps of all requests at which a zone counts."""
        return tuple(step for step in self._steps if zone.name in step.zones)

    @cached_property
    def _steps(self) -> tuple[Step, ...]:
        found = [step for location in self.locations for step in self.steps_at(location.limits)]
        if oauth := self.oauth:
            found += [
                step
                for location in self.locations
                if location.group in oauth.calls
                for one in oauth.classes
                for step in self.steps_at((*location.limits, one.name), verified=True)
            ]
            found += [*self.steps_at((oauth.refused,)), *self.steps_at((oauth.introspections,))]
        if self.gate:
            found += self.steps_at((self.gate.sessions,))
        return tuple({step.name: step for step in found}.values())

    @property
    def locations(self) -> tuple[EdgeLocation, ...]:
        """The nginx locations of all routes."""
        found = locations(
            self.routes,
            guarded=bool(self.console_allow_from) or self.gate is not None,
            limited=self.limits.rates.keys(),
        )
        gate = self.gate
        if gate is None:
            return found
        return tuple(replace(one, gated=gate.guards(group=one.group, console=one.console)) for one in found)


def edge_context(
    settings: Settings, release: Release, service_names: ServiceNames = DOCKER_NAMES
) -> EdgeContext:
    """Derive the edge's policies from the settings and the routes from the release."""
    upload = settings.max_upload_megabytes + BODY_OVERHEAD_MEGABYTES
    package = settings.plugins.max_package_megabytes + BODY_OVERHEAD_MEGABYTES
    # None: the server's own size, that of an upload.
    bodies = {
        Body.UPLOAD: None,
        Body.PACKAGE: max(upload, package),
        Body.WEBHOOK: max(upload, WEBHOOK_MEGABYTES + BODY_OVERHEAD_MEGABYTES),
    }
    groups = route_groups.groups()
    origin = urlsplit(settings.public_url)
    names = dict.fromkeys(route.service for route in release.routes)
    return EdgeContext(
        server_names=settings.server_names,
        routes=(
            *(route for group in groups.values() if _on(group, settings) for route in own_routes(group)),
            *(
                EdgeRoute(
                    prefix=route.prefix,
                    group=route.group,
                    service=route.service,
                    max_body_megabytes=bodies[groups[route.group].body],
                )
                for route in release.routes
            ),
        ),
        services=(
            *(
                EdgeService(name=name, port=port_of(name), direct=name == DIRECT, suffix=service_names.suffix)
                for name in names
            ),
            *(
                EdgeService(name=name, port=port, host=GATEWAY, suffix=service_names.suffix)
                for name, port in oauth_services(on=settings.gateway)
            ),
        ),
        cors={
            group: settings.cors.origins(one.cors_as or group)
            for group, one in groups.items()
            if one.cors is not CorsKind.NONE or one.cors_as
        },
        public_scheme=origin.scheme,
        public_port=origin.port or DEFAULT_PORTS[origin.scheme],
        max_body_megabytes=upload,
        limits=edge_limits(
            settings.rate_limits, {**oauth_limits(settings.oauth), **gate_limits(settings.oidc_gate)}
        ),
        ring=_ring(settings),
        trusted_proxies=settings.trusted_proxies,
        proxy_protocol=settings.proxy_protocol,
        console_allow_from=settings.console_allow_from,
        schema_patterns=schema_patterns(release.routes, opened=settings.api_schema),
        passed_headers=tuple(dict.fromkeys((*PASSED, *settings.request_headers))),
        access_log=settings.access_log,
        address_connections=settings.address_connections,
        tls=edge_tls(settings, suffix=service_names.suffix),
        llm=edge_llm(settings.llm, suffix=service_names.suffix),
        resolver=service_names.resolver,
        resolver_fresh_seconds=service_names.fresh_seconds,
        resolver_wait_seconds=service_names.wait_seconds,
        fixed_addresses=service_names.fixed,
        js_module="" if settings.images == "local" else OFFICIAL_JS_MODULE,
        oauth=edge_oauth(settings.oauth),
        gate=edge_gate(settings.oidc_gate),
        error_bodies={**edge_errors.bodies(), **(edge_errors.token_bodies() if settings.oauth else {})},
    )


def _ring(settings: Settings) -> EdgeRing | None:
    """Return the replicas of the edge; None where there is one."""
    replicas = settings.kubernetes.replicas[NGINX] if settings.kubernetes else 1
    return EdgeRing(replicas=replica_names(replicas)) if replicas > 1 else None


def _on(group: RouteGroup, settings: Settings) -> bool:
    """Tell whether the kit serves a group itself, and the settings turn its feature on."""
    return group.own is not None and getattr(settings, group.own.feature) is not None
