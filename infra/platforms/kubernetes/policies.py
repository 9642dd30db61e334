"""The networks of a stack as NetworkPolicies: default deny, then exactly the graph of `infra.catalogue.networks`."""

from collections.abc import Mapping, Sequence
from typing import Any

from infra.catalogue import ports
from infra.catalogue.services import LLM_EDGE, NGINX
from infra.platforms.kubernetes.names import MEMBER, STACK_LABEL, dns_label, network_label, selector
from infra.services.spec import ServiceSpec

DNS: Mapping[str, Any] = {
    "to": [
        {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
            "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
        }
    ],
    "ports": [{"port": 53, "protocol": protocol} for protocol in ("UDP", "TCP")],
}
# Ports by which pods of nginx trust what another one says about a client: those of the replicas that count as one, and
# of the owner of the LLM proxy's counts. They follow each other.
TRUSTING = (ports.EDGE_RING, ports.EDGE_OWNER, ports.EDGE_OWNER_INSIDE)
ALL_BUT_TRUSTING: Sequence[Mapping[str, Any]] = (
    {"port": 1, "endPort": min(TRUSTING) - 1, "protocol": "TCP"},
    {"port": max(TRUSTING) + 1, "endPort": 65535, "protocol": "TCP"},
    {"port": 1, "endPort": 65535, "protocol": "UDP"},
)
# Addresses that no service needs outside of the cluster: the metadata service of clouds gives out credentials.
LINK_LOCAL = {"0.0.0.0/0": ["169.254.0.0/16"], "::/0": ["fe80::/10", "fd00:ec2::/32"]}


def namespace(name: str, stack: str) -> dict[str, Any]:
    """Return the namespace of a stack.

    The Pod Security level is `baseline`: `restricted` refuses every container that starts as root, as PostgreSQL, Redis
    and the sandboxes do, before they drop their rights.
    """
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": name,
            "labels": {STACK_LABEL: stack, "pod-security.kubernetes.io/enforce": "baseline"},
        },
    }


def policies(
    stack: str, networks: Mapping[str, bool], *, ring: bool = False, owner: bool = False
) -> list[dict[str, Any]]:
    """Return the policies of a stack's networks; the value says whether one is internal, without a way out.

    `ring`: several pods of nginx count as one, by a port that trusts what it receives about a client. It is open to
    pods of nginx alone, and no network of the stack opens it. `owner`: so has the owner of the LLM proxy's counts.
    """
    return [
        policy(stack, "default-deny", {}, {"policyTypes": ["Ingress", "Egress"]}),
        *(_members(stack, network, trusting=ring or owner) for network in networks),
        *(_outside(stack, network) for network, internal in networks.items() if not internal),
        *([_ring(stack)] if ring else []),
        *(_owner(stack) if owner else []),
    ]


def published(stack: str, spec: ServiceSpec) -> dict[str, Any] | None:
    """Return the policy that opens the published ports of a service to every address; None without such ports."""
    numbers = sorted({port.internal for port in spec.ports})
    if not numbers:
        return None
    ingress = [{"ports": [{"port": number, "protocol": "TCP"} for number in numbers]}]
    return policy(
        stack,
        f"published-{dns_label(spec.name)}",
        {"matchLabels": dict(selector(spec.name))},
        {"policyTypes": ["Ingress"], "ingress": ingress},
    )


def policy(stack: str, name: str, pods: Mapping[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the policy of the pods that a selector finds."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "labels": {STACK_LABEL: stack}},
        "spec": {"podSelector": dict(pods), **body},
    }


def _in(network: str) -> dict[str, Any]:
    """Return a selector of the pods in a network."""
    return {"matchLabels": {network_label(network): MEMBER}}


def _ring(stack: str) -> dict[str, Any]:
    """Return the policy by which pods of nginx reach each other's counts."""
    edge = {"matchLabels": dict(selector(NGINX))}
    peers = [{"podSelector": edge}]
    numbers = [{"port": ports.EDGE_RING, "protocol": "TCP"}]
    body = {
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": peers, "ports": numbers}],
        "egress": [{"to": peers, "ports": numbers}],
    }
    return policy(stack, "edge-ring", edge, body)


def _owner(stack: str) -> list[dict[str, Any]]:
    """Return the policies by which pods of nginx reach the owner of the LLM proxy's counts."""
    edge, owner = ({"matchLabels": dict(selector(name))} for name in (NGINX, LLM_EDGE))
    numbers = [{"port": port, "protocol": "TCP"} for port in (ports.EDGE_OWNER, ports.EDGE_OWNER_INSIDE)]
    # Where a policy has both directions, kube-router lets in what either of them allows: one for each.
    into = {"policyTypes": ["Ingress"], "ingress": [{"from": [{"podSelector": edge}], "ports": numbers}]}
    out = {"policyTypes": ["Egress"], "egress": [{"to": [{"podSelector": owner}], "ports": numbers}]}
    return [policy(stack, LLM_EDGE, owner, into), policy(stack, f"to-{LLM_EDGE}", edge, out)]


def _members(stack: str, network: str, *, trusting: bool) -> dict[str, Any]:
    """Return the policy by which the pods of a network reach each other, and the cluster's DNS."""
    peers = [{"podSelector": _in(network)}]
    numbers = {"ports": list(ALL_BUT_TRUSTING)} if trusting else {}
    body = {
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": peers, **numbers}],
        # Where a policy has both directions, kube-router lets in what either of them allows.
        "egress": [{"to": peers, **numbers}, DNS],
    }
    return policy(stack, f"network-{dns_label(network)}", _in(network), body)


def _outside(stack: str, network: str) -> dict[str, Any]:
    """Return the policy of a network's way out. Pods of other namespaces are reachable where theirs let it."""
    blocks = [{"ipBlock": {"cidr": cidr, "except": excepted}} for cidr, excepted in LINK_LOCAL.items()]
    return policy(
        stack,
        f"outside-{dns_label(network)}",
        _in(network),
        {"policyTypes": ["Egress"], "egress": [{"to": blocks}]},
    )
