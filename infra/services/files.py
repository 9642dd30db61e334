"""The rendered configuration files of Squid and of Redis."""

from collections.abc import Iterable
from dataclasses import dataclass

import pulumi

from infra import engine
from infra.catalogue import ports, services
from infra.catalogue.addresses import SPECIAL_PURPOSE
from infra.catalogue.container_paths import SQUID_CONFIG, SQUID_PARENT_FILE
from infra.engine import host_addresses
from infra.jinja import render
from infra.settings import certificates
from infra.settings.outbound import Proxy
from infra.settings.stack import Settings

# The ranges that a container of the stack can have its address in.
STACK_NETWORKS = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "127.0.0.0/8", "::1/128")


@dataclass(frozen=True, kw_only=True)
class ParentContext:
    """The proxy of `dify:outbound`, through which squid sends what it admits.

    `line` is the directive of squid, and empty where it is in `file`, because it holds a password. `direct_domains` and
    `direct_addresses` are reached without it.
    """

    line: str
    direct_domains: tuple[str, ...]
    direct_addresses: tuple[str, ...]
    file: str = SQUID_PARENT_FILE


@dataclass(frozen=True, kw_only=True)
class ProxyContext:
    """What the squid templates read, as `proxy`. `parent` is None where squid itself reaches the internet."""

    name: str
    max_body_megabytes: int
    port: int = ports.SQUID
    private_networks: tuple[str, ...] = SPECIAL_PURPOSE
    stack_networks: tuple[str, ...] = STACK_NETWORKS
    allowed_addresses: tuple[str, ...] = ()
    allowed_domains: tuple[str, ...] = ()
    parent: ParentContext | None = None
    # Names of services are short there, and its resolver completes them.
    search_domains: bool = False


@dataclass(frozen=True, kw_only=True)
class RedisContext:
    """What the Redis template reads, as `redis`."""

    password: str
    port: int = ports.REDIS

    @property
    def quoted_password(self) -> str:
        """The password between double quotes, as Redis reads it."""
        return self.password.replace("\\", "\\\\").replace('"', '\\"')


def squid_files(service: str, settings: Settings) -> dict[str, str]:
    """Render the configuration of a forward proxy of the catalogue: path in the container -> text."""
    (template,) = services.SERVICES[service].templates
    allowed = settings.ssrf_allow_private
    context = ProxyContext(
        name=service,
        max_body_megabytes=settings.max_upload_megabytes,
        private_networks=(*SPECIAL_PURPOSE, *_denied_besides(settings)),
        allowed_addresses=tuple(item for item in allowed if item[0].isdigit() or ":" in item),
        allowed_domains=_apart(item for item in allowed if not item[0].isdigit() and ":" not in item),
        parent=_parent(settings),
        search_domains=settings.kubernetes is not None,
    )
    return {SQUID_CONFIG: render(template, {"proxy": context}, settings.templates_dir)}


def _parent(settings: Settings) -> ParentContext | None:
    proxy = settings.outbound.proxy if settings.outbound else None
    if proxy is None:
        return None
    names = [one for one in proxy.exceptions if certificates.address_of(one) is None]
    return ParentContext(
        line="" if proxy.login else squid_parent(proxy),
        # The leading dot: with all names below it.
        direct_domains=_apart(f".{one}" for one in names),
        direct_addresses=tuple(one for one in proxy.exceptions if certificates.address_of(one)),
    )


def _apart(domains: Iterable[str]) -> tuple[str, ...]:
    """Return squid's patterns of host names without those that another one covers: squid refuses to start with both.

    A pattern with a leading dot stands for the name and for all names below it.
    """
    listed = dict.fromkeys(domains)
    wide = {one for one in listed if one.startswith(".")}

    def covered(one: str) -> bool:
        return any(f".{one.removeprefix('.')}".endswith(other) for other in wide if other != one)

    return tuple(one for one in listed if not covered(one))


def squid_parent(proxy: Proxy, userinfo: str = "") -> str:
    """Return squid's directive for the proxy. `userinfo` is user:password, percent-encoded as squid decodes it."""
    login = f" login={userinfo}" if userinfo else ""
    return (
        f"cache_peer {proxy.host} parent {proxy.port} 0 no-query no-digest no-netdb-exchange default{login}"
    )


def _denied_besides(settings: Settings) -> tuple[str, ...]:
    """Return further networks that the proxies refuse: those of the engine's machine and of `dify:ssrfDeny`."""
    if settings.kubernetes:
        # Pods have addresses of their own; those of the nodes are private, or in dify:ssrfDeny.
        return tuple(item for item in settings.ssrf_deny if item not in settings.ssrf_allow_private)
    try:
        own = host_addresses.engine_networks(engine.chosen())
    except engine.EngineChoiceError:
        own = ()  # infra.guards.ports reports it
    listed = dict.fromkeys((*settings.ssrf_deny, *own))
    allowed = set(settings.ssrf_allow_private)
    return tuple(item for item in listed if item not in allowed)


def redis_config(settings: Settings, password: pulumi.Output[str]) -> pulumi.Output[str]:
    """Render the configuration of a Redis. It holds the password, so it is a secret."""
    return password.apply(
        lambda plain: render(
            "data/redis.conf.j2", {"redis": RedisContext(password=plain)}, settings.templates_dir
        )
    )
