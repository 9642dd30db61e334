"""Addresses: where the edge listens, which proxies it trusts, and where Dify's requests may go."""

from collections.abc import Collection

from infra.catalogue import addresses
from infra.catalogue import request_headers as edge_headers
from infra.catalogue.names import service_name
from infra.settings import origins
from infra.settings.rate_limits import MAX_CONCURRENT
from infra.settings.reader import Section

# dify:bindAddress for every address of both families: `::` is IPv6 alone.
EVERYWHERE = "*"
ANY_IPV4, ANY_IPV6 = "0.0.0.0", "::"  # noqa: S104  # addresses to compare with
# The most that public networks of a list may add up to, as the prefix of one network, for IPv4 and IPv6. An address in
# trustedProxies can name any client: a large content network has less than this. Many networks may see the console.
WIDEST = {"trustedProxies": {4: 8, 6: 20}, "consoleAllowFrom": {4: 3, 6: 8}}
# A browser holds six to one host, and two programs may share an address.
LEAST_CONNECTIONS = 8
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


def addresses_of(bind_address: str) -> tuple[str, ...]:
    """Return the addresses that `dify:bindAddress` means."""
    return (ANY_IPV4, ANY_IPV6) if bind_address == EVERYWHERE else (bind_address,)


def read_bind_address(top: Section) -> str:
    """Read `dify:bindAddress`."""
    address = top.text("bindAddress")
    if address != EVERYWHERE and (problem := addresses.bind_problem(address)):
        top.problems.add(
            "bindAddress",
            address,
            problem,
            f"use an address of the engine's machine: 127.0.0.1, 0.0.0.0 for all of IPv4, :: for all of IPv6, "
            f"{EVERYWHERE} for both",
        )
    return address


def read_networks(top: Section, key: str) -> tuple[str, ...]:
    """Read addresses of networks. A list that covers too many addresses, alone or together, is reported."""
    listed = top.texts(key)
    for item in listed:
        if problem := addresses.clients_problem(item):
            top.problems.add(
                key,
                item,
                problem,
                "use an address or CIDR whose host bits are 0, such as 10.1.2.0/24, of the networks that you mean",
            )
    if family := addresses.too_wide(listed, WIDEST[key]):
        top.problems.add(
            key,
            ", ".join(listed),
            f"together they cover too much of {family}: public networks as large as "
            f"/{WIDEST[key][int(family[-1])]} at most",
            "name the networks that you mean",
        )
    return listed


def read_request_headers(top: Section) -> tuple[str, ...]:
    """Read `dify:requestHeaders`."""
    listed = top.texts("requestHeaders")
    for name in listed:
        if problem := edge_headers.name_problem(name):
            top.problems.add(
                "requestHeaders", name, problem, "name a header of your clients, such as X-Session-Token"
            )
    return listed


def read_ssrf_allow_private(top: Section, services: Collection[str]) -> tuple[str, ...]:
    """Read `dify:ssrfAllowPrivate`; `services` are the names of the stack's own."""
    listed = top.texts("ssrfAllowPrivate")
    for item in listed:
        if problem := _allowed_problem(item, services):
            top.problems.add(
                "ssrfAllowPrivate", item, problem, "use a private network (10.1.2.0/24) or wiki.internal"
            )
    return listed


def _allowed_problem(item: str, services: Collection[str]) -> str:
    if item[:1].isdigit() or ":" in item:
        return addresses.allowed_problem(item)
    name = item.removeprefix(".")
    if origins.host_problem(name) or not item.isascii():
        return "is neither network nor host name"
    if service_name(name) in services or name == "localhost":
        return "is a service of the stack itself"
    return addresses.destination_problem(name)


def read_ssrf_deny(top: Section) -> tuple[str, ...]:
    """Read `dify:ssrfDeny`."""
    listed = top.texts("ssrfDeny")
    for item in listed:
        network = addresses.network_of(item)
        if network is None or network.prefixlen == 0:
            problem = "is not a network" if network is None else "no address could be reached"
            top.problems.add("ssrfDeny", item, problem, "use an address or CIDR such as 203.0.113.0/24")
    return listed


def read_proxy_protocol(top: Section, trusted: Collection[str]) -> bool:
    """Read `dify:proxyProtocol`; `trusted` is `dify:trustedProxies`."""
    found = top.boolean("proxyProtocol")
    if found and not trusted:
        top.problems.add(
            "trustedProxies",
            [],
            "is empty, and with proxyProtocol every client has the address of the load balancer: all would share the "
            "limits of one address",
            "name the addresses from which the load balancer connects, or set proxyProtocol to false",
        )
    return found


def read_address_connections(top: Section) -> int:
    """Read `dify:addressConnections`."""
    most = top.integer("addressConnections", 0, MAX_CONCURRENT)
    if 0 < most < LEAST_CONNECTIONS:
        top.problems.add(
            "addressConnections",
            most,
            "is fewer than a browser opens for one page",
            f"use {LEAST_CONNECTIONS} or more, or 0 for any number",
        )
    return most
