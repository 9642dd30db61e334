"""What a cluster consists of, by its name: containers, addresses, ports, files."""

import re
from dataclasses import dataclass
from pathlib import Path

from dify_kit.errors import UsageError
from dify_kit.workspace.files import DataDir
from infra import hints

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
LABEL = "dify-kit.cluster"
PREFIX = "dify-kit-cluster-"
POD_RANGE, SERVICE_RANGE = "10.244.0.0/16", "10.96.0.0/16"
KUBERNETES_SERVICE, DNS_SERVICE = "10.96.0.1", "10.96.0.10"
API_PORT = 6443
# NodePorts of node1 that are published on this machine.
NODE_PORTS = (30080, 30443)
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, kw_only=True)
class Node:
    """A node: its name, its address in the cluster's Docker network, and the range of its pods."""

    name: str
    address: str
    pods: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A cluster. ``subnet`` has three bytes; ``ports`` maps ports of node1 to ports of 127.0.0.1 on this machine."""

    name: str
    subnet: str
    ports: dict[int, int]
    upstream_dns: tuple[str, ...]

    @property
    def nodes(self) -> tuple[Node, Node]:
        """The server, which also runs pods, and a worker."""
        server, worker = (
            Node(name=f"node{number}", address=f"{self.subnet}.{10 + number}", pods=f"10.244.{number}.0/24")
            for number in (1, 2)
        )
        return server, worker

    @property
    def server(self) -> Node:
        """The node with the control plane."""
        return self.nodes[0]

    @property
    def network(self) -> str:
        """The name of the cluster's Docker network."""
        return f"{PREFIX}{self.name}"

    @property
    def shared(self) -> str:
        """The name of the Docker volume that every node has at /shared."""
        return f"{PREFIX}{self.name}-shared"

    @property
    def api(self) -> str:
        """The URL of the API server on this machine."""
        return f"https://{LOOPBACK}:{self.ports[API_PORT]}"

    def container(self, node: Node) -> str:
        """Return the name of a node's container."""
        return container(self.name, node.name)


def container(cluster: str, node: str) -> str:
    """Return the name of the container of a node."""
    return f"{PREFIX}{cluster}-{node}"


def check_name(name: str) -> str:
    """Return a cluster's name when it can name containers; raise UsageError otherwise."""
    if not NAME.fullmatch(name):
        raise UsageError(
            f"CLUSTER={name}: must be 1 to 32 lower-case letters, digits and inner hyphens",
            f"choose another name, as in `{make('cluster', 'dev')}`",
        )
    return name


def make(target: str, name: str) -> str:
    """Return the command of `make` for a cluster."""
    return f"{hints.make(target)} CLUSTER={name}"


def directory(name: str) -> Path:
    """Return the directory of a cluster's files, below the kit's data directory."""
    return DataDir.locate().root / "clusters" / name


def kubeconfig(name: str) -> Path:
    """Return the path of the administrator's kubeconfig, for this machine."""
    return directory(name) / "kubeconfig"


def resolvers(*files: str) -> tuple[str, ...]:
    """Return the name servers of the first resolv.conf text that has some which a container reaches."""
    for text in files:
        found = re.findall(r"^\s*nameserver\s+(\S+)", text, re.MULTILINE)
        usable = tuple(one for one in found if not one.startswith(("127.", "::1")))
        if usable:
            return usable
    return ()
