"""Where programs on this machine listen for containers: an address that the network outside does not reach."""

import ipaddress

import docker


def bridge() -> str:
    """Return this machine's address on Docker's own bridge: containers reach it, the network outside does not."""
    found = docker.from_env().networks.get("bridge").attrs["IPAM"]["Config"][0]
    # Not every engine tells the gateway it has chosen; it is the first address.
    return str(found.get("Gateway") or ipaddress.ip_network(found["Subnet"])[1])
