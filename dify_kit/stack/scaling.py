"""What other numbers of pods cost: memory and CPU, room on the nodes, volumes, connections to the database."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infra.catalogue.services import SERVICES
from infra.guards.cluster_facts import NODES, Node, Plain, View, items, ready_nodes
from infra.platforms.kubernetes import demand
from infra.platforms.kubernetes.storage import SHARED
from infra.settings.kubernetes import SCALED, Kubernetes
from infra.settings.stack import Settings

PODS = "/api/v1/pods?fieldSelector=status.phase!=Succeeded,status.phase!=Failed"
MIB = 1024**2
POOL = ("SQLALCHEMY_POOL_SIZE", "SQLALCHEMY_MAX_OVERFLOW")
# The services with connection pools of that size, and how many processes of one pod have one.
POOLED = ("api", "worker")


@dataclass(frozen=True, kw_only=True)
class Room:
    """How many pods are added, and for how many of them the nodes have room; ``free`` is of all nodes together."""

    nodes: int
    added: int
    placed: int
    free: Mapping[str, float]

    @property
    def enough(self) -> bool:
        """Whether all of them can start."""
        return self.placed == self.added


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A change of numbers of pods. ``counts`` has service -> (before, after); ``room`` is None where it is unknown.

    ``connections`` is the most that api and worker open to the database, before and after; ``accepted`` how many the
    stack's own PostgreSQL accepts, None for an external one.
    """

    counts: Mapping[str, tuple[int, int]]
    before: demand.Total
    after: demand.Total
    room: Room | None
    connections: tuple[int, int]
    accepted: int | None
    notes: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """Return the plan for JSON: bytes, cores, counts."""
        return {
            "services": {name: {"before": old, "after": new} for name, (old, new) in self.counts.items()},
            **{
                name: {"pods": one.pods, "requests": dict(one.requests), "limits": dict(one.limits)}
                for name, one in (("before", self.before), ("after", self.after))
            },
            "room": None
            if self.room is None
            else {**vars(self.room), "free": dict(self.room.free), "enough": self.room.enough},
            "databaseConnections": {
                "before": self.connections[0],
                "after": self.connections[1],
                "accepted": self.accepted,
            },
            "notes": list(self.notes),
        }


def plan(before: Settings, after: Settings, view: View) -> Plan:
    """Return what a change of settings costs on a cluster. Raises ClusterError when that does not answer.

    Both settings are of a stack with `dify:platform kubernetes`.
    """
    old, new = _cluster(before), _cluster(after)
    counts = demand.running(before, before.dify, old), demand.running(after, after.dify, new)
    listed = items(view, NODES)
    pods = items(view, PODS)
    nodes = ready_nodes(listed) if listed is not None else []
    own = after.database is None
    return Plan(
        counts={
            name: (counts[0].get(name, 0), counts[1].get(name, 0))
            for part, name in SCALED.items()
            if name in counts[1]
        },
        before=demand.total(before, counts[0]),
        after=demand.total(after, counts[1]),
        room=None if listed is None or pods is None else room(after, counts[0], counts[1], nodes, pods),
        connections=(connections(before, counts[0]), connections(after, counts[1])),
        accepted=after.postgres_max_connections if own else None,
        notes=tuple(_notes(new, listed or [])),
    )


def _cluster(settings: Settings) -> Kubernetes:
    if settings.kubernetes is None:
        raise ValueError(f"stack {settings.stack} is on no cluster")
    return settings.kubernetes


def connections(settings: Settings, counts: Mapping[str, int]) -> int:
    """Return the most connections that the pools of api and worker hold to the database."""
    processes = {"api": settings.api_workers, "worker": settings.celery_workers}
    return sum(counts.get(one, 0) * processes[one] * _pool(settings, one) for one in POOLED)


def _pool(settings: Settings, service: str) -> int:
    """Return how many connections one process holds at most, by its variables."""
    own, known = settings.extra_env.get(service, {}), settings.dify.variables(service)
    return sum(
        int(own.get(name) or (known[name].compose or known[name].default if name in known else None) or 0)
        for name in POOL
    )


def room(
    settings: Settings,
    before: Mapping[str, int],
    after: Mapping[str, int],
    nodes: Sequence[Node],
    pods: Sequence[Plain],
) -> Room:
    """Return for how many of the added pods the nodes have room, each on the node with most memory left.

    A node's room is what it gives to pods less what those on it request.
    """
    kinds = (*demand.RESOURCES, "pods")
    free: dict[str, dict[str, float]] = {}
    for one in nodes:
        there = demand.of_pods([pod for pod in pods if (pod.get("spec") or {}).get("nodeName") == one.name])
        free[one.name] = {kind: one.allocatable[kind] - there[kind] for kind in kinds}
    total = {kind: sum(one[kind] for one in free.values()) for kind in kinds}
    added = [name for name in after for _ in range(max(0, after[name] - before.get(name, 0)))]
    placed = 0
    for name in added:
        wanted = {**demand.of_pod(name, settings).requests, "pods": 1.0}
        fitting = [left for left in free.values() if all(left[kind] >= wanted[kind] for kind in kinds)]
        if fitting:
            best = max(fitting, key=lambda left: left[demand.MEMORY])
            for kind in kinds:
                best[kind] -= wanted[kind]
            placed += 1
    return Room(nodes=len(nodes), added=len(added), placed=placed, free=total)


def _notes(chosen: Kubernetes, listed: Sequence[Plain]) -> list[str]:
    """Return what follows for volumes and zones."""
    found = []
    shared = sorted(
        part
        for part, name in SCALED.items()
        if any(mount.volume in SHARED for mount in SERVICES[name].mounts)
    )
    if chosen.shared_storage_class:
        found.append(
            f"{', '.join(shared)} share claim app-storage, which all nodes mount (class {chosen.shared_storage_class})"
        )
    else:
        found.append(
            f"{', '.join(shared)} share claim app-storage, which one node mounts: more than one pod of each needs "
            "dify:kubernetes.sharedStorageClass"
        )
    zones = sorted(
        {
            zone
            for one in listed
            if (zone := (one["metadata"].get("labels") or {}).get("topology.kubernetes.io/zone"))
        }
    )
    if len(zones) > 1:
        found.append(
            f"the nodes are in the zones {', '.join(zones)}: pods of a service are spread over nodes, and PostgreSQL, "
            "Redis and the vector store stay in the zones of their volumes"
        )
    found += [
        f"dify:kubernetes.autoscale.{part}: the cluster adds up to {chosen.autoscale[name].most} pods, not counted here"
        for part, name in SCALED.items()
        if name in chosen.autoscale
    ]
    return found
