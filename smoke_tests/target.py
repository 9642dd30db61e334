"""The target of a run: a stack described by its exports, or an address without further knowledge."""

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from infra.catalogue import route_groups
from infra.catalogue.names import service_name
from infra.catalogue.releases import RELEASES
from infra.catalogue.route_groups import CONSOLE, SERVICE_API, WEB_APP_API
from infra.catalogue.selection import port_of
from infra.settings.kubernetes import KUBERNETES
from infra.settings.origins import DEFAULT_PORTS, host_of
from smoke_tests.client import is_loopback
from smoke_tests.cors import Policy, policy_of
from smoke_tests.exports import TargetError, read_exports
from smoke_tests.gate import Gate
from smoke_tests.limits import RateLimits, read_limits
from smoke_tests.llm import Llm
from smoke_tests.masking import Secret
from smoke_tests.oauth import Access
from smoke_tests.options import KIT, Options
from smoke_tests.resolve import Resolved

# Services that must not reach the data tier, each with one they do reach: the probe must detect an open port.
OUTSIDERS = {
    "sandbox": ("ssrf-proxy", port_of("ssrf-proxy")),
    "local-sandbox": ("agent-ssrf-proxy", port_of("agent-ssrf-proxy")),
    "nginx": ("api", port_of("api")),
}
# The service of the console's sockets.
SOCKETS = "api-websocket"
SANDBOXES = ("sandbox", "local-sandbox")
MEGABYTE = 1024 * 1024
# The edge adds one for what surrounds a file in a form.
OVERHEAD_MEGABYTES = 2
# More than any configurable limit.
HUGE = 10**12


@dataclass(frozen=True, kw_only=True)
class Tls:
    """The TLS settings of a stack's edge; `https_port` is None without TLS."""

    https_port: int | None = None
    redirect: bool = False
    hsts_seconds: int = 0


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """A stack's services, by their references (`infra.engine.runtime`), and its settings."""

    stack: str
    release: str
    stand_in: bool
    containers: Mapping[str, str]
    jobs: Mapping[str, str]
    edge: str
    bind_address: str
    http_port: int
    max_upload_megabytes: int
    callbacks: Mapping[str, str]
    rate_limits: RateLimits
    # Private hosts and networks that squid allows (dify:ssrfAllowPrivate).
    ssrf_allow_private: tuple[str, ...] = ()
    tls: Tls = Tls()
    # Whether the references are names of containers of a Docker engine.
    on_engine: bool = True

    def opened_by(self, hosts: Iterable[str]) -> str:
        """Return the item of dify:ssrfAllowPrivate that matches one of these names and addresses, or an empty text."""
        for item in self.ssrf_allow_private:
            if any(_falls_under(host, item) for host in hosts):
                return item
        return ""


@dataclass(frozen=True, kw_only=True)
class Target:
    """Addresses (origins), the key that opens an app, CORS policies. `deployment` is None for a bare URL.

    `ca` are additional authorities to trust, in PEM.
    """

    url: str
    service_url: str
    console_url: str
    key: Secret | None
    policies: tuple[Policy, ...]
    # The paths below which Dify would describe its API.
    schemas: tuple[str, ...] = ()
    deployment: Deployment | None = None
    # True when the key is the canary's, whose answers are known; an app of another key may answer anything.
    asks_canary: bool = False
    ca: str = ""
    # Whether tokens are verified on /v1; None when unknown.
    verifies_tokens: bool | None = None
    oauth: Access | None = None
    llm: Llm | None = None
    gate: Gate | None = None
    # Of the app whose nodes run in other services, and of the knowledge API.
    nodes_key: Secret | None = None
    dataset_key: Secret | None = None
    # dify:apiSchema serves Dify's API schemas.
    api_schema: bool = False
    # Whether the console has sockets, at /socket.io/; None when unknown.
    has_sockets: bool | None = None
    # The networks that may reach the console (dify:consoleAllowFrom); empty for every address.
    console_allow_from: tuple[str, ...] = ()
    # Whether the kit's edge is in front of Dify, and the addresses of names that DNS does not have yet.
    kit_edge: bool = True
    resolve: Resolved = field(default_factory=dict)

    @property
    def probe(self) -> tuple[str, int]:
        """An address outside the gate that Dify answers with use of its database, and the expected status."""
        if self.hides_console:
            return f"{self.service_url}/v1/parameters", 401
        return f"{self.console_url}/console/api/setup", 200

    @property
    def direct(self) -> bool:
        """Whether connections go to the target itself, without a proxy of the environment variables."""
        return bool(self.resolve) or is_loopback(self.url)

    @property
    def hides_console(self) -> bool:
        """Whether the console may be closed to this machine: by the gate, or by its address."""
        return self.gate is not None or bool(self.console_allow_from)

    @property
    def v1(self) -> Policy:
        """The CORS policy of the service API."""
        return next(policy for policy in self.policies if policy.group == SERVICE_API)

    @property
    def https_origins(self) -> tuple[str, ...]:
        """The origins where the edge terminates TLS; none when a proxy in front of it does."""
        found = dict.fromkeys((self.url, self.service_url, self.console_url))
        if self.deployment and self.deployment.tls.https_port is None:
            return ()
        return tuple(url for url in found if url.startswith("https://"))

    @property
    def plain_url(self) -> str:
        """The edge's plain HTTP origin: port 80 when ports are translated in front of the edge."""
        assert self.deployment is not None
        parts = urlsplit(self.url)
        translated = (parts.port or DEFAULT_PORTS[parts.scheme]) != self.deployment.tls.https_port
        port = DEFAULT_PORTS["http"] if translated else self.deployment.http_port
        return f"http://{host_of(self.url)}" + ("" if port == DEFAULT_PORTS["http"] else f":{port}")

    @property
    def too_large(self) -> int:
        """A body size in bytes that the edge must refuse. The limit of a bare URL is unknown."""
        if self.deployment is None:
            return HUGE
        return (self.deployment.max_upload_megabytes + OVERHEAD_MEGABYTES) * MEGABYTE

    @property
    def title(self) -> str:
        """The target in a line."""
        if self.deployment is None:
            edge = "" if self.kit_edge else ", behind an edge that is not the kit's"
            return f"{self.url}, from outside only{edge}"
        what = "a STAND-IN for Dify" if self.deployment.stand_in else "Dify"
        return f"stack {self.deployment.stack}: {self.url}, {what} {self.deployment.release}"


def _falls_under(host: str, item: str) -> bool:
    """Return whether squid matches a host with an item: a network, a name, or `.name` with all its subdomains."""
    try:
        network = ipaddress.ip_network(item)
    except ValueError:
        return host == item.removeprefix(".") or (item.startswith(".") and host.endswith(item))
    try:
        return ipaddress.ip_address(host) in network
    except ValueError:
        return False


def find_target(options: Options) -> Target:
    """Return what the options name. Raises TargetError when it cannot be found."""
    found = from_outside(options) if options.url else from_exports(read_exports(options.stack), options)
    return replace(found, resolve=options.resolve, kit_edge=options.edge == KIT)


def from_outside(options: Options) -> Target:
    """Return a target of which only the address is known."""
    url = options.url
    return Target(
        url=url,
        service_url=url,
        console_url=url,
        key=options.key,
        ca=options.ca,
        verifies_tokens=True if options.oauth_client else None,
        oauth=_given_client(options, url),
        llm=_llm_from_outside(options),
        gate=Gate(url=url, app_url=url) if options.gated else None,
        nodes_key=options.nodes_key,
        dataset_key=options.dataset_key,
        api_schema=options.api_schema,
        policies=(
            policy_of(SERVICE_API, url=url, allowed=options.allowed_origins, own=url),
            # The origins that console and web app allow are unknown; unrelated ones must be refused.
            *(
                policy_of(group, url=url, allowed=(), own=url, complete=False)
                for group in (CONSOLE, WEB_APP_API)
            ),
        ),
        schemas=_schemas(
            probe.schema for probe in route_groups.probes(next(iter(RELEASES.values())).routes).values()
        ),
    )


def from_exports(exports: Mapping[str, Any], options: Options) -> Target:
    """Return the target that a stack's exports describe. Raises TargetError that names a missing export."""
    url = _get(exports, "publicUrl", str)
    service_url = _get(exports, "serviceApiUrl", str).removesuffix("/v1")
    console_url = _get(exports, "consoleUrl", str)
    key = _get(exports, "canaryKey", str) if exports.get("canary") else None
    groups = _get(exports, "routeGroups", dict)
    tls = _get(exports, "tls", dict)
    return Target(
        url=url,
        service_url=service_url,
        console_url=console_url,
        key=options.key or (Secret(key) if key else None),
        asks_canary=options.key is None and key is not None,
        ca=tls["ca"] + options.ca,
        verifies_tokens=exports.get("oauth") is not None,
        oauth=_oauth_client(exports, options),
        llm=_llm(exports, options),
        gate=_gate(exports, console_url, url),
        nodes_key=options.nodes_key or _secret(exports, "canaryNodesKey"),
        dataset_key=options.dataset_key or _secret(exports, "canaryDatasetKey"),
        # Stacks of earlier versions have no such export and serve schemas as Dify does.
        api_schema=bool(exports.get("apiSchema")),
        has_sockets=SOCKETS in _services(exports, "containers"),
        console_allow_from=tuple(exports.get("consoleAllowFrom") or ()),
        policies=tuple(
            Policy(
                group=group,
                url=_get(facts, "url", str),
                probe_path=_get(facts, "probe", str),
                allowed=tuple(_get(facts, "origins", list)),
                own=url,
                credentials=_get(facts, "credentials", bool),
            )
            for group, facts in groups.items()
        ),
        schemas=_schemas(facts.get("schema") for facts in groups.values()),
        deployment=_deployment(exports),
    )


def _deployment(exports: Mapping[str, Any]) -> Deployment:
    """Return the stack's services and settings."""
    tls = _get(exports, "tls", dict)
    return Deployment(
        on_engine=exports.get("platform") != KUBERNETES,
        stack=_get(exports, "stack", str),
        release=_get(exports, "release", str),
        stand_in=_get(exports, "standIn", bool),
        containers=_services(exports, "containers"),
        jobs=_services(exports, "jobs"),
        edge=_get(exports, "edge", str),
        bind_address=_get(exports, "bindAddress", str),
        # Pulumi's numbers are floats.
        http_port=int(_get(exports, "httpPort", (int, float))),
        max_upload_megabytes=int(_get(exports, "maxUploadMegabytes", (int, float))),
        callbacks=_get(exports, "oauthCallbackUrls", dict),
        rate_limits=read_limits(_get(exports, "rateLimits", dict), exports.get("oauth"), exports.get("llm")),
        ssrf_allow_private=tuple(_get(exports, "ssrfAllowPrivate", list)),
        tls=Tls(
            https_port=None if tls["httpsPort"] is None else int(tls["httpsPort"]),
            redirect=tls["redirect"],
            hsts_seconds=int(tls["hstsSeconds"]),
        ),
    )


def _llm_from_outside(options: Options) -> Llm | None:
    if not options.llm_models:
        return None
    return _checked(
        Llm(
            url=f"{options.url}/llm/v1",
            short_url=f"{options.url}/api/chat",
            models=options.llm_models,
            origins=options.allowed_origins,
            key=options.llm_key,
            chat_model=options.llm_chat,
        )
    )


def _llm(exports: Mapping[str, Any], options: Options) -> Llm | None:
    """Return the LLM proxy that a stack's exports describe; None when it is off."""
    if exports.get("llm") is None:
        if options.llm_chat:
            raise TargetError(
                f"--llm-chat {options.llm_chat}: the LLM proxy is off in this stack (dify:llm.enabled)"
            )
        return None
    exported = _get(exports, "llm", dict)
    url = _get(exported, "url", str)
    return _checked(
        Llm(
            url=url,
            short_url=f"{url.removesuffix('/llm/v1')}/api/chat",
            models=(*_get(exported, "models", list), *_get(exported, "embeddings", list)),
            origins=tuple(_get(exported, "corsOrigins", list)),
            key=options.llm_key,
            chat_model=options.llm_chat,
        )
    )


def _gate(exports: Mapping[str, Any], console_url: str, url: str) -> Gate | None:
    """Return the gate that a stack's exports describe; None when it is off."""
    if exports.get("oidcGate") is None:
        return None
    exported = _get(exports, "oidcGate", dict)
    callbacks = tuple(_get(exported, "callbackUrls", list))
    # The console's comes first, the web app's last.
    app_url = str(callbacks[-1]).removesuffix("/oauth2/callback") if callbacks else url
    return Gate(
        url=console_url,
        app_url=app_url,
        web_app=_get(exported, "webApp", bool),
        client_id=_get(exported, "clientId", str),
        callbacks=callbacks,
    )


def _checked(llm: Llm) -> Llm:
    if llm.chat_model and llm.chat_model not in llm.models:
        raise TargetError(f"--llm-chat {llm.chat_model}: the proxy serves {', '.join(llm.models)}")
    return llm


def _given_client(options: Options, issuer: str) -> Access | None:
    if options.oauth_secret is None:
        return None
    return Access(issuer=issuer, client=options.oauth_client, secret=options.oauth_secret)


def _oauth_client(exports: Mapping[str, Any], options: Options) -> Access | None:
    """Return the OAuth client to use: the given one, or else the stack's canary."""
    if exports.get("oauth") is None:
        if options.oauth_client:
            raise TargetError(
                f"--oauth-client {options.oauth_client}: OAuth is off in this stack (dify:oauth.enabled)"
            )
        return None
    issuer = _get(_get(exports, "oauth", dict), "issuer", str)
    if given := _given_client(options, issuer):
        return given
    canary = exports.get("oauthCanary")
    if not canary:
        return None
    return Access(
        issuer=issuer,
        client=_get(canary, "clientId", str),
        secret=Secret(_get(canary, "clientSecret", str)),
    )


def _secret(exports: Mapping[str, Any], name: str) -> Secret | None:
    """Return an optional key of a stack. Raises TargetError when the deployment should have created it."""
    if name in exports and exports[name] is None:
        return None
    return Secret(_get(exports, name, str))


def _services(exports: Mapping[str, Any], key: str) -> dict[str, str]:
    """Return an export that maps services to their containers. Stacks of earlier versions spell some names with `_`."""
    return {service_name(name): container for name, container in _get(exports, key, dict).items()}


def _get(exports: Mapping[str, Any], name: str, kind: Any) -> Any:  # noqa: ANN401  # JSON, checked here
    value = exports.get(name)
    if not isinstance(value, kind):
        found = "is missing" if value is None else f"is a {type(value).__name__}"
        raise TargetError(
            f"export {name} {found}: the stack was deployed by another version of the kit, or its deployment "
            f"did not finish. Run `make up STACK={exports.get('stack', '...')}`"
        )
    return value


def _schemas(places: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(place for place in places if place is not None)
