"""From requests a second to replicas: what `docs/guides/capacity.md` shows for 10, 100 and 1,000 of them."""

from collections.abc import Mapping
from dataclasses import dataclass

from bench.capacity.measuring import EDGE_TOKEN, INTROSPECTION, ISSUE
from bench.capacity.model import BUSY, MICROSECONDS, Demand, slots
from bench.report import Table

RATES = (10, 100, 1000)
# nginx asks the gateway again about a token after this time.
INTROSPECTED_SECONDS = 4


@dataclass(frozen=True, kw_only=True)
class Load:
    """What is asked of a stack: requests/s with tokens that take ``seconds`` each, from so many clients.

    Each client keeps its token for ``token_seconds``.
    """

    rate: float
    seconds: float = 5.0
    clients: int = 100
    token_seconds: int = 3600

    @property
    def running(self) -> float:
        """How many requests run at a time, by Little's law."""
        return self.rate * self.seconds


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Replicas of each part for a load; ``edge_cores`` and ``gateway_cores`` are what they use together.

    ``api_processes`` follow from the requests that run at a time, not from CPU time: that depends on the apps.
    """

    load: Load
    edges: int
    edge_cores: float
    gateways: int
    gateway_cores: float
    api_processes: int


def introspections(load: Load, edges: int) -> float:
    """Return how often the gateway is asked about a token, a second: each replica of the edge remembers by itself."""
    return min(load.rate, load.clients * edges / INTROSPECTED_SECONDS)


def plan(load: Load, demands: Mapping[str, Demand], *, connections: int, cores: float = 1.0) -> Plan:
    """Return the plan for a load. ``connections`` of one api process, ``cores`` of one replica of the kit's parts.

    Two replicas of the edge and of the gateway are the least: one of them may be lost.
    """
    edge = demands[EDGE_TOKEN]
    edges = max(2, edge.least(load.rate, cores))
    ask, issue = demands[INTROSPECTION], demands[ISSUE]
    asked, issued = introspections(load, edges), load.clients / load.token_seconds
    gateways = 2
    while _gateway_cores(gateways, ask, asked, issue, issued) > gateways * cores * BUSY:
        gateways += 1
    return Plan(
        load=load,
        edges=edges,
        edge_cores=load.rate * edge.of(edges) / MICROSECONDS,
        gateways=gateways,
        gateway_cores=_gateway_cores(gateways, ask, asked, issue, issued),
        api_processes=slots(load.rate, load.seconds, connections),
    )


def _gateway_cores(count: int, ask: Demand, asked: float, issue: Demand, issued: float) -> float:
    return (asked * ask.of(count) + issued * issue.of(count)) / MICROSECONDS


def table(demands: Mapping[str, Demand], *, connections: int, seconds: float = 5.0) -> Table:
    """Return the plans for `RATES` as a table."""
    plans = [plan(Load(rate=rate, seconds=seconds), demands, connections=connections) for rate in RATES]
    return Table(
        title=f"Planned, for requests of {seconds:.0f} s from 100 clients with tokens",
        columns=(
            "requests/s",
            "at a time",
            "edge",
            "its cores",
            "gateway",
            "its cores",
            f"api processes of {connections} connections",
        ),
        rows=tuple(
            (
                int(one.load.rate),
                round(one.load.running),
                one.edges,
                round(one.edge_cores, 3),
                one.gateways,
                round(one.gateway_cores, 3),
                one.api_processes,
            )
            for one in plans
        ),
    )
