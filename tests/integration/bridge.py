"""Where programs on this machine listen for containers: an address that the network outside does not reach."""

import ipaddress
import socket

import docker


def bridge() -> str:
    """Return this machine's address on Docker's own bridge: containers reach it, the network outside does not."""
    found = docker.from_env().networks.get("bridge").attrs["IPAM"]["Config"][0]
    # Not every engine tells the gateway it has chosen; it is the first address.
    return str(found.get("Gateway") or ipaddress.ip_network(found["Subnet"])[1])


def free_port(address: str) -> int:
    """Return a port of an address that nothing listens on."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])
