"""Several replicas of the edge that count as one: `templates/nginx/http/ring.conf.j2` says how.

Each key that limits count by has one owner among the replicas. A step is one owner that a request passes, with the
zones that count there.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from infra.catalogue import ports
from infra.catalogue.services import NGINX
from infra.edge.limits import ADDRESS_KEY, ATTEMPT_KEY, ConnectionZone, EdgeLimits, RateZone

# Templates that exist for several replicas alone: one replica has the files that it always had.
TEMPLATES = frozenset(
    f"nginx/{name}.conf.j2" for name in ("http/ring", "parts/ring_next", "parts/ring_step", "servers/ring")
)
# What an owner derives from the address that it receives.
BY_ADDRESS = frozenset({ADDRESS_KEY, ATTEMPT_KEY})
# A replica on a node that is gone answers no connection; one without a pod refuses it.
CONNECT_SECONDS = 1
# Time for two dead owners, and shorter than every time to wait for a response: one that was sent is not sent again.
NEXT_MILLISECONDS = 2500


@dataclass(frozen=True, kw_only=True)
class Step:
    """An owner that a request passes: the variable to find it by, and the names of the zones that count there."""

    name: str
    key: str
    zones: frozenset[str]

    @property
    def by_credential(self) -> bool:
        """Whether it counts by a credential or a tenant."""
        return self.key != ADDRESS_KEY


@dataclass(frozen=True, kw_only=True)
class EdgeRing:
    """The replicas as the templates read them, as `edge.ring`; `replicas` are their host names.

    `nothing` is the name of an upstream for what is counted and needs no service.
    """

    replicas: Sequence[str]
    port: int = ports.EDGE_RING
    connect_seconds: int = CONNECT_SECONDS
    next_milliseconds: int = NEXT_MILLISECONDS
    nothing: str = "counted"


def replica_names(count: int) -> tuple[str, ...]:
    """Return the host names of the replicas: those of the pods of a StatefulSet."""
    return tuple(f"{NGINX}-{index}" for index in range(count))


def elsewhere(limits: EdgeLimits) -> EdgeLimits:
    """Return limits of which none is counted here."""
    none: tuple[()] = ()
    return replace(
        limits, rates=dict.fromkeys(limits.rates, none), connections=dict.fromkeys(limits.connections, none)
    )


def steps(limits: EdgeLimits, names: Iterable[str], *, verified: bool = False) -> tuple[Step, ...]:
    """Return the owners that a request passes where all of `names` apply; `verified` as in `EdgeLimits.rates_at`.

    That of the address is the last: a request that the limit of its credential refuses does not count for the address.
    """
    found: dict[str, list[tuple[str, RateZone | ConnectionZone]]] = {}
    for name in names:
        for zone in _zones(limits, name, verified=verified):
            found.setdefault(_owner(zone), []).append((name, zone))
    return tuple(
        Step(
            name="-".join([*(_word(name) for name in dict.fromkeys(name for name, _ in zones)), _word(key)]),
            key=key,
            zones=frozenset(zone.name for _, zone in zones),
        )
        for key, zones in sorted(found.items(), key=lambda one: one[0] == ADDRESS_KEY)
    )


def _zones(limits: EdgeLimits, name: str, *, verified: bool) -> Iterator[RateZone | ConnectionZone]:
    yield from limits.rates_at((name,), verified=verified)
    yield from limits.connections_at((name,), verified=verified)


def _owner(zone: RateZone | ConnectionZone) -> str:
    return ADDRESS_KEY if zone.key in BY_ADDRESS else zone.key


def _word(text: str) -> str:
    return text.removeprefix("$").removeprefix("limit_").removeprefix("oauth_").replace(" ", "_")
