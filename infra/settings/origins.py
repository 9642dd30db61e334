"""Web origins: scheme, host and port, spelled as browsers send them."""

import ipaddress
import re
from urllib.parse import urlsplit

DEFAULT_PORTS = {"http": 80, "https": 443}
MAX_PORT = 65535
_HOST_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
MAX_HOST = 253


def host_problem(host: str) -> str | None:  # noqa: PLR0911  # one rule after another
    """Return what keeps `host` from being a host name or an address, or None when it is one."""
    if not host:
        return "it has no host"
    if host.startswith("["):
        try:
            ipaddress.IPv6Address(host.strip("[]"))
        except ValueError:
            return "its host is not an IPv6 address"
        return None
    if host != host.lower():
        return "browsers send host names in lower case"
    labels = host.split(".")
    if len(host) > MAX_HOST or not all(_HOST_LABEL.fullmatch(label) for label in labels):
        return "its host is not a host name"
    if _NUMBER.fullmatch(labels[-1]) and not _is_address(host):
        # Some parsers read an address in it, 2130706433 or 0x7f.1 or 0177.0.0.1, and others a name.
        return "its host ends in a number and is not an IPv4 address"
    return None


def is_loopback(host: str) -> bool:
    """Whether a host is the loopback of the client: for a container, the container itself."""
    if host.rstrip(".").lower() in {"localhost", "ip6-localhost"} or host.lower().endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _is_address(host: str) -> bool:
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return True


def origin_problem(origin: str) -> str | None:  # noqa: C901, PLR0911  # one rule after another
    """Return what keeps `origin` from being an origin as a browser sends it, or None when it is one."""
    if origin != origin.strip() or any(
        character.isspace() or ord(character) < ord(" ") for character in origin
    ):
        return "it contains white space"
    if any(character in origin for character in "\"'\\;{}$,"):
        return "it contains a character that no origin has"
    if origin == "null":
        return "every sandboxed page sends null: it identifies no origin"
    if "*" in origin:
        return "wildcards inside an origin are not supported: list the origins"
    if "://" not in origin:
        return "it has no scheme"
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        return "its port is not a number from 1 to 65535"
    if parts.scheme not in DEFAULT_PORTS or not origin.startswith(f"{parts.scheme}://"):
        return "its scheme is neither http nor https in lower case"
    if parts.username is not None or parts.password is not None or "@" in parts.netloc:
        return "it contains a user name"
    if parts.path or parts.query or parts.fragment or origin.endswith(("?", "#")):
        return "it has a path, a query or a trailing slash: an origin ends after host and port"
    host = parts.netloc if parts.netloc.endswith("]") else parts.netloc.rsplit(":", 1)[0]
    if problem := host_problem(host):
        return problem
    if parts.netloc.endswith(":") or port == 0:
        return "its port is not a number from 1 to 65535"
    if port == DEFAULT_PORTS[parts.scheme]:
        return f"browsers leave the default port {port} out"
    return None


def host_of(origin: str) -> str:
    """Return the host of a valid origin, an IPv6 address in brackets."""
    netloc = urlsplit(origin).netloc
    return netloc if netloc.endswith("]") else netloc.rsplit(":", 1)[0]


def port_of(origin: str) -> int:
    """Return the port of a valid origin."""
    parts = urlsplit(origin)
    return parts.port or DEFAULT_PORTS[parts.scheme]
