"""Refuses ports and addresses that the edge could not publish, before anything is created or removed.

The engine finds out only when it starts the edge, which comes last: after the data, Dify and its admin; and on a
change after the edge that ran was removed.
"""

import errno
import ipaddress
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from infra import engine
from infra.engine import host_addresses
from infra.guards.findings import Publisher, Refusal, View
from infra.settings.network import ANY_IPV4, ANY_IPV6, addresses_of
from infra.settings.origins import MAX_PORT
from infra.settings.stack import Settings

ENGINE_TIMEOUT_SECONDS = 15
# A free port is looked for among so many.
_CANDIDATES = 50
# Where to look for one instead of a port that other servers often have.
_UNPRIVILEGED = 1024
_INSTEAD = {80: 8080, 443: 8443}


def refusals(settings: Settings, view: View) -> list[Refusal]:
    """Return why the edge could not publish its ports."""
    ports = {"httpPort": settings.http_port} | ({"httpsPort": settings.https_port} if settings.tls.on else {})
    found = (_refusal(settings, view, key, port, tuple(ports.values())) for key, port in ports.items())
    return [one for one in found if one is not None]


def _refusal(settings: Settings, view: View, key: str, port: int, own: Sequence[int]) -> Refusal | None:
    found = view.publishers(port)
    if found is None:
        return None
    addresses = addresses_of(settings.bind_address)
    problem = conflict(addresses, port, found, f"dify-{settings.stack}-nginx", local=view.local())
    if problem is None:
        return None
    at, reason, fix = problem
    if at:
        return Refusal(problem=f"dify:{at}: {settings.bind_address} {reason}", fix=fix, setting=at)
    free = free_port(view, addresses, port, own)
    if free:
        fix = f"{fix}; {free} is free"
    return Refusal(
        problem=f"dify:{key}: {port} {reason}", fix=fix, setting=key, value=str(free) if free else ""
    )


def free_port(view: View, addresses: Sequence[str], port: int, own: Sequence[int] = ()) -> int | None:
    """Return a port that can be published instead of another; None when none of the next ones can.

    `own` are those of the same stack.
    """
    first = _INSTEAD.get(port, port if port >= _UNPRIVILEGED else port + 8000)
    for candidate in range(first, min(first + _CANDIDATES, MAX_PORT + 1)):
        if candidate in own or candidate == port:
            continue
        found = view.publishers(candidate)
        if found is None:
            return None
        if conflict(addresses, candidate, found, "", local=view.local()) is None:
            return candidate
    return None


def conflict(
    addresses: Sequence[str], port: int, found: Sequence[Publisher], edge: str, *, local: bool
) -> tuple[str, str, str] | None:
    """Say what keeps the container `edge` from publishing a port; None when nothing does.

    Returns (the setting that is wrong, empty for the port's own; the reason; what to do about it). What the running
    edge itself holds is free to it. Addresses of the host are checked where the engine is `local`.
    """
    others = [one for one in found if one.container != edge]
    for one in others:
        if overlap(addresses, one.addresses):
            return "", f"is published by container {one.container}", _OTHER_PORT
    if not local:
        return None
    own = {address for one in found if one.container == edge for address in one.addresses}
    for address in addresses:
        if missing := address_problem(address):
            return "bindAddress", missing, _OTHER_ADDRESS
        if address in own:
            continue
        if reason := _taken(address, port, own):
            return "", f"on {address} cannot be used: {reason}", _OTHER_PORT
    return None


_OTHER_PORT = "stop what uses it, or choose another port"
_OTHER_ADDRESS = "use one that `ip address` shows, 127.0.0.1, or 0.0.0.0 for every IPv4 interface"


def publishers(endpoint: engine.Endpoint, port: int) -> list[Publisher] | None:
    """Return the running containers that publish a TCP port; None when the engine does not answer."""
    import docker  # noqa: PLC0415  # the program needs the engine's API for its guards only
    import requests  # noqa: PLC0415

    try:
        listed = endpoint.client(ENGINE_TIMEOUT_SECONDS).api.containers()
    except (docker.errors.DockerException, requests.RequestException):
        # The provider reports the cause in a moment.
        return None
    return published(listed, port)


def published(listed: Sequence[Mapping[str, Any]], port: int) -> list[Publisher]:
    """Return the containers that publish a TCP port, from the engine's list."""
    found = []
    for entry in listed:
        addresses = [
            str(one.get("IP") or ANY_IPV4)
            for one in entry.get("Ports") or []
            if one.get("PublicPort") == port and one.get("Type") == "tcp"
        ]
        if addresses:
            found.append(Publisher(container=entry["Names"][0].removeprefix("/"), addresses=tuple(addresses)))
    return found


def overlap(wanted: Sequence[str], held: Sequence[str]) -> bool:
    """Tell whether one of the wanted addresses cannot be bound while the others are held."""
    return any(
        one == other or (_family(one) == _family(other) and {one, other} & {ANY_IPV4, ANY_IPV6})
        for one in wanted
        for other in held
    )


def address_problem(address: str) -> str:
    """Say why this machine cannot listen on an address at all; empty when it can."""
    return bind_problem(address, 0)


def bind_problem(address: str, port: int) -> str:
    """Say why nothing can listen there; empty when something can, or when only the engine may."""
    try:
        probe = socket.socket(_family(address), socket.SOCK_STREAM)
    except OSError as problem:
        return f"is of a family that this machine does not have: {problem.strerror or problem}"
    with probe:
        # As the engine does it: a port in TIME_WAIT is free, a listening one is not, and :: is IPv6 alone.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if probe.family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            probe.bind((address, port))
        except PermissionError:
            return ""  # a privileged port; the engine runs as root
        except OSError as problem:
            return problem.strerror or str(problem)
    return ""


def _taken(address: str, port: int, own: set[str]) -> str:
    """Say why the port of an address is not free once the running edge has released what it holds (`own`)."""
    if not overlap((address,), tuple(own)):
        return bind_problem(address, port)
    # The edge itself prevents a trial: the kernel's table has the other listeners.
    ours = {ipaddress.ip_address(one) for one in own}
    others = {str(one) for one in host_addresses.listeners(port) if one not in ours}
    return os.strerror(errno.EADDRINUSE) if overlap((address,), tuple(others)) else ""


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET
