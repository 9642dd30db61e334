"""The rendered configuration files of Squid and of Redis."""

from dataclasses import dataclass

import pulumi

from infra import engine
from infra.catalogue import ports, services
from infra.catalogue.addresses import SPECIAL_PURPOSE
from infra.catalogue.container_paths import SQUID_CONFIG
from infra.engine import host_addresses
from infra.jinja import render
from infra.settings.stack import Settings

# The ranges that a container of the stack can have its address in.
STACK_NETWORKS = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "127.0.0.0/8", "::1/128")


@dataclass(frozen=True, kw_only=True)
class ProxyContext:
    """What the squid templates read, as `proxy`."""

    name: str
    max_body_megabytes: int
    port: int = ports.SQUID
    private_networks: tuple[str, ...] = SPECIAL_PURPOSE
    stack_networks: tuple[str, ...] = STACK_NETWORKS
    allowed_addresses: tuple[str, ...] = ()
    allowed_domains: tuple[str, ...] = ()


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
        allowed_domains=tuple(item for item in allowed if not item[0].isdigit() and ":" not in item),
    )
    return {SQUID_CONFIG: render(template, {"proxy": context}, settings.templates_dir)}


def _denied_besides(settings: Settings) -> tuple[str, ...]:
    """Return further networks that the proxies refuse: those of the engine's machine and of `dify:ssrfDeny`."""
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
