"""External data services: `dify:database`, a PostgreSQL server, and `dify:redis`, a Redis server.

With a host the stack does not run its own service, and connects to the server instead.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from infra import hints
from infra.catalogue.data_services import DATA_PROXY
from infra.catalogue.names import spellings
from infra.catalogue.published_defaults import PUBLISHED_DEFAULTS
from infra.catalogue.services import SERVICES
from infra.settings import certificates, origins
from infra.settings.ca import read_ca_bundle
from infra.settings.origins import is_loopback
from infra.settings.reader import Section
from infra.settings.stack_secrets import SecretReader

if TYPE_CHECKING:
    import pulumi

DATABASE_PASSWORD = "externalDatabasePassword"  # noqa: S105  # the name of a setting
REDIS_PASSWORD = "externalRedisPassword"  # noqa: S105  # the name of a setting
# As libpq has them.
TLS_MODES = ("verify-full", "verify-ca", "require", "disable")
# Redis has as many by default.
MAX_REDIS_DATABASE = 15
# The plugin daemon writes it into a connection string without quotes, and api into a URL as it is.
IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
# As IDENTIFIER, and what managed servers have in a user name besides (`dify@server`, `tenant.dify`).
USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.@-]{0,127}")


@dataclass(frozen=True)
class Hidden:
    """A secret that a guard uses before anything is created. Its text is not part of what is printed."""

    text: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Server:
    """An external server. `ca` is in PEM, empty for the public authorities.

    `server_name` is the name in its certificate. `password` is Pulumi's secret, and `known_password` the same for the
    guard: empty where the secret is not decrypted.
    """

    host: str
    port: int
    user: str
    server_name: str
    ca: str
    password: "pulumi.Output[str]"
    known_password: Hidden

    @property
    def address(self) -> str:
        """Host and port."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, kw_only=True)
class Database(Server):
    """A PostgreSQL server, with Dify's database and the plugin daemon's. `tls` is a mode of libpq, one of TLS_MODES.

    `own_data_moved` allows it to a stack that has a database of its own.
    """

    name: str
    plugin_name: str
    tls: str
    own_data_moved: bool

    @property
    def verified(self) -> bool:
        """Whether the certificate must come from a known authority."""
        return self.tls in {"verify-ca", "verify-full"}

    @property
    def dialled(self) -> str:
        """The host that services connect to, which the stack's proxy answers to."""
        return self.server_name if self.tls == "verify-full" else DATA_PROXY


@dataclass(frozen=True, kw_only=True)
class Redis(Server):
    """A Redis server, and the numbers of the databases that Dify, its Celery and the agent backend use."""

    tls: bool
    database: int
    celery_database: int
    agent_database: int

    @property
    def dialled(self) -> str:
        """The host that services connect to, which the stack's proxy answers to."""
        return self.server_name if self.tls else DATA_PROXY


def read_database(section: Section, secrets: SecretReader) -> Database | None:
    """Read `dify:database`; None without a host."""
    tls = section.choice("tls", TLS_MODES)
    name = _identifier(section, "database")
    plugins = _identifier(section, "pluginDatabase")
    user = section.text("user")
    if not USER.fullmatch(user):
        section.problems.add(
            section.key("user"), user, "is not a user name", "use letters, digits and _ . @ -, such as dify"
        )
    if name == plugins:
        section.problems.add(
            section.key("pluginDatabase"),
            plugins,
            "is Dify's database too, and their tables would mix",
            "create a database of its own for the plugin daemon",
        )
    moved = section.boolean("ownDataMoved")
    verified = tls in {"verify-ca", "verify-full"}
    server = read_server(section, secrets, DATABASE_PASSWORD, verified=verified, named=tls == "verify-full")
    if server is None:
        return None
    if set(server.known_password.text) & set(" '\\"):
        section.problems.add_secret(
            DATABASE_PASSWORD,
            "contains a space, a quote or a backslash, which the plugin daemon does not pass on",
            f"use another password: `{hints.assign(DATABASE_PASSWORD, stack=section.problems.stack)}`",
        )
    return Database(
        **vars(server),
        user=user,
        name=name,
        plugin_name=plugins,
        tls=tls,
        own_data_moved=moved,
    )


def read_redis(section: Section, secrets: SecretReader) -> Redis | None:
    """Read `dify:redis`; None without a host."""
    tls = section.boolean("tls")
    user = section.text("user")
    if user and not USER.fullmatch(user):
        section.problems.add(
            section.key("user"), user, "is not a user name", "use letters, digits and _ . @ -, such as dify"
        )
    numbers = {
        key: section.integer(key, 0, MAX_REDIS_DATABASE)
        for key in ("database", "celeryDatabase", "agentDatabase")
    }
    for key, number in numbers.items():
        if sum(number == other for other in numbers.values()) > 1:
            section.problems.add(
                section.key(key),
                number,
                "is used twice",
                "give database, celeryDatabase and agentDatabase a number each",
            )
            break
    server = read_server(section, secrets, REDIS_PASSWORD, verified=tls, named=tls)
    if server is None:
        return None
    return Redis(
        **vars(server),
        user=user,
        tls=tls,
        database=numbers["database"],
        celery_database=numbers["celeryDatabase"],
        agent_database=numbers["agentDatabase"],
    )


@dataclass(frozen=True, kw_only=True)
class Where:
    """What all kinds of servers have, but the user."""

    host: str
    port: int
    server_name: str
    ca: str
    password: "pulumi.Output[str]"
    known_password: Hidden


def read_server(
    section: Section,
    secrets: SecretReader,
    password: str,
    *,
    verified: bool,
    named: bool,
    usual_port: int = 0,
) -> Where | None:
    """Read where the server is, and how it is verified. `named`: by the name in its certificate.

    With a `usual_port`, the setting 0 means that one.
    """
    host, port = section.text("host"), section.integer("port", 0 if usual_port else 1, origins.MAX_PORT)
    name, ca = section.text("serverName"), read_ca_bundle(section)
    if not host:
        _report_unused(section)
        return None
    if problem := host_problem(host):
        section.problems.add(
            section.key("host"), host, problem, "use the host name or the IPv4 address of the server"
        )
    if section.text("caFile") and not verified:
        section.problems.add(
            section.key("caFile"),
            section.text("caFile"),
            "has no effect: the server's certificate is not verified",
            f"turn {section.key('tls')} on (verify-full for a database), or remove it",
        )
    if name and not named:
        section.problems.add(
            section.key("serverName"),
            name,
            "has no effect: the name in the certificate is not verified",
            f"turn {section.key('tls')} on (verify-full for a database), or remove it",
        )
    if named and not name and certificates.address_of(host):
        section.problems.add(
            section.key("host"),
            host,
            "is an address, and the certificate is verified by name",
            f"set {section.key('serverName')} to the name in the server's certificate",
        )
    if named and name and (problem := _name_problem(name)):
        section.problems.add(
            section.key("serverName"), name, problem, "use the host name in the server's certificate"
        )
    text = secrets.text(password, required=True)
    if text in PUBLISHED_DEFAULTS:
        section.problems.add_secret(
            password,
            "is the value that upstream publishes",
            f"it is public; give the server another one, and `{hints.assign(password, stack=section.problems.stack)}`",
        )
    return Where(
        host=host,
        port=port or usual_port,
        server_name=name or host,
        ca=ca,
        password=secrets.conceal(text),
        known_password=Hidden(text),
    )


def _report_unused(section: Section) -> None:
    """Report what is set of a server without a host: it would have no effect."""
    given = [key for key in section.values if section.raw(key) != section.defaults.get(key)]
    if given:
        section.problems.add(
            section.key(given[0]),
            section.values[given[0]],
            "has no effect without a host",
            f"set {section.key('host')} to the external server, or remove it",
        )


def _identifier(section: Section, key: str) -> str:
    value = section.text(key)
    if not IDENTIFIER.fullmatch(value):
        section.problems.add(
            section.key(key),
            value,
            "is not the name of a database",
            "use letters, digits and _, such as dify",
        )
    return value


def host_problem(host: str) -> str | None:
    """Return why an external server cannot have a host, or None."""
    rules: tuple[Callable[[str], str | None], ...] = (
        origins.host_problem,
        lambda one: "IPv6 addresses are not supported here" if ":" in one else None,
        lambda one: "is each container itself, not this machine" if is_loopback(one) else None,
        _own_name,
    )
    return next((problem for rule in rules if (problem := rule(host))), None)


def _name_problem(name: str) -> str | None:
    if certificates.address_of(name):
        return "is an address"
    return origins.host_problem(name) or _own_name(name)


def _own_name(name: str) -> str | None:
    own = {one for service in SERVICES for one in spellings(service)}
    return "is a service of the stack itself" if name in own else None
