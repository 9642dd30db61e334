"""Which IP addresses are special-purpose, and what a setting may not name among them.

The lists follow IANA's special-purpose registries for IPv4 and IPv6 (RFC 6890 and what was added since), multicast,
and the prefixes that carry an IPv4 address inside an IPv6 one.
"""

import ipaddress
from collections.abc import Iterable, Sequence

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
IPV4, IPV6 = 4, 6
# The DNS server of Docker, at the same address in every container.
DOCKER_RESOLVER = "127.0.0.11"
# What a cluster appends to the names of Services, unless it was set up with another domain.
CLUSTER_DOMAIN = "cluster.local"
# The Service of its DNS, for what cannot have the address: nginx resolves it as it starts.
CLUSTER_RESOLVER = f"kube-dns.kube-system.svc.{CLUSTER_DOMAIN}"
BITS = {IPV4: 32, IPV6: 128}

# What the way out refuses. ::ffff:0:0/96 is not among them: Squid keeps every IPv4 address in that form,
# so the entry would refuse all of IPv4; and an address written so counts as the IPv4 address that it is.
SPECIAL_PURPOSE = (
    "0.0.0.0/8",  # this network
    "10.0.0.0/8",  # private
    "100.64.0.0/10",  # shared by carriers, and by some clouds for their own services
    "127.0.0.0/8",  # loopback
    "169.254.0.0/16",  # link-local, and the metadata of clouds
    "172.16.0.0/12",  # private
    "192.0.0.0/24",  # protocol assignments
    "192.0.2.0/24",  # documentation
    "192.31.196.0/24",  # AS112
    "192.52.193.0/24",  # AMT
    "192.88.99.0/24",  # 6to4 relays
    "192.168.0.0/16",  # private
    "192.175.48.0/24",  # AS112
    "198.18.0.0/15",  # benchmarks
    "198.51.100.0/24",  # documentation
    "203.0.113.0/24",  # documentation
    "224.0.0.0/4",  # multicast
    "240.0.0.0/4",  # reserved, and the broadcast address
    "::/96",  # unspecified, loopback, and what once was IPv4 inside IPv6
    "64:ff9b::/96",  # NAT64: an IPv4 address inside
    "64:ff9b:1::/48",  # NAT64 of one's own
    "100::/64",  # discard
    "100:0:0:1::/64",  # dummy prefix
    "2001::/23",  # protocol assignments: Teredo with an IPv4 address inside, benchmarks, ORCHID
    "2001:db8::/32",  # documentation
    "2002::/16",  # 6to4: an IPv4 address inside
    "2620:4f:8000::/48",  # AS112
    "3fff::/20",  # documentation
    "5f00::/16",  # segment routing
    "fc00::/7",  # unique local
    "fe80::/10",  # link-local
    "fec0::/10",  # site-local, as it was
    "ff00::/8",  # multicast
)

# The metadata services of clouds, which give a machine its identity and credentials.
METADATA_ADDRESSES = (
    "169.254.0.0/16",  # AWS, Azure, Google, Oracle, DigitalOcean ...; ECS and EKS beside 169.254.169.254
    "100.100.100.200/32",  # Alibaba
    "168.63.129.16/32",  # Azure's host
    "192.0.0.192/32",  # Oracle, as it was
    "fd00:ec2::/32",  # AWS over IPv6
    "fd20:ce::254/128",  # Google over IPv6
)
METADATA_NAMES = ("metadata", "metadata.google.internal", "instance-data", "instance-data.ec2.internal")

_MAPPED = ipaddress.ip_network("::ffff:0:0/96")
_SPECIAL = tuple(ipaddress.ip_network(one) for one in SPECIAL_PURPOSE)
_METADATA = tuple(ipaddress.ip_network(one) for one in METADATA_ADDRESSES)
# A proxy cannot be reached there, or is itself there.
_NEVER_ALLOWED = tuple(
    ipaddress.ip_network(one)
    for one in ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4", "::/96", "ff00::/8")
)
# For an address without a special purpose, such as this host's own: at most the network of one site.
_LARGEST_SITE = {IPV4: 24, IPV6: 48}
_NO_HOST = (ipaddress.ip_network("0.0.0.0/8"), ipaddress.ip_network("240.0.0.0/4"))


def network_of(text: str) -> Network | None:
    """Return an address or a network whose host bits are 0; None for anything else, an IPv6 zone included."""
    try:
        return ipaddress.ip_network(text) if text.isascii() and "%" not in text else None
    except ValueError:
        return None


def address_of(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return an IP address, one of IPv4 inside IPv6 as that of IPv4; None for anything else. Brackets are taken off."""
    try:
        found = ipaddress.ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None
    mapped = getattr(found, "ipv4_mapped", None)
    return mapped or found


def special_purpose(network: Network) -> bool:
    """Tell whether a network is part of one that the outbound proxies refuse in any case."""
    return any(_within(network, one) for one in _SPECIAL)


def clients_problem(text: str) -> str:
    """Say why this can be no network that clients or proxies come from; empty when it can."""
    network = network_of(text)
    if network is None:
        return "no network"
    if network.prefixlen == 0:
        return "matches every address"
    if network.is_multicast or _within(network, _NO_HOST[1]):
        return "no client has such an address: it is multicast or reserved"
    if _within(network, _MAPPED):
        return "an IPv4 address in IPv6 spelling, which matches no client"
    if _within(network, _NO_HOST[0]) or str(network) == "::/128":
        return "no client has such an address: it is no address of a host"
    return ""


def too_wide(listed: Iterable[str], most: dict[int, int]) -> str:
    """Say of which family the networks together hold too much; empty when of none.

    `most` maps a family (4 or 6) to the shortest prefix that they may add up to. Special-purpose networks do not
    count: they have no public addresses. What is wrong by itself is left to `clients_problem`.
    """
    networks = [
        found for text in listed if not clients_problem(text) and (found := network_of(text)) is not None
    ]
    for version, prefix in most.items():
        family = [one for one in networks if one.version == version and not special_purpose(one)]
        total = sum(one.num_addresses for one in _collapsed(family))
        if total > 2 ** (BITS[version] - prefix):
            return f"IPv{version}"
    return ""


def allowed_problem(text: str) -> str:  # noqa: PLR0911  # one rule after another
    """Say why the way out may not be opened to this network (`ssrfAllowPrivate`); empty when it may."""
    network = network_of(text)
    if network is None:
        return "neither network nor host name"
    if network.prefixlen == 0:
        return "it holds every address"
    if network.version == _MAPPED.version and network.overlaps(_MAPPED):
        return "an IPv4 address in IPv6 spelling"
    if any(network.overlaps(one) for one in _METADATA):
        return "it holds an address at which a cloud gives this machine's credentials away"
    if any(network.overlaps(one) for one in _NEVER_ALLOWED):
        return "it holds loopback, multicast or reserved addresses"
    if special_purpose(network) or network.prefixlen >= _LARGEST_SITE[network.version]:
        return ""
    return "it is no private network, and more than one site"


def bind_problem(text: str) -> str:
    """Say why nothing can ever listen on this address; empty when a host might have it."""
    address = address_of(text) if text.isascii() and "%" not in text else None
    if address is None or text.startswith("["):
        return "no IP address"
    if address.is_multicast:
        return "a multicast address: a host receives on it, and is not found there"
    if address.version == IPV6 and address.is_link_local:
        return "a link-local address: it means nothing without an interface"
    if int(address) and any(address in one for one in _NO_HOST):
        return "a reserved address: no host has it"
    return ""


def destination_problem(host: str) -> str:
    """Say why no request may be sent to this host on any network; empty when one may."""
    if host.lower().removesuffix(".") in METADATA_NAMES:
        return "there a cloud gives this machine's credentials away"
    address = address_of(host)
    if address is None:
        return ""
    if any(address in one for one in _METADATA):
        return "there a cloud gives this machine's credentials away"
    if address.is_unspecified or address.is_multicast or any(address in one for one in _NO_HOST):
        return "no address of a host"
    return ""


def _within(inner: Network, outer: Network) -> bool:
    return inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]  # same family


def _collapsed(family: Sequence[Network]) -> list[Network]:
    return list(ipaddress.collapse_addresses(family))  # type: ignore[type-var]  # one family
