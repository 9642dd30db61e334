"""The IP addresses of this machine, and what listens on it, from /proc."""

import ipaddress
import socket
import sys
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from infra.catalogue.addresses import special_purpose
from infra.engine import Endpoint

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

PROC = Path("/proc/net")
IPV6 = 6
_LISTENING = "0A"


def own_addresses(proc: Path = PROC) -> list[ipaddress.IPv4Interface | ipaddress.IPv6Interface]:
    """Return this machine's addresses with the prefix of their network (/32 for IPv4: the table has no other)."""
    found: list[ipaddress.IPv4Interface | ipaddress.IPv6Interface] = [
        ipaddress.IPv4Interface(address) for address in _local_v4(_text(proc / "fib_trie"))
    ]
    for line in _text(proc / "if_inet6").splitlines():
        fields = line.split()
        found.append(ipaddress.IPv6Interface((int(fields[0], 16), int(fields[2], 16))))
    return found


def _local_v4(table: str) -> list[str]:
    """Return the addresses of fib_trie's local table: a leaf `|-- 192.0.2.7`, then `/32 host LOCAL`."""
    found: list[str] = []
    leaf = ""
    for line in table.splitlines():
        words = line.split()
        if words[:1] == ["|--"]:
            leaf = words[1]
        elif words[:3] == ["/32", "host", "LOCAL"]:
            found.append(leaf)
    return list(dict.fromkeys(found))


def listeners(port: int, proc: Path = PROC) -> set[Address]:
    """Return the addresses on which something of this machine listens on a TCP port."""
    found: set[Address] = set()
    for name in ("tcp", "tcp6"):
        for line in _text(proc / name).splitlines()[1:]:
            fields = line.split()
            address, _, number = fields[1].partition(":")
            if fields[3] == _LISTENING and int(number, 16) == port:
                found.add(_decoded(address))
    return found


def _decoded(text: str) -> Address:
    """Return an address of /proc/net/tcp: words of four bytes in the machine's order."""
    words = (int(text[start : start + 8], 16) for start in range(0, len(text), 8))
    packed = b"".join(word.to_bytes(4, sys.byteorder) for word in words)
    return ipaddress.ip_address(packed)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii")
    except OSError:
        return ""  # another system than Linux, or a family that the kernel lacks


def public_networks(own: Iterable[ipaddress.IPv4Interface | ipaddress.IPv6Interface]) -> tuple[str, ...]:
    """Return what of a machine's addresses no list of special-purpose networks holds, sorted.

    Of IPv6 the whole network: its addresses change by the day where privacy extensions are on.
    """
    networks = {one.network if one.version == IPV6 else ipaddress.ip_network(one.ip) for one in own}
    return tuple(sorted(str(one) for one in networks if not special_purpose(one)))


def engine_networks(endpoint: Endpoint) -> tuple[str, ...]:
    """Return the public networks of the machine that the engine runs on, as far as they can be known from here.

    Of another machine that is what its name or address resolves to.
    """
    if endpoint.local:
        return public_networks(own_addresses())
    try:
        found = socket.getaddrinfo(urlsplit(endpoint.address).hostname, None, type=socket.SOCK_STREAM)
    except OSError:
        return ()
    return public_networks(ipaddress.ip_interface(str(entry[4][0]).partition("%")[0]) for entry in found)
