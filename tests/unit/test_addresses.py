"""Networks and addresses: what the way out refuses, and what settings may name."""

import ipaddress
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.catalogue import addresses
from infra.catalogue.addresses import SPECIAL_PURPOSE

# IANA's special-purpose registries of IPv4 and IPv6 as of 2025-10, multicast, site-local, and what is not listed there
# because it is no address of a host. `Globally Reachable` is no criterion: some embed an address, some are services.
REGISTRY = re.findall(
    r"\S+",
    """
0.0.0.0/8 0.0.0.0/32 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.0.0/29
192.0.0.8/32 192.0.0.9/32 192.0.0.10/32 192.0.0.170/32 192.0.0.171/32 192.0.2.0/24 192.31.196.0/24 192.52.193.0/24
192.88.99.0/24 192.88.99.2/32 192.168.0.0/16 192.175.48.0/24 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 240.0.0.0/4
255.255.255.255/32 224.0.0.0/4
::1/128 ::/128 64:ff9b::/96 64:ff9b:1::/48 100::/64 100:0:0:1::/64 2001::/23 2001::/32 2001:1::1/128 2001:1::2/128
2001:1::3/128 2001:2::/48 2001:3::/32 2001:4:112::/48 2001:10::/28 2001:20::/28 2001:30::/28 2001:db8::/32 2002::/16
2620:4f:8000::/48 3fff::/20 5f00::/16 fc00::/7 fe80::/10 fec0::/10 ff00::/8
""",
)
PUBLIC = ("8.8.8.8/32", "1.0.0.0/24", "104.16.0.0/13", "2606:4700::/32", "2a01:4f8::/32")


@pytest.mark.parametrize("network", REGISTRY)
def test_every_special_purpose_network_is_refused(network: str) -> None:
    assert addresses.special_purpose(ipaddress.ip_network(network))


@pytest.mark.parametrize("network", PUBLIC)
def test_the_internet_is_not_refused(network: str) -> None:
    assert not addresses.special_purpose(ipaddress.ip_network(network))
    assert not any(
        ipaddress.ip_network(network).overlaps(ipaddress.ip_network(one)) for one in SPECIAL_PURPOSE
    )


def test_lists_are_networks_without_overlaps_and_spare_mapped_addresses() -> None:
    for version in (4, 6):
        family = sorted(one for one in map(ipaddress.ip_network, SPECIAL_PURPOSE) if one.version == version)
        assert not [pair for pair in pairwise(family) if pair[0].overlaps(pair[1])]
    # Squid has all of IPv4 there.
    mapped = ipaddress.ip_network("::ffff:0:0/96")
    assert not [one for one in map(ipaddress.ip_network, SPECIAL_PURPOSE) if one.overlaps(mapped)]


@given(st.ip_addresses())
def test_what_python_calls_no_global_address_is_refused(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    mapped = getattr(address, "ipv4_mapped", None)
    if not address.is_global and mapped is None:
        assert addresses.special_purpose(ipaddress.ip_network(str(address)))


def pieces(prefix: int, version: int = 4) -> list[str]:
    """All of a family, in networks of one size."""
    everything = ipaddress.ip_network("0.0.0.0/0" if version == 4 else "::/0")
    return [str(one) for one in everything.subnets(new_prefix=prefix)]


@pytest.mark.parametrize("prefix", range(1, 11))
@pytest.mark.parametrize("version", [4, 6])
def test_everybody_in_pieces_is_too_many(prefix: int, version: int) -> None:
    for most in ({4: 8, 6: 20}, {4: 3, 6: 8}):
        assert addresses.too_wide(pieces(prefix, version), most) == f"IPv{version}"


def test_private_networks_and_those_of_large_proxies_are_not_too_many() -> None:
    most = {4: 8, 6: 20}
    private = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"]
    proxies = [
        "104.16.0.0/13",
        "172.64.0.0/13",
        "131.0.72.0/22",
        "2400:cb00::/32",
        "2606:4700::/32",
        "2a06:98c0::/29",
    ]

    assert not addresses.too_wide([*private, *proxies], most)
    assert addresses.too_wide([*private, "11.0.0.0/8", "12.0.0.0/32"], most) == "IPv4"


@pytest.mark.parametrize(
    "text",
    [
        "169.254.169.254",
        "[fd00:ec2::254]",
        "metadata.google.internal",
        "METADATA",
        "100.100.100.200",
        "168.63.129.16",
        "224.0.0.1",
        "0.0.0.0",  # noqa: S104
        "240.0.0.1",
        "255.255.255.255",
        "[::]",
        "[ff02::1]",
        "[::ffff:169.254.169.254]",
    ],
)
def test_no_request_goes_to_metadata_or_to_no_host(text: str) -> None:
    assert addresses.destination_problem(text)


@pytest.mark.parametrize(
    "text", ["api.openai.com", "10.0.0.5", "172.17.0.1", "ollama", "[fd12::1]", "8.8.8.8"]
)
def test_requests_go_to_hosts(text: str) -> None:
    assert not addresses.destination_problem(text)


@given(st.ip_addresses(v=4))
def test_digits_of_other_scripts_are_no_address(address: ipaddress.IPv4Address) -> None:
    wide = str(address).translate({ord("0") + digit: 0xFF10 + digit for digit in range(10)})

    assert addresses.network_of(wide) is None
    assert addresses.bind_problem(wide)
    assert addresses.clients_problem(wide)
    assert addresses.allowed_problem(wide)
