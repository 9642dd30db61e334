"""The settings of a stack: reading and checking all of them.

`read` takes what is given and checks everything before any resource exists. A `Settings` without problems can work;
secrets in it are Pulumi secrets and stay out of logs and plain state.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from infra.catalogue import data_services, releases
from infra.catalogue.checks import shown
from infra.catalogue.project import ROOT, STACK_NAME, STACK_NAME_RULE
from infra.catalogue.releases import Release
from infra.catalogue.route_groups import SERVICE_API
from infra.catalogue.selection import known
from infra.settings import origins, proxy_keys
from infra.settings.admin import read_admin_email, read_admin_name
from infra.settings.backups import BackupPlan, read_backup
from infra.settings.chosen_release import (
    read_catalogue,
    read_release,
    read_vector_store,
    read_weaviate_version,
)
from infra.settings.dify import (
    AppLimits,
    Login,
    Mail,
    OpenApi,
    Plugins,
    Retention,
    Storage,
    Telemetry,
    read_app_limits,
    read_login,
    read_mail,
    read_openapi,
    read_plugins,
    read_retention,
    read_storage,
    read_telemetry,
)
from infra.settings.external_data import Database, Redis, read_database, read_redis
from infra.settings.gate import Gate, GateReader
from infra.settings.given import NAMESPACE, Given
from infra.settings.image_source import read_images, read_mirror
from infra.settings.kubernetes import KUBERNETES, Kubernetes, KubernetesReader, read_platform
from infra.settings.kubernetes import Around as AroundKubernetes
from infra.settings.llm import Llm
from infra.settings.model_providers import LLM, ModelProviders, ModelProvidersReader
from infra.settings.network import (
    LOOPBACK_NAMES,
    read_address_connections,
    read_bind_address,
    read_networks,
    read_proxy_protocol,
    read_request_headers,
    read_ssrf_allow_private,
    read_ssrf_deny,
)
from infra.settings.oauth import Around, OAuth, OAuthReader
from infra.settings.outbound import Outbound, read_outbound
from infra.settings.own_apps import read_apps, read_apps_dir, report_without_model
from infra.settings.own_upstreams import read_llm
from infra.settings.protection import read_protect
from infra.settings.rate_limits import RateLimits, read_rate_limits
from infra.settings.reader import Problems, Section
from infra.settings.rotations import read_rotations
from infra.settings.routes import Surroundings as AroundRoutes
from infra.settings.service_settings import ServiceLimits, read_extra_env, read_resources
from infra.settings.stack_secrets import SecretReader, Secrets, withhold
from infra.settings.templates_dir import read_templates_dir
from infra.settings.tls import Surroundings, Tls, TlsReader, mode_of
from infra.settings.urls import Cors, Urls, read_cors, read_hosts, read_origin, read_public_url, read_urls
from infra.settings.vector_server import VectorServer, is_outside, read_vector_server

if TYPE_CHECKING:
    import pulumi

ACCESS_LOGS = ("all", "errors", "off")
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One stack, fully checked. Field names are the keys of `Pulumi.yaml` in snake case."""

    stack: str
    release: str
    catalogue: Path | None
    images: str
    mirror: str
    image_pins: bool
    platform: str
    kubernetes: Kubernetes | None
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
    model_providers: ModelProviders
    oauth: OAuth | None
    oidc_gate: Gate | None
    trusted_proxies: tuple[str, ...]
    proxy_protocol: bool
    console_allow_from: tuple[str, ...]
    access_log: str
    api_schema: bool
    address_connections: int
    request_headers: tuple[str, ...]
    vector_store: str
    weaviate_version: str
    max_upload_megabytes: int
    apps: tuple[str, ...]
    apps_dir: Path | None
    canary: bool
    canary_knowledge: bool
    admin_email: str
    admin_name: str
    keep_volumes: bool
    protect: bool
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
    retention: Retention
    backup: BackupPlan | None
    plugins: Plugins
    sandbox_network: bool
    ssrf_allow_private: tuple[str, ...]
    ssrf_deny: tuple[str, ...]
    telemetry: Telemetry
    outbound: Outbound | None
    database: Database | None
    redis: Redis | None
    vector_server: VectorServer | None
    check_updates: bool
    secret_rotations: Mapping[str, int]
    secrets: Secrets

    @property
    def dify(self) -> Release:
        """The release's entry of the catalogue, with the version of Weaviate that is set."""
        return releases.catalogue(self.catalogue)[self.release].with_weaviate(self.weaviate_version)

    @property
    def external_services(self) -> frozenset[str]:
        """The services of the catalogue that the stack does not run, because it uses a server outside of it."""
        found = {
            data_services.DATABASE: self.database,
            data_services.REDIS: self.redis,
            self.vector_store: self.vector_server,
        }
        return frozenset(name for name, server in found.items() if server is not None)

    @property
    def own_vector_store(self) -> str:
        """The vector store that the stack runs; empty where it is a server outside of it."""
        return "" if self.vector_server else self.vector_store

    @property
    def gateway(self) -> bool:
        """Whether the OAuth gateway runs: for tokens, for the gate, or for both."""
        return self.oauth is not None or self.oidc_gate is not None


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What reading found. `settings` can work only without `problems`: harmless values take the place of wrong ones."""

    settings: Settings
    problems: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    @property
    def message(self) -> str:
        """All problems, one a line."""
        listed = "\n".join(f"  - {line}" for line in self.problems)
        return f"the settings of stack {self.settings.stack} cannot work:\n{listed}"

    def sound(self, *keys: str) -> bool:
        """Whether no problem is about one of these settings of `Pulumi.yaml`."""
        wrong = tuple(f"{NAMESPACE}:{key}{end}" for key in keys for end in (":", ".", "["))
        return not any(line.startswith(wrong) for line in self.problems)


def read(
    given: Given,
    stack: str,
    *,
    settings_file: Path | None = None,
    conceal: Callable[[str], "pulumi.Output[str]"] = withhold,
) -> Reading:
    """Read and check the settings of `stack`.

    `settings_file` is the stack's file, next to which its clients and issued keys are (default: where Pulumi looks for
    it). `conceal` makes Pulumi's secret of a text; by default secrets are checked and left out of the settings.
    """
    problems = Problems(stack=stack)
    top = given.top(problems)
    top.refuse_unknown()
    secrets = SecretReader(top, stack, given.encrypted, conceal)
    # Pulumi reads this file; `dify-kit` makes it a link to where the settings are.
    file = settings_file or ROOT / f"Pulumi.{stack}.yaml"
    settings = _read(top, secrets, stack, file)
    return Reading(settings=settings, problems=tuple(problems.lines), warnings=tuple(problems.warnings))


def _read(top: Section, secrets: SecretReader, stack: str, file: Path) -> Settings:
    """Return the settings; only to be used when no problem was reported."""
    problems = top.problems
    if not STACK_NAME.fullmatch(stack):
        problems.lines.append(f"stack name {shown(stack)}: cannot name containers; use {STACK_NAME_RULE}")
    catalogue = read_catalogue(top)
    version, release = read_release(top, catalogue)
    images = read_images(top, stack)
    port = top.integer("httpPort", 1, origins.MAX_PORT)
    tls = top.part("tls")
    tls_mode, platform = mode_of(tls), read_platform(top)
    https_port = top.integer("httpsPort", 1, origins.MAX_PORT)
    public_url = (
        read_public_url(top, "http", port) if tls_mode == "off" else read_public_url(top, "https", https_port)
    )
    urls = read_urls(top, public_url)
    bind_address, hosts = read_bind_address(top), read_hosts(top, urls)
    # Clients on the machine itself use three names for it.
    local = LOOPBACK_NAMES if any(host in LOOPBACK_NAMES for host in hosts) else ()
    server_names = tuple(dict.fromkeys([*hosts, *local]))
    mail, storage, login = read_mail(top), read_storage(top), read_login(top)
    limits = read_app_limits(top)
    rate_limits = read_rate_limits(top.part("rateLimits"), active_requests=limits.active_requests)
    canary, apps_dir = top.boolean("canary"), read_apps_dir(top)
    outbound = read_outbound(top.part("outbound"), secrets)
    tls_settings = TlsReader(
        tls,
        problems,
        secrets,
        Surroundings(
            stack=stack,
            bind_address=bind_address,
            http_port=port,
            https_port=https_port,
            public_url=public_url,
            hosts=hosts,
            names=server_names,
            cluster=platform == KUBERNETES,
        ),
    ).read(tls_mode)
    oauth = OAuthReader(
        top.part("oauth"),
        problems,
        origin=partial(read_origin, top),
        secrets=secrets,
        around=Around(
            stack=stack,
            settings_file=file,
            public_url=public_url,
            apps_dir=apps_dir,
            canary=canary,
            v1=rate_limits.groups[SERVICE_API],
            active_requests=limits.active_requests,
        ),
    ).read()
    gate = GateReader(
        top.part("oidcGate"), problems, secrets=secrets, console=urls.console, app=urls.app
    ).read()
    plugins = read_plugins(top)
    dify_key = secrets.text(proxy_keys.DIFY_KEY, required=False)
    llm = read_llm(
        top,
        secrets,
        lambda: (*proxy_keys.read(proxy_keys.file_of(file, stack)), *proxy_keys.of_dify(dify_key)),
        stack=stack,
        names=server_names,
        own_ports=(port, https_port, *map(origins.port_of, urls.every)),
        outbound=outbound,
    )
    database, vectors = read_database(top.part("database"), secrets), top.part("vectorServer")
    store = read_vector_store(top, images, outside=is_outside(top))
    keep = top.boolean("keepVolumes")
    resources, networks = read_resources(top, release), read_networks(top, "consoleAllowFrom")
    trusted = read_networks(top, "trustedProxies")
    proxied = read_proxy_protocol(top, trusted)
    surroundings = AroundKubernetes(
        stack=stack,
        tls_mode=tls_mode,
        images=images,
        gateway=oauth is not None or gate is not None,
        console_allow_from=networks,
        resources=resources,
        proxy_protocol=proxied,
        routes=AroundRoutes.of(public_url, urls, trusted, tls_mode, proxied=proxied),
    )
    kubernetes = KubernetesReader(top, surroundings).read() if platform == KUBERNETES else None
    models = ModelProvidersReader(top, secrets=secrets, llm=llm, plugins=plugins, dify_key=dify_key).read()
    apps = read_apps(top, apps_dir)
    if LLM not in models.defaults:
        report_without_model(
            top, (*apps, *(tenant.app for tenant in (oauth.tenants if oauth else ()))), apps_dir
        )
    return Settings(
        stack=stack,
        release=version,
        catalogue=catalogue,
        images=images,
        mirror=read_mirror(top, images),
        image_pins=top.boolean("imagePins"),
        platform=platform,
        kubernetes=kubernetes,
        public_url=public_url,
        http_port=port,
        https_port=https_port,
        bind_address=bind_address,
        server_names=server_names,
        urls=urls,
        tls=tls_settings,
        cors=read_cors(top, urls),
        rate_limits=rate_limits,
        llm=llm,
        model_providers=models,
        oauth=oauth,
        oidc_gate=gate,
        trusted_proxies=trusted,
        proxy_protocol=proxied,
        console_allow_from=networks,
        access_log=top.choice("accessLog", ACCESS_LOGS),
        api_schema=top.boolean("apiSchema"),
        address_connections=read_address_connections(top),
        request_headers=read_request_headers(top),
        vector_store=store,
        weaviate_version=read_weaviate_version(top, release),
        max_upload_megabytes=top.integer("maxUploadMegabytes", 1, 10240),
        apps=apps,
        apps_dir=apps_dir,
        canary=canary,
        canary_knowledge=top.boolean("canaryKnowledge"),
        admin_email=read_admin_email(top),
        admin_name=read_admin_name(top),
        keep_volumes=keep,
        protect=read_protect(top, keep_volumes=keep),
        templates_dir=read_templates_dir(top),
        extra_env=read_extra_env(top, release),
        resources=resources,
        api_workers=top.integer("apiWorkers", 1, 64),
        api_worker_connections=top.integer("apiWorkerConnections", 1, 10000),
        celery_workers=top.integer("celeryWorkers", 1, 64),
        postgres_max_connections=top.integer("postgresMaxConnections", 20, 10000),
        log_level=top.choice("logLevel", LOG_LEVELS),
        mail=mail,
        storage=storage,
        login=login,
        openapi=read_openapi(top, release),
        limits=limits,
        retention=read_retention(top),
        backup=read_backup(top.part("backup")),
        plugins=plugins,
        sandbox_network=top.boolean("sandboxNetwork"),
        ssrf_allow_private=read_ssrf_allow_private(top, known(release.services)),
        ssrf_deny=read_ssrf_deny(top),
        telemetry=read_telemetry(top),
        outbound=outbound,
        database=database,
        redis=read_redis(top.part("redis"), secrets),
        vector_server=read_vector_server(vectors, secrets, store, database),
        check_updates=top.boolean("checkUpdates"),
        secret_rotations=read_rotations(top),
        secrets=secrets.read(mail, storage, login, gateway=oauth is not None or gate is not None),
    )
