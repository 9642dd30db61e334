"""What a stack takes from a cluster: pods, memory, CPU and storage, as its pods request it and as they are limited."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infra.catalogue.releases import Release
from infra.catalogue.service import Keep, Tier
from infra.platforms.kubernetes import pods
from infra.platforms.kubernetes.storage import volume
from infra.services.limits import limits_of
from infra.services.specs import selection
from infra.settings.kubernetes import Kubernetes
from infra.settings.stack import Settings

# Of the API's resources, those that a pod of a stack requests and is limited in.
MEMORY, CPU = "memory", "cpu"
RESOURCES = (MEMORY, CPU)
GIB = 1024**3


def amount(quantity: object) -> float:
    """Return a quantity of the API as a number: bytes, cores, or a count (`512Mi`, `50m`, `3`)."""
    from kubernetes.utils.quantity import parse_quantity  # noqa: PLC0415  # takes a second

    return float(parse_quantity(quantity))


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What one pod of a service takes: bytes of memory and cores of CPU, by the name of the resource."""

    requests: Mapping[str, float]
    limits: Mapping[str, float]


def of_pod(service: str, settings: Settings) -> Demand:
    """Return what one pod of a service takes. Its init containers request less than the service."""
    found = pods.resources(limits_of(service, settings))
    return Demand(
        requests={name: amount(found["requests"][name]) for name in RESOURCES},
        limits={name: amount(found["limits"][name]) for name in RESOURCES},
    )


@dataclass(frozen=True, kw_only=True)
class Total:
    """What all pods together take, jobs excepted: they run while others do not yet."""

    pods: int
    requests: Mapping[str, float]
    limits: Mapping[str, float]


def running(settings: Settings, release: Release, chosen: Kubernetes) -> dict[str, int]:
    """Return how many pods each service has, without jobs."""
    return {
        name: chosen.replicas.get(name, 1)
        for name, one in selection(settings, release).services().items()
        if not one.job
    }


def total(settings: Settings, counts: Mapping[str, int]) -> Total:
    """Return what so many pods of each service take together."""
    each = {name: of_pod(name, settings) for name in counts}
    return Total(
        pods=sum(counts.values()),
        requests={
            kind: sum(each[name].requests[kind] * counts[name] for name in counts) for kind in RESOURCES
        },
        limits={kind: sum(each[name].limits[kind] * counts[name] for name in counts) for kind in RESOURCES},
    )


def claims(settings: Settings, release: Release, chosen: Kubernetes) -> list[str]:
    """Return the logical names of the volumes that are claims."""
    chosen_volumes: dict[str, Keep] = {}
    for tier in Tier:
        chosen_volumes |= selection(settings, release).volumes(tier)
    return [
        name
        for name, keep in chosen_volumes.items()
        if volume(name, keep, shared_class=chosen.shared_storage_class).claimed
    ]


def of_pods(listed: Sequence[Mapping[str, Any]], part: str = "requests") -> dict[str, float]:
    """Return what pods of the API take together: `pods`, bytes of memory and cores. `part`: requests or limits."""
    found = {"pods": float(len(listed)), **dict.fromkeys(RESOURCES, 0.0)}
    for pod in listed:
        for kind in RESOURCES:
            found[kind] += _of_pod(pod, part, kind)
    return found


def _of_pod(pod: Mapping[str, Any], part: str, kind: str) -> float:
    """Return what the scheduler counts for a pod: its containers together, or its largest init container."""
    spec = pod.get("spec") or {}
    main = sum(_of_container(one, part, kind) for one in spec.get("containers") or [])
    first = max((_of_container(one, part, kind) for one in spec.get("initContainers") or []), default=0.0)
    return max(main, first) + amount((spec.get("overhead") or {}).get(kind, 0))


def _of_container(container: Mapping[str, Any], part: str, kind: str) -> float:
    return amount(((container.get("resources") or {}).get(part) or {}).get(kind, 0))
