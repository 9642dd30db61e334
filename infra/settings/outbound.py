"""Outgoing connections behind a company's proxy: `dify:outbound` with the proxy, and a CA that containers trust too."""

import base64
import hashlib
import hmac
import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from infra import hints
from infra.catalogue.data_services import DATA_PROXY
from infra.catalogue.names import spellings
from infra.catalogue.services import SERVICES
from infra.settings.ca import read_ca_bundle
from infra.settings.origins import host_problem, is_loopback
from infra.settings.reader import Section
from infra.settings.stack_secrets import SecretReader

if TYPE_CHECKING:
    import pulumi

CREDENTIALS = "outboundCredentials"
# Each program reads these in its own way, but they agree on them: every container's own loopback.
LOOPBACK = ("localhost", "127.0.0.1", "::1")
_NOWHERE = ("proxy.invalid", 3128)


@dataclass(frozen=True, kw_only=True)
class Login:
    """User name and password at the proxy, as each program takes them. All but `digest` are secret.

    `userinfo` goes into a URL and into squid's `login=`, both percent-encoded. `header` is the value of
    Proxy-Authorization. `digest` changes with them and does not disclose them.
    """

    userinfo: "pulumi.Output[str]"
    header: "pulumi.Output[str]"
    digest: str


@dataclass(frozen=True, kw_only=True)
class Proxy:
    """The proxy through which everything leaves, `direct` excepted. `login` is None where it requires none.

    `direct` holds host names, each with all names below it, and IP addresses.
    """

    host: str
    port: int
    direct: tuple[str, ...]
    login: Login | None

    @property
    def address(self) -> str:
        """Host and port."""
        return f"{self.host}:{self.port}"

    @property
    def exceptions(self) -> tuple[str, ...]:
        """Every host that is reached without the proxy: loopback, the stack's own services, and `direct`."""
        return tuple(dict.fromkeys((*LOOPBACK, *own_names(), *self.direct)))

    def passes(self, host: str) -> bool:
        """Tell whether requests to a host go through the proxy."""
        return not any(host == one or host.endswith(f".{one}") for one in self.exceptions)


@dataclass(frozen=True, kw_only=True)
class Outbound:
    """How a stack reaches the outside. `ca` is in PEM, empty for the public authorities alone; `proxy` may be None."""

    proxy: Proxy | None
    ca: str


def own_names() -> tuple[str, ...]:
    """Return the names by which the stack's services reach each other: those of every stack, so they never change."""
    called = (service for service, one in SERVICES.items() if one.port or service == DATA_PROXY)
    return tuple(name for service in called for name in spellings(service))


def read_outbound(section: Section, secrets: SecretReader) -> Outbound | None:
    """Read `dify:outbound`; None when neither a proxy nor a CA is set."""
    ca = read_ca_bundle(section)
    proxy = _read_proxy(section, secrets)
    return Outbound(proxy=proxy, ca=ca) if proxy or ca else None


def _read_proxy(section: Section, secrets: SecretReader) -> Proxy | None:
    given, direct = section.text("proxy"), _read_direct(section)
    if given:
        host, port = _address(section, given)
        return Proxy(host=host, port=port, direct=direct, login=_login(section, secrets))
    if secrets.is_set(CREDENTIALS):
        stack = section.problems.stack
        section.problems.add_secret(
            CREDENTIALS,
            "has no effect without a proxy",
            f"`{hints.assign(section.key('proxy'), 'http://proxy.example.com:3128', stack=stack)}` with yours sets "
            f"one, `{hints.kit('unset', CREDENTIALS, stack=stack)}` removes it",
        )
    if direct:
        section.problems.add(
            section.key("noProxy"),
            ", ".join(direct),
            "has no effect without a proxy",
            "set outbound.proxy too, or remove it",
        )
    return None


def _address(section: Section, url: str) -> tuple[str, int]:
    """Return host and port of the proxy; one that is no proxy is reported."""
    key, fix = section.key("proxy"), "use http://<host>:<port>, such as http://proxy.example.com:3128"
    if "@" in url:
        # The value is not shown: it may hold a password.
        section.problems.add_secret(
            key,
            "contains a user name or a password, which belongs in a secret",
            f"{fix}, and `{hints.assign(CREDENTIALS, stack=section.problems.stack)}` with user:password",
        )
        return _NOWHERE
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        section.problems.add(key, url, "is not a URL", fix)
        return _NOWHERE
    host = parts.hostname or ""
    if parts.scheme != "http":
        problem = "must begin with http://: the connection to the proxy itself is plain HTTP, also for HTTPS"
    elif parts.path.rstrip("/") or parts.query or parts.fragment:
        problem = "has a path or a query"
    elif not port:
        problem = "has no port"
    elif ":" in host:
        problem = "IPv6 addresses are not supported here"
    elif wrong := host_problem(host):
        problem = wrong
    elif is_loopback(host):
        problem = "is each container itself, not this machine"
        fix = (
            "use the address that containers reach this machine by, Docker's bridge: http://172.17.0.1:<port> by "
            "default, else as `docker network inspect bridge` has it"
        )
    elif host in SERVICES:
        problem = "is a service of the stack itself"
    else:
        return host, port
    section.problems.add(key, url, problem, fix)
    return _NOWHERE


def _read_direct(section: Section) -> tuple[str, ...]:
    """Read the hosts that are reached without the proxy; a leading dot says what counts anyway."""
    found = []
    for item in section.texts("noProxy"):
        name = item.removeprefix(".")
        if problem := _direct_problem(name):
            section.problems.add(
                section.key("noProxy"),
                item,
                problem,
                "use a host name (corp.example.com, with all names below it) or one IP address",
            )
            continue
        found.append(name)
    return tuple(dict.fromkeys(found))


def _direct_problem(name: str) -> str | None:
    if "*" in name:
        return "wildcards are read differently by each program, or not at all"
    if "/" in name:
        return "networks are not understood by every program"
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return host_problem(name)
    return None


def _login(section: Section, secrets: SecretReader) -> Login | None:
    """Return user name and password of the proxy, None when the secret is not set."""
    if not secrets.is_set(CREDENTIALS):
        return None
    # Empty for a sealed one, whose text is not checked.
    text = secrets.text(CREDENTIALS, required=False)
    user, _, password = text.partition(":")
    # Keyed with a secret: the password of a person could be found out by a digest alone.
    key = secrets.text("secretKey", required=False) or section.prefix
    return Login(
        userinfo=secrets.conceal(f"{quote(user, safe='')}:{quote(password, safe='')}"),
        header=secrets.conceal(f"Basic {base64.b64encode(text.encode()).decode()}"),
        digest=hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()[:12],
    )
