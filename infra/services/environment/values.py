"""What the environments of several services share: addresses, databases, and how a value is spelled."""

from collections.abc import Iterable
from urllib.parse import quote

import pulumi

from infra.catalogue import ports
from infra.catalogue.releases import Release
from infra.settings.stack import Settings

Environment = dict[str, pulumi.Input[str]]

API_URL = f"http://api:{ports.API}"
PLUGIN_DAEMON_URL = f"http://plugin_daemon:{ports.PLUGIN_DAEMON}"
SANDBOX_URL = f"http://sandbox:{ports.SANDBOX}"
AGENT_BACKEND_URL = f"http://agent_backend:{ports.AGENT_BACKEND}"
LOCAL_SANDBOX_URL = f"http://local_sandbox:{ports.LOCAL_SANDBOX}"
SSRF_PROXY_URL = f"http://ssrf_proxy:{ports.SQUID}"
AGENT_SSRF_PROXY_URL = f"http://agent_ssrf_proxy:{ports.SQUID}"

DATABASE = "dify"
MEGABYTE = 1024 * 1024
MARKETPLACE_URL = "https://marketplace.dify.ai"


def flag(value: bool) -> str:
    """Spell a boolean as Dify reads it."""
    return "true" if value else "false"


def redis_url(password: pulumi.Input[str], database: int, host: str = "redis") -> pulumi.Output[str]:
    """Return a Redis URL whose password survives being part of a URL."""
    return pulumi.Output.from_input(password).apply(
        lambda plain: f"redis://:{quote(plain, safe='')}@{host}:{ports.REDIS}/{database}"
    )


def database(settings: Settings, name: str) -> Environment:
    """Return how a service reaches its database in PostgreSQL."""
    return {
        "DB_TYPE": "postgresql",
        "DB_USERNAME": "postgres",
        "DB_PASSWORD": settings.secrets.postgres_password,
        "DB_HOST": "db_postgres",
        "DB_PORT": str(ports.POSTGRES),
        "DB_DATABASE": name,
    }


def redis(settings: Settings) -> Environment:
    """Return how a service reaches Redis."""
    return {
        "REDIS_HOST": "redis",
        "REDIS_PORT": str(ports.REDIS),
        "REDIS_PASSWORD": settings.secrets.redis_password,
        "REDIS_USE_SSL": "false",
        "REDIS_DB": "0",
    }


def cookie_domain(settings: Settings) -> Environment:
    """Share cookies between split hosts of one domain; a single host needs nothing."""
    hosts = {url.split("://", 1)[1].split(":")[0] for url in (settings.urls.console, settings.urls.app)}
    parents = {host.partition(".")[2] for host in hosts}
    if len(hosts) == 1 or len(parents) != 1 or "." not in (parent := parents.pop()):
        return {"COOKIE_DOMAIN": ""}
    return {"COOKIE_DOMAIN": parent}


def as_compose_sets(service: str, release: Release, names: Iterable[str] | None = None) -> Environment:
    """Return what the official compose folder of the release sets, of `names` or of all that has no default in code."""
    known = release.variables(service)
    if names is None:
        names = [name for name, variable in known.items() if variable.default is None]
    found = {name: known[name].compose for name in names if name in known}
    return {name: value for name, value in found.items() if value is not None}
