"""Refuses a cluster without what a stack needs: version, nodes, quotas, limits and a free port."""

import platform
import re
from collections.abc import Mapping, Sequence

from infra.catalogue.releases import Release
from infra.guards.cluster_facts import NODES, VERSION, Node, Plain, View, items, of_namespace, ready_nodes
from infra.guards.findings import Refusal
from infra.platforms.kubernetes import demand
from infra.platforms.kubernetes.names import STACK_LABEL
from infra.platforms.kubernetes.workloads import EDGE
from infra.settings.kubernetes import PRELOADED, Kubernetes
from infra.settings.stack import Settings

# `preStop.sleep` is on by default since then.
LEAST_VERSION = (1, 30)
# What Dify, PostgreSQL, Redis, nginx and squid publish images for.
PUBLISHED_FOR = frozenset({"amd64", "arm64"})
_MACHINES: Mapping[str, str] = {"x86_64": "amd64", "aarch64": "arm64"}
_MIB = 1024**2


def machine() -> str:
    """Return the architecture that images built on this machine are for, as Kubernetes names it."""
    name = platform.machine().lower()
    return _MACHINES.get(name, name)


def of_cluster(settings: Settings, chosen: Kubernetes, view: View) -> list[Refusal]:
    """Return why the cluster as a whole cannot run the stack: its version, its nodes."""
    found = _version(chosen, view.look(VERSION) or {})
    listed = items(view, NODES)
    return [*found, *(_nodes(settings, chosen, listed) if listed is not None else ())]


def _version(chosen: Kubernetes, told: Plain) -> list[Refusal]:
    numbers = re.findall(r"\d+", f"{told.get('major', '')}.{told.get('minor', '')}")
    if len(numbers) < len(LEAST_VERSION) or (int(numbers[0]), int(numbers[1])) >= LEAST_VERSION:
        return []
    least = ".".join(map(str, LEAST_VERSION))
    return [
        Refusal(
            problem=f"dify:kubernetes.context: {chosen.context!r}: the cluster is Kubernetes "
            f"{told.get('gitVersion') or '.'.join(numbers)}, and {least} is the oldest that runs the stack",
            fix=f"upgrade the cluster to {least} or newer, or name the context of another one",
        )
    ]


def architectures(settings: Settings, chosen: Kubernetes) -> frozenset[str]:
    """Return the architectures that all images of the stack are for; empty where this machine cannot tell."""
    builds = settings.images == "local" or settings.gateway
    if not builds:
        return PUBLISHED_FOR
    return frozenset() if chosen.registry in {"", PRELOADED} else frozenset({machine()})


def _nodes(settings: Settings, chosen: Kubernetes, listed: Sequence[Plain]) -> list[Refusal]:
    nodes = ready_nodes(listed)
    key = f"dify:kubernetes.context: {chosen.context!r}"
    if not nodes:
        return [
            Refusal(
                problem=f"{key}: none of the cluster's {len(listed)} node(s) takes pods: all are not ready, cordoned "
                "or tainted",
                fix="see `kubectl get nodes`, and `kubectl uncordon` those that may run the stack",
            )
        ]
    wanted = architectures(settings, chosen)
    if not wanted or any(one.architecture in wanted for one in nodes):
        return []
    return [
        Refusal(
            problem=f"{key}: its nodes are {_of(nodes)}, and the images of the stack are for "
            f"{', '.join(sorted(wanted))}",
            fix=f"add nodes of that architecture, or build the images on a machine of theirs and use "
            f"kubernetes.registry {PRELOADED}",
        )
    ]


def _of(nodes: Sequence[Node]) -> str:
    return ", ".join(sorted({one.architecture or "of an unknown architecture" for one in nodes}))


def warnings(settings: Settings, chosen: Kubernetes, view: View) -> list[str]:
    """Return what does not stop a deployment: nodes that cannot run the images, next to those that can."""
    wanted = architectures(settings, chosen)
    unfit = [
        one.name for one in ready_nodes(items(view, NODES) or []) if wanted and one.architecture not in wanted
    ]
    if not unfit:
        return []
    found = (
        f"dify:kubernetes.context: the images are for {', '.join(sorted(wanted))}, and these nodes cannot run them: "
        f"{', '.join(sorted(unfit))}. Taint them, or pods that start there fail with `exec format error`"
    )
    return [found]


def of_namespace_limits(
    settings: Settings, release: Release, chosen: Kubernetes, view: View
) -> list[Refusal]:
    """Return the quotas and limits of the namespace that the stack does not fit."""
    quotas = items(view, of_namespace(chosen.namespace, "resourcequotas")) or []
    ranges = items(view, of_namespace(chosen.namespace, "limitranges")) or []
    return [
        *(one for quota in quotas for one in _quota(settings, release, chosen, view, quota)),
        *(one for limits in ranges for one in _limits(settings, release, chosen, limits)),
    ]


def _wanted(settings: Settings, release: Release, chosen: Kubernetes) -> dict[str, float]:
    """Return what the stack takes, by the names that quotas have for it."""
    total = demand.total(settings, demand.running(settings, release, chosen))
    claims = len(demand.claims(settings, release, chosen))
    return {
        "pods": total.pods,
        **{kind: total.requests[kind] for kind in demand.RESOURCES},
        **{f"requests.{kind}": total.requests[kind] for kind in demand.RESOURCES},
        **{f"limits.{kind}": total.limits[kind] for kind in demand.RESOURCES},
        "persistentvolumeclaims": claims,
        "requests.storage": float(claims * chosen.volume_gigabytes * demand.GIB),
        "services.loadbalancers": float(chosen.service_type == "LoadBalancer"),
        "services.nodeports": float(chosen.service_type != "ClusterIP"),
    }


def _held(settings: Settings, chosen: Kubernetes, view: View) -> dict[str, float]:
    """Return what the namespace's objects of this stack take already, by the names of `_wanted`."""
    selector = f"?labelSelector={STACK_LABEL}%3D{settings.stack}"
    pods = [
        pod
        for pod in items(view, of_namespace(chosen.namespace, "pods") + selector) or []
        if (pod.get("status") or {}).get("phase") not in {"Succeeded", "Failed"}
    ]
    requests = demand.of_pods(pods)
    limits = demand.of_pods(pods, "limits")
    claims = [
        one
        for one in view.claims(chosen.namespace).values()
        if (one["metadata"].get("labels") or {}).get(STACK_LABEL) == settings.stack
    ]
    edge = view.look(of_namespace(chosen.namespace, f"services/{EDGE}")) or {}
    kind = str((edge.get("spec") or {}).get("type") or "")
    return {
        **{name: requests[name] for name in ("pods", *demand.RESOURCES)},
        **{f"requests.{name}": requests[name] for name in demand.RESOURCES},
        **{f"limits.{name}": limits[name] for name in demand.RESOURCES},
        "persistentvolumeclaims": len(claims),
        "requests.storage": sum(demand.amount(_storage(one)) for one in claims),
        "services.loadbalancers": float(kind == "LoadBalancer"),
        "services.nodeports": float(kind in {"LoadBalancer", "NodePort"}),
    }


def _storage(claim: Plain) -> object:
    return ((claim["spec"].get("resources") or {}).get("requests") or {}).get("storage", 0)


def _quota(
    settings: Settings, release: Release, chosen: Kubernetes, view: View, quota: Plain
) -> list[Refusal]:
    """Return what a quota does not leave the stack. One with scopes counts some pods alone, and is not compared."""
    spec = quota.get("spec") or {}
    if spec.get("scopes") or spec.get("scopeSelector"):
        return []
    hard = spec.get("hard") or {}
    used = (quota.get("status") or {}).get("used") or {}
    wanted, held = _wanted(settings, release, chosen), _held(settings, chosen, view)
    lacking = []
    for kind in sorted(set(hard) & set(wanted)):
        others = max(0.0, demand.amount(used.get(kind, 0)) - held[kind])
        left = demand.amount(hard[kind]) - others
        if wanted[kind] > left:
            lacking.append(f"{kind}: {_text(kind, wanted[kind])} of {_text(kind, left)}")
    if not lacking:
        return []
    return [
        Refusal(
            problem=f"dify:kubernetes.namespace: {chosen.namespace!r}: its ResourceQuota "
            f"{quota['metadata']['name']} has less than the stack takes: {', '.join(lacking)}",
            fix="raise the quota, or lower dify:kubernetes.replicas, dify:kubernetes.volumeGigabytes or dify:resources",
        )
    ]


def _text(kind: str, number: float) -> str:
    if kind.endswith(("memory", "storage")):
        return f"{number / _MIB:.0f}Mi"
    return f"{number:g}"


def _limits(settings: Settings, release: Release, chosen: Kubernetes, limits: Plain) -> list[Refusal]:
    """Return the services whose pods a LimitRange refuses, and the claims."""
    found: list[str] = []
    for rule in (limits.get("spec") or {}).get("limits") or []:
        if rule.get("type") in {"Container", "Pod"}:
            for service in demand.running(settings, release, chosen):
                found += [f"{service} ({why})" for why in _outside(rule, demand.of_pod(service, settings))]
        elif rule.get("type") == "PersistentVolumeClaim":
            size = float(chosen.volume_gigabytes * demand.GIB)
            asked = demand.Demand(requests={"storage": size}, limits={"storage": size})
            found += [f"its claims ({why})" for why in _outside(rule, asked)]
    if not found:
        return []
    return [
        Refusal(
            problem=f"dify:kubernetes.namespace: {chosen.namespace!r}: its LimitRange {limits['metadata']['name']} "
            f"refuses {', '.join(dict.fromkeys(found))}",
            fix="change the LimitRange, or dify:resources.<service> (memory, cpus) and dify:kubernetes.volumeGigabytes",
        )
    ]


def _outside(rule: Plain, asked: demand.Demand) -> list[str]:
    """Return which bounds of a rule a pod does not keep."""
    found = []
    for kind, limit in asked.limits.items():
        request = asked.requests[kind]
        most, least = (demand.amount((rule.get(key) or {}).get(kind, 0)) for key in ("max", "min"))
        ratio = demand.amount((rule.get("maxLimitRequestRatio") or {}).get(kind, 0))
        if most and limit > most:
            found.append(f"{kind} limit {_text(kind, limit)} is more than {_text(kind, most)}")
        if least and request < least:
            found.append(f"{kind} request {_text(kind, request)} is less than {_text(kind, least)}")
        if ratio and limit / request > ratio:
            found.append(f"{kind} limit is {limit / request:g} times the request, more than {ratio:g} times")
    return found


def of_port(chosen: Kubernetes, view: View, *, exists: bool) -> list[Refusal]:
    """Return why the cluster does not give the edge its node port: out of its range, or of another Service."""
    if not chosen.node_port:
        return []
    edge = view.look(of_namespace(chosen.namespace, f"services/{EDGE}")) if exists else None
    held = {one.get("nodePort") for one in ((edge or {}).get("spec") or {}).get("ports") or []}
    if chosen.node_port in held:
        return []
    where = chosen.namespace if exists else "default"
    port = {"name": "probe", "port": 443, "protocol": "TCP", "nodePort": chosen.node_port}
    why = view.refused(
        of_namespace(where, "services"),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"generateName": "dify-kit-check-"},
            "spec": {"type": "NodePort", "ports": [port]},
        },
    )
    if not why:
        return []
    return [
        Refusal(
            problem=f"dify:kubernetes.nodePort: {chosen.node_port}: the cluster refuses it: {_line(why)}",
            fix="use a port of its range (30000 to 32767 unless the cluster says otherwise) that no Service has; "
            "0 lets the cluster choose",
            setting="kubernetes.nodePort",
            value="0",
        )
    ]


def _line(text: str) -> str:
    return text.splitlines()[0][:300]
