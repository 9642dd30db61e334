"""What the environments of several services share: addresses, databases, and how a value is spelled."""

from collections.abc import Iterable
from urllib.parse import quote

import pulumi

from infra.catalogue import ports
from infra.catalogue.container_paths import REDIS_CA_FILE
from infra.catalogue.releases import Release
from infra.settings.external_data import Redis
from infra.settings.stack import Settings

Environment = dict[str, pulumi.Input[str]]

API_URL = f"http://api:{ports.API}"
PLUGIN_DAEMON_URL = f"http://plugin-daemon:{ports.PLUGIN_DAEMON}"
SANDBOX_URL = f"http://sandbox:{ports.SANDBOX}"
AGENT_BACKEND_URL = f"http://agent-backend:{ports.AGENT_BACKEND}"
LOCAL_SANDBOX_URL = f"http://local-sandbox:{ports.LOCAL_SANDBOX}"
SSRF_PROXY_URL = f"http://ssrf-proxy:{ports.SQUID}"
AGENT_SSRF_PROXY_URL = f"http://agent-ssrf-proxy:{ports.SQUID}"

# The databases of the stack's own servers.
DATABASE = "dify"
CELERY_REDIS_DB = 1
AGENT_REDIS_DB = 2
MEGABYTE = 1024 * 1024
MARKETPLACE_URL = "https://marketplace.dify.ai"


def flag(value: bool) -> str:
    """Spell a boolean as Dify reads it."""
    return "true" if value else "false"


def redis_url(password: pulumi.Input[str], database: int, host: str = "redis") -> pulumi.Output[str]:
    """Return the URL of a Redis of the stack. The password survives being part of a URL."""
    return pulumi.Output.from_input(password).apply(
        lambda plain: f"redis://:{quote(plain, safe='')}@{host}:{ports.REDIS}/{database}"
    )


def external_redis_url(server: Redis, database: int, *, with_ca: bool = False) -> pulumi.Output[str]:
    """Return the URL of an external Redis; `with_ca` for a program that reads the CA there and nowhere else."""
    scheme = "rediss" if server.tls else "redis"
    ca = (
        f"?ssl_cert_reqs=required&ssl_ca_certs={quote(REDIS_CA_FILE, safe='')}"
        if with_ca and server.tls
        else ""
    )
    where = f"{server.dialled}:{ports.REDIS}/{database}{ca}"
    return server.password.apply(
        lambda plain: f"{scheme}://{quote(server.user, safe='')}:{quote(plain, safe='')}@{where}"
    )


def celery_url(settings: Settings) -> pulumi.Output[str]:
    """Return the URL of Celery's broker."""
    if settings.redis:
        return external_redis_url(settings.redis, settings.redis.celery_database)
    return redis_url(settings.secrets.redis_password, CELERY_REDIS_DB)


def agent_redis_url(settings: Settings) -> pulumi.Output[str]:
    """Return the URL of the agent backend's Redis."""
    if settings.redis:
        return external_redis_url(settings.redis, settings.redis.agent_database, with_ca=True)
    return redis_url(settings.secrets.redis_password, AGENT_REDIS_DB)


def database(settings: Settings, name: str) -> Environment:
    """Return how a service reaches its database in PostgreSQL; `name` is that of the stack's own server."""
    server = settings.database
    if server:
        return {
            "DB_TYPE": "postgresql",
            "DB_USERNAME": server.user,
            "DB_PASSWORD": server.password,
            "DB_HOST": server.dialled,
            "DB_PORT": str(ports.POSTGRES),
            "DB_DATABASE": server.name if name == DATABASE else server.plugin_name,
        }
    return {
        "DB_TYPE": "postgresql",
        "DB_USERNAME": "postgres",
        "DB_PASSWORD": settings.secrets.postgres_password,
        "DB_HOST": "db-postgres",
        "DB_PORT": str(ports.POSTGRES),
        "DB_DATABASE": name,
    }


def redis(settings: Settings) -> Environment:
    """Return how a service reaches Redis."""
    server = settings.redis
    if server:
        base: Environment = {
            "REDIS_HOST": server.dialled,
            "REDIS_PORT": str(ports.REDIS),
            "REDIS_USERNAME": server.user,
            "REDIS_PASSWORD": server.password,
            "REDIS_USE_SSL": flag(server.tls),
            "REDIS_DB": str(server.database),
        }
        verified = {"REDIS_SSL_CERT_REQS": "CERT_REQUIRED", "REDIS_SSL_CA_CERTS": REDIS_CA_FILE}
        return base | verified if server.tls else base
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
