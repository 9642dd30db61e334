"""The settings of a stack: the only module that reads Pulumi's configuration.

`load` checks everything before any resource exists. Holding a `Settings` means that the values can work
together; secrets in it are Pulumi secrets and stay out of logs and plain state.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pulumi

from infra.catalogue import addresses, ports, release_file, releases
from infra.catalogue import request_headers as edge_headers
from infra.catalogue.project import ROOT, declared
from infra.catalogue.published_defaults import PUBLISHED_DEFAULTS
from infra.catalogue.releases import (
    DATA_SERVICES,
    GATEWAY,
    GATEWAY_REDIS,
    JOBS,
    LITELLM,
    PARTLY_KNOWN,
    RELEASES,
    VECTOR_STORES,
    WITHOUT_ENVIRONMENT,
    CatalogueError,
    Release,
)
from infra.catalogue.variables import problems
from infra.settings import origins, proxy_keys
from infra.settings.apps import app_file, known_apps
from infra.settings.gate import Gate, GateReader
from infra.settings.llm import KEYS as LLM_KEYS
from infra.settings.llm import Llm, LlmReader
from infra.settings.oauth import Around, OAuth, OAuthReader
from infra.settings.rate_limits import MAX_CONCURRENT, RateLimits, read_rate_limits
from infra.settings.reader import Problems, Section, shown
from infra.settings.secrets import LLM_SECRETS, OAUTH_SECRETS, SECRET_VARIABLES, SHAPES, TLS_SECRETS, Shape
from infra.settings.tls import Surroundings, Tls, TlsReader, mode_of

NAMESPACE = "dify"
IMAGE_MODES = ("registry", "mirror", "preloaded", "local")
ACCESS_LOGS = ("all", "errors", "off")
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
CORS_GROUPS = ("v1", "api", "console", "openapi", "files", "mcp", "triggers", "llm")
# Their answers carry cookies: an origin has to be named, `*` would open them to every page.
CREDENTIALED_GROUPS = ("api", "console")
URL_PARTS = ("console", "app", "service", "files", "trigger", "endpoint")
MAX_MEMORY = 1024 * 1024
MIN_MEMORY = 32
# One worker of LiteLLM has 325 MiB after some load.
MIN_LITELLM_MEMORY = 512
MAX_CPUS = 256.0
MIN_PIDS, MAX_PIDS = 64, 1_000_000
# The stand-in's own variables; nothing else reads them.
STAND_IN_PREFIX = "DIFY_STANDIN_"
_EMAIL = re.compile(r"[^@\s,;<>\"]+@[a-zA-Z0-9.-]+\.[a-zA-Z]{2,}")
MIRROR = re.compile(r"[a-z0-9.-]+(:[0-9]+)?(/[a-z0-9._-]+)*")
REGISTRY_HOST = re.compile(r"[.:]|^localhost$")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_STACK = re.compile(r"[a-z][a-z0-9-]{0,30}")
TEMPLATED = frozenset({"redis", "gateway_redis", "nginx", "ssrf_proxy", "agent_ssrf_proxy"})
# dify:bindAddress for every address of both families: `::` is IPv6 alone.
EVERYWHERE = "*"
ANY_IPV4, ANY_IPV6 = "0.0.0.0", "::"  # noqa: S104  # addresses to compare with
# The most that public networks of a list may add up to, as the prefix of one network, for IPv4 and IPv6. Whoever is in
# trustedProxies can name any client: a large content network has less than this. Who may see the console can be many.
WIDEST = {"trustedProxies": {4: 8, 6: 20}, "consoleAllowFrom": {4: 3, 6: 8}}
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True, kw_only=True)
class Urls:
    """The origins under which Dify's parts are reached, each without a trailing slash."""

    console: str
    app: str
    service: str
    files: str
    trigger: str
    endpoint: str

    @property
    def every(self) -> tuple[str, ...]:
        """All of them, each once."""
        return tuple(dict.fromkeys(getattr(self, part.name) for part in fields(self)))


@dataclass(frozen=True, kw_only=True)
class Cors:
    """Allowed origins by route group; `("*",)` means everyone."""

    groups: Mapping[str, tuple[str, ...]]

    def origins(self, group: str) -> tuple[str, ...]:
        """Return the allowed origins of a group, empty when no other origin may call it."""
        return self.groups.get(group, ())


@dataclass(frozen=True, kw_only=True)
class ServiceLimits:
    """Own limits of a service; None keeps the default. `memory` in MiB, `cpus` in cores, `pids` with threads."""

    memory: int | None = None
    cpus: float | None = None
    pids: int | None = None


@dataclass(frozen=True, kw_only=True)
class Mail:
    """How Dify sends mail; type is empty when it does not."""

    type: str
    sender: str
    server: str
    port: int
    username: str
    tls: bool
    opportunistic_tls: bool


@dataclass(frozen=True, kw_only=True)
class Storage:
    """Where uploads lie: `fs` is the stack's own volume."""

    type: str
    bucket: str
    region: str
    endpoint: str
    access_key: str
    path_style: bool


@dataclass(frozen=True, kw_only=True)
class Login:
    """How people sign in to the console."""

    email_password: bool
    email_code: bool
    social: bool
    allow_register: bool
    allow_create_workspace: bool
    github_client_id: str
    google_client_id: str
    access_token_minutes: int
    refresh_token_days: int
    lockout_seconds: int


@dataclass(frozen=True, kw_only=True)
class OpenApi:
    """Dify's programmatic API."""

    enabled: bool
    oauth_bearer: bool
    rate_per_minute: int


@dataclass(frozen=True, kw_only=True)
class AppLimits:
    """What one app may use. Times in seconds; 0 active requests: no limit."""

    active_requests: int
    execution_seconds: int
    workflow_steps: int
    workflow_seconds: int


@dataclass(frozen=True, kw_only=True)
class Plugins:
    """How plugins are installed and run."""

    verify_signature: bool
    marketplace: bool
    pip_mirror_url: str
    max_package_megabytes: int
    timeout_seconds: int


@dataclass(frozen=True, kw_only=True)
class Telemetry:
    """OpenTelemetry of Dify; an empty endpoint turns it off."""

    otlp_endpoint: str
    sampling_rate: float


@dataclass(frozen=True, kw_only=True)
class Secrets:
    """Every secret, once. Optional ones are None when their feature is off."""

    admin_password: pulumi.Output[str]
    secret_key: pulumi.Output[str]
    init_password: pulumi.Output[str]
    postgres_password: pulumi.Output[str]
    redis_password: pulumi.Output[str]
    sandbox_api_key: pulumi.Output[str]
    plugin_daemon_key: pulumi.Output[str]
    plugin_inner_api_key: pulumi.Output[str]
    vector_store_api_key: pulumi.Output[str]
    agent_server_secret_key: pulumi.Output[str]
    agent_api_token: pulumi.Output[str]
    agent_sandbox_token: pulumi.Output[str]
    gateway_secret: pulumi.Output[str] | None
    mail_password: pulumi.Output[str] | None
    storage_secret_key: pulumi.Output[str] | None
    github_client_secret: pulumi.Output[str] | None
    google_client_secret: pulumi.Output[str] | None


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One stack, fully checked. Field names are the keys of `Pulumi.yaml` in snake case."""

    stack: str
    release: str
    catalogue: Path | None
    images: str
    mirror: str
    image_pins: bool
    public_url: str
    http_port: int
    https_port: int
    bind_address: str
    server_names: tuple[str, ...]
    urls: Urls
    tls: Tls
    cors: Cors
    rate_limits: RateLimits
    llm: Llm | None
    oauth: OAuth | None
    oidc_gate: Gate | None
    trusted_proxies: tuple[str, ...]
    console_allow_from: tuple[str, ...]
    access_log: str
    api_schema: bool
    address_connections: int
    request_headers: tuple[str, ...]
    vector_store: str
    weaviate_version: str
    max_upload_megabytes: int
    apps: tuple[str, ...]
    canary: bool
    canary_knowledge: bool
    admin_email: str
    admin_name: str
    keep_volumes: bool
    templates_dir: Path | None
    extra_env: Mapping[str, Mapping[str, str]]
    resources: Mapping[str, ServiceLimits]
    api_workers: int
    api_worker_connections: int
    celery_workers: int
    postgres_max_connections: int
    log_level: str
    mail: Mail
    storage: Storage
    login: Login
    openapi: OpenApi
    limits: AppLimits
    plugins: Plugins
    sandbox_network: bool
    ssrf_allow_private: tuple[str, ...]
    ssrf_deny: tuple[str, ...]
    telemetry: Telemetry
    check_updates: bool
    secrets: Secrets

    @property
    def dify(self) -> Release:
        """The release's entry of the catalogue, with the version of Weaviate that is set."""
        return releases.catalogue(self.catalogue)[self.release].with_weaviate(self.weaviate_version)

    @property
    def gateway(self) -> bool:
        """Whether the OAuth gateway runs: for tokens, for the gate, or for both."""
        return self.oauth is not None or self.oidc_gate is not None


def addresses_of(bind_address: str) -> tuple[str, ...]:
    """Return the addresses that `dify:bindAddress` stands for."""
    return (ANY_IPV4, ANY_IPV6) if bind_address == EVERYWHERE else (bind_address,)


def snake(key: str) -> str:
    """Return a key of `Pulumi.yaml` as a Python name."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", key).lower()


def load(config: pulumi.Config, stack: str) -> Settings:
    """Read and check the settings of `stack`.

    Raises pulumi.RunError with one line for each problem: key, value, what is wrong, what to do.
    """
    problems = Problems()
    settings = _Reader(_given(config, problems), stack, problems).read()
    if problems.lines:
        listed = "\n".join(f"  - {line}" for line in problems.lines)
        raise pulumi.RunError(f"the settings of stack {stack} cannot work:\n{listed}")
    return settings


def _given(config: pulumi.Config, problems: Problems) -> Section:
    """Collect what the stack sets, with the defaults of Pulumi.yaml behind it."""
    entries = declared()
    every = {**pulumi.runtime.config.get_config_env(), **pulumi.runtime.config.CONFIG.get()}
    values: dict[str, Any] = {}
    for full, text in every.items():
        namespace, _, key = full.partition(":")
        if namespace == config.name:
            hidden = key not in entries and pulumi.runtime.config.is_config_secret(full)
            # An unknown key is shown with its value.
            values[key] = (
                "a secret" if hidden else _parsed(text, str(entries.get(key, {}).get("type", "string")))
            )
    section = Section(problems, values, {key: entry.get("default") for key, entry in entries.items()})
    section.refuse_unknown()
    return section


def _parsed(text: object, kind: str) -> object:
    if kind not in {"array", "object", "boolean", "integer"} or not isinstance(text, str):
        return text
    try:
        return json.loads(text)
    except ValueError:
        # The reader of this key says what it wants instead.
        return text


class _Reader:
    """Reads one stack's settings. Every method reports to the same list of problems."""

    def __init__(self, top: Section, stack: str, problems: Problems) -> None:
        self._top = top
        self._stack = stack
        self._problems = problems
        self._release: Release = RELEASES[next(iter(RELEASES))]

    def read(self) -> Settings:
        """Return the settings; only to be used when no problem was reported."""
        top = self._top
        if not _STACK.fullmatch(self._stack):
            self._problems.lines.append(
                f"stack name {shown(self._stack)}: cannot name containers; use a lower-case letter, then at "
                "most 30 lower-case letters, digits or '-'"
            )
        catalogue = self._catalogue()
        release = self._chosen_release(catalogue)
        images = self._images()
        port = top.integer("httpPort", 1, origins.MAX_PORT)
        tls = self._section("tls")
        tls_mode = mode_of(tls)
        https_port = top.integer("httpsPort", 1, origins.MAX_PORT)
        public_url = (
            self._public_url("http", port) if tls_mode == "off" else self._public_url("https", https_port)
        )
        urls = self._urls(public_url)
        bind_address, hosts = self._bind_address(), self._hosts(urls)
        # Who is on the machine itself may write its name in three ways.
        local = LOOPBACK_NAMES if any(host in LOOPBACK_NAMES for host in hosts) else ()
        server_names = tuple(dict.fromkeys([*hosts, *local]))
        mail, storage, login = self._mail(), self._storage(), self._login()
        limits = self._limits()
        rate_limits = read_rate_limits(self._section("rateLimits"), active_requests=limits.active_requests)
        canary = top.boolean("canary")
        return Settings(
            stack=self._stack,
            release=release,
            catalogue=catalogue,
            images=images,
            mirror=self._mirror(images),
            image_pins=top.boolean("imagePins"),
            public_url=public_url,
            http_port=port,
            https_port=https_port,
            bind_address=bind_address,
            server_names=server_names,
            urls=urls,
            tls=TlsReader(
                tls,
                self._problems,
                self._text_secret,
                Surroundings(
                    stack=self._stack,
                    bind_address=bind_address,
                    http_port=port,
                    https_port=https_port,
                    public_url=public_url,
                    hosts=hosts,
                    names=server_names,
                ),
            ).read(tls_mode),
            cors=self._cors(urls),
            rate_limits=rate_limits,
            llm=self._llm(
                server_names,
                (port, https_port, *map(origins.port_of, urls.every)),
            ),
            oauth=OAuthReader(
                self._section("oauth"),
                self._problems,
                origin=self._origin,
                secret=self._text_secret,
                around=Around(
                    stack=self._stack,
                    # Pulumi reads this one; `dify-kit` makes it a link to where the settings lie.
                    settings_file=ROOT / f"Pulumi.{self._stack}.yaml",
                    public_url=public_url,
                    apps=known_apps(),
                    canary=canary,
                    v1=rate_limits.groups["v1"],
                    active_requests=limits.active_requests,
                ),
            ).read(),
            oidc_gate=GateReader(
                self._section("oidcGate"),
                self._problems,
                secret=self._text_secret,
                console=urls.console,
                app=urls.app,
            ).read(),
            trusted_proxies=self._networks("trustedProxies"),
            console_allow_from=self._networks("consoleAllowFrom"),
            access_log=top.choice("accessLog", ACCESS_LOGS),
            api_schema=top.boolean("apiSchema"),
            address_connections=top.integer("addressConnections", 0, MAX_CONCURRENT),
            request_headers=self._request_headers(),
            vector_store=self._vector_store(images),
            weaviate_version=self._weaviate_version(),
            max_upload_megabytes=top.integer("maxUploadMegabytes", 1, 10240),
            apps=self._apps(),
            canary=canary,
            canary_knowledge=top.boolean("canaryKnowledge"),
            admin_email=self._admin_email(),
            admin_name=self._filled("adminName", "name the admin"),
            keep_volumes=top.boolean("keepVolumes"),
            templates_dir=self._templates_dir(),
            extra_env=self._extra_env(),
            resources=self._resources(),
            api_workers=top.integer("apiWorkers", 1, 64),
            api_worker_connections=top.integer("apiWorkerConnections", 1, 10000),
            celery_workers=top.integer("celeryWorkers", 1, 64),
            postgres_max_connections=top.integer("postgresMaxConnections", 20, 10000),
            log_level=top.choice("logLevel", LOG_LEVELS),
            mail=mail,
            storage=storage,
            login=login,
            openapi=self._openapi(),
            limits=limits,
            plugins=self._plugins(),
            sandbox_network=top.boolean("sandboxNetwork"),
            ssrf_allow_private=self._ssrf_allow_private(),
            ssrf_deny=self._ssrf_deny(),
            telemetry=self._telemetry(),
            check_updates=top.boolean("checkUpdates"),
            secrets=self._secrets(mail, storage, login),
        )

    def _llm(self, names: tuple[str, ...], own_ports: tuple[int, ...]) -> Llm | None:
        llm = LlmReader(
            self._section("llm"),
            self._top.mapping(LLM_KEYS),
            self._problems,
            self._check_encrypted,
            secret=self._text_secret,
            issued=lambda: proxy_keys.read(
                proxy_keys.file_of(ROOT / f"Pulumi.{self._stack}.yaml", self._stack)
            ),
        ).read()
        own_hosts = {f"dify-{self._stack}-nginx", "nginx"}
        own = {(name, port) for name in names for port in own_ports}
        # 127.0.0.1 is nginx's own container to it, where the proxy listens too.
        own |= {(name, port) for name in LOOPBACK_NAMES for port in (*own_ports, *ports.EDGE)}
        for upstream in llm.upstreams if llm else ():
            problem = addresses.destination_problem(upstream.host)
            if upstream.host in own_hosts or (upstream.host, upstream.port) in own:
                problem = "the proxy itself, which would ask itself"
            if problem:
                self._problems.add(
                    f"llm.upstreams.{upstream.name}.baseUrl",
                    upstream.base_url,
                    problem,
                    "use the URL below which another server's /chat/completions lies",
                )
        return llm

    def _filled(self, key: str, fix: str) -> str:
        value = self._top.text(key)
        if not value.strip():
            self._problems.add(key, value, "is empty", fix)
        return value

    def _section(self, key: str) -> Section:
        return self._top.section(key, self._top.defaults[key])

    def _images(self) -> str:
        if not self._top.raw("images"):
            self._problems.lines.append(
                f"dify:images: not set; run `dify-kit init {self._stack}`, or use one of "
                f"{', '.join(IMAGE_MODES)}"
            )
            return IMAGE_MODES[0]
        return self._top.choice("images", IMAGE_MODES)

    def _mirror(self, images: str) -> str:
        mirror = self._top.text("mirror")
        if images == "mirror" and not MIRROR.fullmatch(mirror):
            self._problems.add(
                "mirror",
                mirror,
                "no registry prefix",
                "use host[:port][/path] in lower case, without a scheme",
            )
        elif images == "mirror" and not REGISTRY_HOST.search(mirror.partition("/")[0]):
            self._problems.add(
                "mirror",
                mirror,
                "no registry: Docker takes a name without dot and port for a repository of Docker Hub",
                "write the host with its domain or its port, such as registry:443/dify",
            )
        elif images != "mirror" and mirror:
            self._problems.add(
                "mirror", mirror, f"not used by dify:images {images}", "set dify:images to mirror"
            )
        return mirror

    def _origin(self, key: str, origin: str) -> str:
        if problem := origins.origin_problem(origin):
            self._problems.add(
                key, origin, problem, "use scheme://host[:port], such as https://dify.example.com"
            )
            return "http://invalid.example"
        return origin

    def _public_url(self, scheme: str, port: int) -> str:
        given = self._top.text("publicUrl")
        if given:
            return self._origin("publicUrl", given)
        return f"{scheme}://localhost" + ("" if port == origins.DEFAULT_PORTS[scheme] else f":{port}")

    def _urls(self, public_url: str) -> Urls:
        section = self._top.section("urls", dict.fromkeys(URL_PARTS, ""))
        found = {
            part: self._origin(section.key(part), section.text(part)) if section.text(part) else public_url
            for part in URL_PARTS
        }
        schemes = {url.partition(":")[0] for url in found.values()}
        if len(schemes) > 1:
            self._problems.add(
                "urls",
                ", ".join(sorted(set(found.values()))),
                "http and https mixed: Dify's cookies would be lost between them",
                "give publicUrl and all of urls the same scheme",
            )
        return Urls(**found)

    def _bind_address(self) -> str:
        address = self._top.text("bindAddress")
        if address != EVERYWHERE and (problem := addresses.bind_problem(address)):
            self._problems.add(
                "bindAddress",
                address,
                problem,
                f"use an address of the engine's machine: 127.0.0.1, 0.0.0.0 for all of IPv4, :: for all of IPv6, "
                f"{EVERYWHERE} for both",
            )
        return address

    def _hosts(self, urls: Urls) -> tuple[str, ...]:
        """Return the hosts under which people reach the stack, by origin and by `serverNames`."""
        names = [origins.host_of(getattr(urls, part.name)) for part in fields(urls)]
        for name in self._top.texts("serverNames"):
            if problem := origins.host_problem(name):
                self._problems.add("serverNames", name, problem, "use a host name such as dify.example.com")
                continue
            names.append(name)
        return tuple(dict.fromkeys(names))

    def _cors(self, urls: Urls) -> Cors:
        section = self._top.section("cors", {group: [] for group in CORS_GROUPS})
        groups = {group: self._cors_group(section, group) for group in CORS_GROUPS}
        groups["console"] = tuple(dict.fromkeys((urls.console, *groups["console"])))
        groups["api"] = tuple(dict.fromkeys((urls.app, *groups["api"])))
        return Cors(groups=groups)

    def _cors_group(self, section: Section, group: str) -> tuple[str, ...]:
        listed = section.texts(group)
        if "*" in listed:
            if group in CREDENTIALED_GROUPS:
                self._problems.add(
                    section.key(group), "*", "these routes carry cookies", "list the origins one by one"
                )
                return ()
            if len(listed) > 1:
                self._problems.add(
                    section.key(group),
                    ", ".join(listed),
                    "* already allows everyone",
                    "list * alone, or origins",
                )
            return ("*",)
        return tuple(self._origin(section.key(group), origin) for origin in listed)

    def _networks(self, key: str) -> tuple[str, ...]:
        """Read addresses of networks. Those that hold everybody, together or alone, are no list of somebody."""
        listed = self._top.texts(key)
        for item in listed:
            if problem := addresses.clients_problem(item):
                self._problems.add(
                    key,
                    item,
                    problem,
                    "use an address or CIDR whose host bits are 0, such as 10.1.2.0/24, of the networks that you mean",
                )
        if family := addresses.too_wide(listed, WIDEST[key]):
            self._problems.add(
                key,
                ", ".join(listed),
                f"together they hold too much of {family}: public networks as large as "
                f"/{WIDEST[key][int(family[-1])]} at most",
                "name the networks that you mean",
            )
        return listed

    def _request_headers(self) -> tuple[str, ...]:
        listed = self._top.texts("requestHeaders")
        for name in listed:
            if problem := edge_headers.name_problem(name):
                self._problems.add(
                    "requestHeaders", name, problem, "name a header of your clients, such as X-Session-Token"
                )
        return listed

    def _vector_store(self, images: str) -> str:
        stores = tuple(sorted(VECTOR_STORES))
        store = self._top.choice("vectorStore", stores)
        if images == "local" and store != "pgvector":
            self._problems.add(
                "vectorStore", store, "cannot be built on this machine (dify:images local)", "use pgvector"
            )
        return store

    def _weaviate_version(self) -> str:
        """Return the rung of the ladder that the vector store stands on; empty for the release's own version."""
        version = self._top.text("weaviateVersion")
        if not version:
            return ""
        known = (*RELEASES.values(), self._release)
        rungs = dict.fromkeys(tag for release in known for tag in release.weaviate_ladder)
        rungs[self._release.images["weaviate"].tag] = None
        if version not in rungs:
            self._problems.add(
                "weaviateVersion", version, "no rung of the ladder", f"use one of {', '.join(rungs)}"
            )
        elif self._top.raw("vectorStore") != "weaviate":
            self._problems.add("weaviateVersion", version, "another vector store is chosen", "remove it")
        return version

    def _apps(self) -> tuple[str, ...]:
        apps = self._top.texts("apps")
        for app in apps:
            if app not in known_apps() or not app_file(app).is_file():
                self._problems.add(
                    "apps", app, "no such file in apps/", f"use any of: {', '.join(known_apps())}"
                )
        return apps

    def _admin_email(self) -> str:
        email = self._top.text("adminEmail")
        if not _EMAIL.fullmatch(email):
            self._problems.add(
                "adminEmail", email, "no e-mail address", "use an address such as you@example.com"
            )
        return email

    def _templates_dir(self) -> Path | None:
        given = self._top.text("templatesDir")
        if not given:
            return None
        path = Path(given).expanduser()
        if not path.is_absolute() or not path.is_dir():
            self._problems.add("templatesDir", given, "no directory", "use the absolute path of a directory")
        return path

    def _catalogue(self) -> Path | None:
        given = self._top.text("catalogue")
        if not given:
            return None
        path = Path(given).expanduser()
        if not path.is_absolute() or not path.is_dir():
            self._problems.add("catalogue", given, "no directory", "use the absolute path of a directory")
            return None
        try:
            releases.catalogue(path)
        except CatalogueError as problem:
            self._problems.add(
                "catalogue", given, str(problem), "`dify-kit release check FILE` checks a file"
            )
            return None
        return path

    def _chosen_release(self, catalogue: Path | None) -> str:
        """Return the release's version; a file of the operator's own is checked down to each value first."""
        known = releases.catalogue(catalogue)
        # The kit's own come first: what takes the place of a wrong choice can be read.
        version = self._top.choice("release", tuple(dict.fromkeys([*RELEASES, *known])))
        file = catalogue / f"{version}.yaml" if catalogue else None
        if file and file.is_file():
            wrong = release_file.problems(file)
            for line in wrong:
                self._problems.add(
                    "release", version, line, f"correct {file.name}; `dify-kit release check {file}`"
                )
            if wrong:
                return version
        self._release = known[version]
        return version

    def _known_services(self) -> set[str]:
        return {
            *self._release.services,
            *DATA_SERVICES,
            *JOBS,
            *VECTOR_STORES,
            GATEWAY,
            GATEWAY_REDIS,
            LITELLM,
        }

    def _service(self, key: str, service: str, value: object) -> bool:
        known = self._known_services()
        if service in known:
            return True
        self._problems.add(
            f"{key}.{service}",
            value,
            f"Dify {self._release.version} has no such service",
            f"use one of {', '.join(sorted(known))}",
        )
        return False

    def _without_env(self, service: str) -> str:
        takers = ", ".join(sorted(self._known_services() - WITHOUT_ENVIRONMENT))
        templates = " or shadow its template with dify:templatesDir" if service in TEMPLATED else ""
        return f"use one of {takers}{templates}"

    def _extra_env(self) -> dict[str, dict[str, str]]:
        result: dict[str, dict[str, str]] = {}
        for service, variables in self._top.mapping("extraEnv").items():
            if not self._service("extraEnv", service, variables):
                continue
            if service in WITHOUT_ENVIRONMENT:
                self._problems.add(
                    f"extraEnv.{service}",
                    variables,
                    "this service reads no variables",
                    self._without_env(service),
                )
                continue
            section = Section(
                self._problems, variables if isinstance(variables, dict) else {}, {}, f"extraEnv.{service}."
            )
            if not isinstance(variables, dict):
                self._problems.add(f"extraEnv.{service}", variables, "not an object", "use {NAME: value}")
            for name in section.values:
                if not _VARIABLE.fullmatch(name):
                    self._problems.add(
                        section.key(name), name, "no variable name", "use letters, digits and _"
                    )
                if setting := SECRET_VARIABLES.get(name):
                    self._problems.add_secret(
                        section.key(name), "comes from a setting", f"set dify:{setting} instead"
                    )
            result[service] = {name: section.text(name) for name in section.values}
            self._check_variables(service, result[service])
        return result

    def _check_variables(self, service: str, given: Mapping[str, str]) -> None:
        """Report names that the service of this release does not read, and values that end its start."""
        known = self._release.variables(service)
        if not known:
            return
        of_dify = {name: value for name, value in given.items() if not name.startswith(STAND_IN_PREFIX)}
        found = problems(known, of_dify, complete=service not in PARTLY_KNOWN)
        for name, words in found.items():
            key, version = f"extraEnv.{service}.{name}", self._release.version
            if name in known:
                self._problems.add(key, given[name], words, f"use a value that Dify {version} takes")
            elif _VARIABLE.fullmatch(name):
                self._problems.add(
                    key, name, words, f"Dify {version} reads none of that name: correct or remove it"
                )

    def _resources(self) -> dict[str, ServiceLimits]:
        result = {}
        for service, value in self._top.mapping("resources").items():
            if not self._service("resources", service, value):
                continue
            section = Section(
                self._problems,
                value if isinstance(value, dict) else {},
                {"memory": None, "cpus": None, "pids": None},
                f"resources.{service}.",
            )
            if not isinstance(value, dict):
                self._problems.add(
                    f"resources.{service}",
                    value,
                    "not an object",
                    "use {memory: MiB, cpus: cores, pids: processes}",
                )
            section.refuse_unknown()
            memory, cpus, pids = (section.raw(part) for part in ("memory", "cpus", "pids"))
            least = MIN_LITELLM_MEMORY if service == LITELLM else MIN_MEMORY
            result[service] = ServiceLimits(
                memory=None if memory is None else section.integer("memory", least, MAX_MEMORY),
                cpus=None if cpus is None else section.number("cpus", 0.1, MAX_CPUS),
                pids=None if pids is None else section.integer("pids", MIN_PIDS, MAX_PIDS),
            )
        return result

    def _mail(self) -> Mail:
        section = self._section("mail")
        mail = Mail(
            type=section.choice("type", ("", "smtp", "resend", "sendgrid")),
            sender=section.text("from"),
            server=section.text("server"),
            port=section.integer("port", 1, origins.MAX_PORT),
            username=section.text("username"),
            tls=section.boolean("tls"),
            opportunistic_tls=section.boolean("opportunisticTls"),
        )
        if mail.type == "smtp" and not mail.server:
            self._problems.add(
                "mail.server", mail.server, "is empty", "name the SMTP server, or clear mail.type"
            )
        if mail.type and not _EMAIL.search(mail.sender):
            self._problems.add("mail.from", mail.sender, "no e-mail address", "name the sender")
        if mail.opportunistic_tls and not mail.tls:
            self._problems.add("mail.opportunisticTls", "true", "needs mail.tls", "set mail.tls to true")
        return mail

    def _storage(self) -> Storage:
        section = self._section("storage")
        storage = Storage(
            type=section.choice("type", ("fs", "s3")),
            bucket=section.text("bucket"),
            region=section.text("region"),
            endpoint=section.text("endpoint"),
            access_key=section.text("accessKey"),
            path_style=section.boolean("pathStyle"),
        )
        if storage.type == "s3":
            for part, value in (("bucket", storage.bucket), ("accessKey", storage.access_key)):
                if not value:
                    self._problems.add(
                        f"storage.{part}", value, "is empty, and s3 needs it", "set it, or storage.type to fs"
                    )
            if storage.endpoint:
                self._origin("storage.endpoint", storage.endpoint)
        return storage

    def _login(self) -> Login:
        section = self._section("login")
        login = Login(
            email_password=section.boolean("emailPassword"),
            email_code=section.boolean("emailCode"),
            social=section.boolean("social"),
            allow_register=section.boolean("allowRegister"),
            allow_create_workspace=section.boolean("allowCreateWorkspace"),
            github_client_id=section.text("githubClientId"),
            google_client_id=section.text("googleClientId"),
            access_token_minutes=section.integer("accessTokenMinutes", 1, 1440),
            refresh_token_days=section.integer("refreshTokenDays", 1, 365),
            lockout_seconds=section.integer("lockoutSeconds", 60, 604800),
        )
        providers = login.github_client_id or login.google_client_id
        if login.social and not providers:
            self._problems.add(
                "login.social", "true", "no provider", "set login.githubClientId or login.googleClientId"
            )
        if providers and not login.social:
            self._problems.add("login.social", "false", "a client id is set", "set login.social to true")
        if not (login.email_password or login.email_code or login.social):
            self._problems.add("login", "all off", "nobody could sign in", "turn one way to sign in on")
        return login

    def _openapi(self) -> OpenApi:
        section = self._section("openapi")
        openapi = OpenApi(
            enabled=section.boolean("enabled"),
            oauth_bearer=section.boolean("oauthBearer"),
            rate_per_minute=section.integer("ratePerMinute", 1, 100000),
        )
        if openapi.enabled and not any(route.group == "openapi" for route in self._release.routes):
            self._problems.add(
                "openapi.enabled", "true", f"Dify {self._release.version} has no /openapi", "set it to false"
            )
        return openapi

    def _limits(self) -> AppLimits:
        section = self._section("limits")
        return AppLimits(
            active_requests=section.integer("activeRequests", 0, 100000),
            execution_seconds=section.integer("executionSeconds", 1, 86400),
            workflow_steps=section.integer("workflowSteps", 1, 100000),
            workflow_seconds=section.integer("workflowSeconds", 1, 86400),
        )

    def _plugins(self) -> Plugins:
        section = self._section("plugins")
        mirror = section.text("pipMirrorUrl")
        if mirror and not re.fullmatch(r"https?://[^\s\"']+", mirror):
            self._problems.add("plugins.pipMirrorUrl", mirror, "no URL", "use http:// or https:// and a host")
        return Plugins(
            verify_signature=section.boolean("verifySignature"),
            marketplace=section.boolean("marketplace"),
            pip_mirror_url=mirror,
            max_package_megabytes=section.integer("maxPackageMegabytes", 1, 10240),
            timeout_seconds=section.integer("timeoutSeconds", 10, 86400),
        )

    def _ssrf_allow_private(self) -> tuple[str, ...]:
        listed = self._top.texts("ssrfAllowPrivate")
        for item in listed:
            if problem := self._allowed_problem(item):
                self._problems.add(
                    "ssrfAllowPrivate", item, problem, "use a private network (10.1.2.0/24) or wiki.internal"
                )
        return listed

    def _allowed_problem(self, item: str) -> str:
        if item[:1].isdigit() or ":" in item:
            return addresses.allowed_problem(item)
        name = item.removeprefix(".")
        if origins.host_problem(name) or not item.isascii():
            return "neither network nor host name"
        if name in self._known_services() or name == "localhost":
            return "a service of the stack itself"
        return addresses.destination_problem(name)

    def _ssrf_deny(self) -> tuple[str, ...]:
        listed = self._top.texts("ssrfDeny")
        for item in listed:
            network = addresses.network_of(item)
            if network is None or network.prefixlen == 0:
                problem = "no network" if network is None else "nothing could be reached any more"
                self._problems.add("ssrfDeny", item, problem, "use an address or CIDR such as 203.0.113.0/24")
        return listed

    def _telemetry(self) -> Telemetry:
        section = self._section("telemetry")
        endpoint = section.text("otlpEndpoint")
        if endpoint and not re.fullmatch(r"https?://[^\s\"']+", endpoint):
            self._problems.add(
                "telemetry.otlpEndpoint", endpoint, "no URL", "use http:// or https:// and a host"
            )
        return Telemetry(otlp_endpoint=endpoint, sampling_rate=section.number("samplingRate", 0.0, 1.0))

    def _secrets(self, mail: Mail, storage: Storage, login: Login) -> Secrets:
        needed: dict[str, bool] = {
            "gatewaySecret": any(
                self._top.mapping(part).get("enabled") in {True, "true"} for part in ("oauth", "oidcGate")
            ),
            "mailPassword": mail.type in {"resend", "sendgrid"} or bool(mail.username),
            "storageSecretKey": storage.type == "s3",
            "githubClientSecret": bool(login.github_client_id),
            "googleClientSecret": bool(login.google_client_id),
        }
        read: Callable[[str], pulumi.Output[str] | None] = lambda key: self._secret(  # noqa: E731  # one line, one use
            key, SHAPES[key], required=needed.get(key, True)
        )
        found = {
            snake(key): read(key) for key in SHAPES if key not in TLS_SECRETS | OAUTH_SECRETS | LLM_SECRETS
        }
        return Secrets(**found)  # type: ignore[arg-type]  # a missing required one was reported: load raises

    def _text_secret(self, key: str, *, required: bool) -> str:
        """Return the text of a secret that is read here and not handed to a service as it is."""
        shape = SHAPES.get(key)
        value = self._top.text(key) if shape else self._pem(key)
        if not value:
            if required:
                fix = (
                    f"`{shape.command or f'openssl rand -hex 32 | pulumi config set --secret dify:{key}'}`"
                    if shape
                    else f"`pulumi config set --secret dify:{key} < file.pem`, or choose another dify:tls.mode"
                )
                self._problems.add_secret(key, "the secret is not set", fix)
            return ""
        self._check_encrypted(key)
        if shape and (problem := shape.problem(value)):
            self._problems.add_secret(key, problem, shape.fix)
        return value

    def _pem(self, key: str) -> str:
        """Read text of several lines."""
        value = self._top.raw(key)
        return value.strip() + "\n" if isinstance(value, str) and value.strip() else ""

    def _check_encrypted(self, key: str) -> None:
        if not pulumi.runtime.config.is_config_secret(f"{NAMESPACE}:{key}"):
            self._problems.add_secret(
                key, "is stored in plain text", f"set it again: `pulumi config set --secret dify:{key}`"
            )

    def _secret(self, key: str, shape: Shape, *, required: bool) -> pulumi.Output[str] | None:
        value = self._top.text(key)
        if value:
            self._check_encrypted(key)
        if not value:
            if required:
                fix = f"run `dify-kit init {self._stack}`" if shape.generate else "set it with `--secret`"
                if shape.command:
                    fix = f"`dify-kit up` makes it, or run `{shape.command}`"
                self._problems.add_secret(key, "the secret is not set", fix)
            return None
        if value in PUBLISHED_DEFAULTS:
            self._problems.add_secret(
                key, "is the value that upstream publishes", "everybody knows it: generate another one"
            )
        elif problem := shape.problem(value):
            self._problems.add_secret(key, problem, shape.fix)
        return pulumi.Output.secret(value)
