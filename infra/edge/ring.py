"""Several replicas of the edge that count as one.

Each key that limits count by has one owner among the replicas, found by a consistent hash. The owner of the client's
address does what a single replica does; limits of credentials and tenants are counted by their own owners, which the
request passes on its way to the service. `templates/nginx/http/ring.conf.j2` has the order.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from infra.catalogue import ports
from infra.catalogue.services import NGINX
from infra.edge.limits import ADDRESS_KEY, ATTEMPT_KEY, ConnectionZone, EdgeLimits, RateZone

# Templates that exist for several replicas alone: one replica has the files that it always had.
TEMPLATES = frozenset(
    f"nginx/{name}.conf.j2"
    for name in (
        "http/ring",
        "parts/ring_front",
        "parts/ring_inside",
        "parts/ring_next",
        "parts/ring_step",
        "servers/ring_count",
        "servers/ring_front",
    )
)
# What the owner of the address derives itself, or counted already.
BY_ADDRESS = frozenset({ADDRESS_KEY, ATTEMPT_KEY})
# What the front tells the owner of the address about the client, and what owners tell each other.
FRONT_HEADERS = ("X-Ring-Address", "X-Ring-Proto", "X-Ring-Port", "X-Ring-Peer")
STEP_HEADERS = (
    *("X-Ring-Limit", "X-Ring-Key", "X-Ring-Next-Limit", "X-Ring-Next-Key"),
    *("X-Ring-Service", "X-Ring-Call", "X-Ring-Retry"),
)
# A replica on a node that is gone answers no connection; one without a pod refuses it.
CONNECT_SECONDS = 1
FAILURES, FAILED_SECONDS = 2, 5


@dataclass(frozen=True, kw_only=True)
class Step:
    """The zones of one limit that count by a credential or a tenant.

    `key` is the variable to find the owner by, `counted` that of the owner's zones: empty for requests of other limits.
    """

    name: str
    key: str
    rates: tuple[RateZone, ...]
    connections: tuple[ConnectionZone, ...]

    @property
    def counted(self) -> str:
        """The variable that the owner counts by."""
        return _counted(self.name)


@dataclass(frozen=True, kw_only=True)
class EdgeRing:
    """The replicas as the templates read them, as `edge.ring`. `replicas` are their host names, `steps` by limit."""

    replicas: Sequence[str]
    steps: Mapping[str, Step] = field(default_factory=dict)
    address_port: int = ports.EDGE_ADDRESS_OWNER
    count_port: int = ports.EDGE_COUNT_OWNER
    connect_seconds: int = CONNECT_SECONDS
    failures: int = FAILURES
    failed_seconds: int = FAILED_SECONDS
    front_headers: Sequence[str] = FRONT_HEADERS
    dropped_headers: Sequence[str] = STEP_HEADERS

    @property
    def upstreams(self) -> tuple[tuple[str, str, int], ...]:
        """The rings: the name of the upstream, the variable to find the owner by, and the port."""
        return (
            ("ring_address", ADDRESS_KEY, self.address_port),
            ("ring_count", "$ring_key", self.count_port),
        )

    def steps_at(self, names: Iterable[str]) -> tuple[Step, ...]:
        """Return the steps where all of `names` apply, in their order. There are two at most."""
        return tuple(self.steps[name] for name in names if name in self.steps)


def replica_names(count: int) -> tuple[str, ...]:
    """Return the host names of the replicas: those of the pods of a StatefulSet."""
    return tuple(f"{NGINX}-{index}" for index in range(count))


def divided(limits: EdgeLimits, replicas: Sequence[str]) -> tuple[EdgeLimits, EdgeRing]:
    """Return the limits that the owner of an address counts, and the ring with all others."""
    steps = {step.name: step for step in _steps(limits)}
    own = replace(
        limits,
        rates={
            name: tuple(zone for zone in zones if zone.key in BY_ADDRESS)
            for name, zones in limits.rates.items()
        },
        connections={
            name: tuple(zone for zone in zones if zone.key in BY_ADDRESS)
            for name, zones in limits.connections.items()
        },
    )
    return own, EdgeRing(replicas=tuple(replicas), steps=steps)


def _steps(limits: EdgeLimits) -> Iterator[Step]:
    for name in limits.rates:
        rates = tuple(zone for zone in limits.rates[name] if zone.key not in BY_ADDRESS)
        connections = tuple(zone for zone in limits.connections[name] if zone.key not in BY_ADDRESS)
        if not (rates or connections):
            continue
        counted = _counted(name)
        yield Step(
            name=name,
            key=(*rates, *connections)[0].key,
            rates=tuple(replace(zone, key=counted, name=f"{zone.name}_owner") for zone in rates),
            connections=tuple(replace(zone, key=counted, name=f"{zone.name}_owner") for zone in connections),
        )


def _counted(name: str) -> str:
    return f"$ring_by_{name}"
