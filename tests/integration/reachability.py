"""What a container of a stack reaches: tried from its own network namespace, whatever programs its image has."""

import ipaddress
import json
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import docker

from infra.engine import host_addresses
from support.stacks import Stack

CONNECT_SECONDS = 3
# Reads targets as JSON, connects to all of them at once, prints those that answered. A link-local address is tried on
# every interface: the one that it belongs to is not known here.
_PROBE = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor
seconds, targets = json.loads(sys.argv[1])
def spellings(host):
    if not host.startswith("fe80:"):
        return [host]
    return [f"{host}%{name}" for _, name in socket.if_nameindex() if name != "lo"]
def answers(target):
    for host in spellings(target[0]):
        try:
            socket.create_connection((host, target[1]), seconds).close()
            return True
        except OSError:
            pass
    return False
with ThreadPoolExecutor(max_workers=64) as pool:
    print(json.dumps([one for one, open_ in zip(targets, pool.map(answers, targets)) if open_]))
"""
Target = tuple[str, int]


@contextmanager
def host_listener() -> Iterator[int]:
    """Listen on every address of this machine, of both families, as a careless service does; yield the port."""
    everywhere = [(socket.AF_INET, "0.0.0.0")]  # noqa: S104  # that is the point
    if socket.has_ipv6:
        everywhere.append((socket.AF_INET6, "::"))
    listening: list[socket.socket] = []
    port = 0
    try:
        for family, address in everywhere:
            server = socket.socket(family)
            listening.append(server)
            if family == socket.AF_INET6:
                server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            server.bind((address, port))
            server.listen(256)
            port = int(server.getsockname()[1])
            threading.Thread(target=_accept, args=(server,), daemon=True).start()
        yield port
    finally:
        for server in listening:
            server.close()


def _accept(server: socket.socket) -> None:
    while True:
        try:
            server.accept()[0].close()
        except OSError:
            return


def host_targets(stack: Stack, port: int) -> list[Target]:
    """Return the listener by every address of the host that a container could try, the bridges' among them."""
    client = docker.from_env()
    bridges = {
        str(each["Gateway"])
        for network in client.networks.list(filters={"label": f"dify-kit.stack={stack.name}"})
        for each in network.attrs["IPAM"]["Config"]
        if each.get("Gateway")
    }
    own = {one.ip for one in host_addresses.own_addresses() if not one.is_loopback and not one.is_link_local}
    return sorted({(address, port) for address in bridges | {str(one) for one in own} | _link_local(stack)})


def _link_local(stack: Stack) -> set[str]:
    """Return the link-local IPv6 addresses of the stack's bridges."""
    bridges = {f"br-{one['Id'][:12]}" for one in networks_of(stack).values()}
    table = (host_addresses.PROC / "if_inet6").read_text(encoding="ascii")
    entries = [line.split() for line in table.splitlines()]
    return {str(ipaddress.IPv6Address(int(entry[0], 16))) for entry in entries if entry[-1] in bridges}


def reached_from(stack: Stack, service: str, targets: Iterable[Target]) -> list[Target]:
    """Return those of the targets that answer inside a service's container."""
    container = stack.container(service)
    program = docker.from_env().containers.run(
        stack.container("api").image.id,
        ["-c", _PROBE, json.dumps([CONNECT_SECONDS, list(targets)])],
        entrypoint=["python3"],
        network_mode=f"container:{container.id}",
        remove=True,
        # A root of the container with what it may have at most.
        user="0",
    )
    return [(str(host), int(port)) for host, port in json.loads(program)]


def networks_of(stack: Stack) -> dict[str, dict[str, Any]]:
    """Return the stack's networks by their logical name, as the engine shows them."""
    found = docker.from_env().networks.list(filters={"label": f"dify-kit.stack={stack.name}"})
    return {str(one.name).removeprefix(f"dify-{stack.name}-"): one.attrs for one in found}


def networks_of_service(stack: Stack, service: str) -> set[str]:
    """Return the networks that a service's container is attached to, by their engine-wide names."""
    return set(stack.container(service).attrs["NetworkSettings"]["Networks"])


def inside_only(stack: Stack) -> set[str]:
    """Return the running services whose networks are all internal: those with no way out of their own."""
    networks = networks_of(stack)
    open_ = {f"dify-{stack.name}-{name}" for name, one in networks.items() if not one["Internal"]}
    found = set()
    for service in stack.containers():
        attached: Mapping[str, Any] = stack.container(service).attrs["NetworkSettings"]["Networks"]
        running = stack.container(service).attrs["State"]["Running"]
        if running and attached and not (set(attached) & open_):
            found.add(service)
    return found


FORBIDDEN, UNREACHABLE = 403, 503
_ASK = """
import json, socket, sys, time
def ask(host):
    at = f"[{host}]" if ":" in host else host
    with socket.create_connection(("127.0.0.1", 3128), 20) as proxy:
        proxy.sendall(f"GET http://{at}:8000/ HTTP/1.1\\r\\nHost: {at}\\r\\nConnection: close\\r\\n\\r\\n".encode())
        return int(proxy.recv(100).split(b" ")[1])
for _ in range(100):
    try:
        socket.create_connection(("127.0.0.1", 3128), 1).close()
        break
    except OSError:
        time.sleep(0.2)
print(json.dumps({host: ask(host) for host in sys.argv[1:]}))
"""


def answers_of_proxy(stack: Stack, service: str, hosts: Iterable[str]) -> dict[str, int]:
    """Ask a copy of one of the stack's proxies for each address; return the status that it answered.

    The copy has its image and its configuration, IPv6, and no network. Squid drops rules about IPv6 where its container
    has none, as the stack's own has not unless the engine is configured to give it one.
    """
    client, original = docker.from_env(), stack.container(service)
    configuration, _ = original.get_archive("/etc/squid/squid.conf")
    copy = client.containers.create(
        original.image.id,
        original.attrs["Config"]["Cmd"],
        entrypoint=original.attrs["Config"]["Entrypoint"],
        user=original.attrs["Config"]["User"],
        network_mode="none",
        sysctls={"net.ipv6.conf.all.disable_ipv6": "0", "net.ipv6.conf.lo.disable_ipv6": "0"},
        name=f"dify-{stack.name}-copy-of-{service}",
    )
    try:
        copy.put_archive("/etc/squid", b"".join(configuration))
        copy.start()
        program = client.containers.run(
            stack.container("api").image.id,
            ["-c", _ASK, *hosts],
            entrypoint=["python3"],
            network_mode=f"container:{copy.id}",
            remove=True,
        )
    finally:
        copy.remove(force=True)
    found: dict[str, int] = json.loads(program)
    return found
