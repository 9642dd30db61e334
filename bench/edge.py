"""bench/edge: our edge beside bare nginx, Caddy and Traefik, on one tiny upstream, in interleaved rounds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench import machine, peers, proxies
from bench.load import CONNECTIONS, THREADS
from bench.report import Report, Table
from bench.rig import Measured, rig
from bench.rounds import Turn, interleaved, median
from dify_kit.talk import say

WARM_UP_SECONDS = 1
BASE = "bare"


@dataclass(frozen=True, kw_only=True)
class Figures:
    """The medians of one proxy over all rounds. `rate` in requests/s, times in ms, `cpu` in µs per request."""

    rate: float
    p50: float
    p99: float
    cpu: float


def medians(turns: Sequence[tuple[Turn, Measured]]) -> dict[str, Figures]:
    """Return each proxy's medians, in the order of the first round."""
    names = dict.fromkeys(turn.name for turn, _ in turns)
    return {
        name: Figures(
            rate=median(own, lambda one: one.load.rate),
            p50=median(own, lambda one: one.load.p50),
            p99=median(own, lambda one: one.load.p99),
            cpu=median(own, lambda one: one.cpu),
        )
        for name in names
        for own in [[measured for turn, measured in turns if turn.name == name]]
    }


def ratios(found: Mapping[str, Figures], base: str = BASE) -> dict[str, Figures]:
    """Return each proxy's figures as multiples of those of `base`."""
    unit = found[base]
    return {
        name: Figures(
            rate=one.rate / unit.rate,
            p50=one.p50 / unit.p50,
            p99=one.p99 / unit.p99,
            cpu=one.cpu / unit.cpu,
        )
        for name, one in found.items()
    }


def comparison(found: Mapping[str, Figures]) -> Table:
    """Return the table that the bench is made for."""
    relative = ratios(found)
    return Table(
        title="Medians, and their ratio to bare nginx",
        columns=(
            "proxy",
            "requests/s",
            "ratio",
            "p50 ms",
            "p99 ms",
            "p99 ratio",
            "CPU µs/request",
            "CPU ratio",
        ),
        rows=tuple(
            (name, one.rate, of.rate, one.p50, one.p99, of.p99, one.cpu, of.cpu)
            for name, one in found.items()
            for of in [relative[name]]
        ),
    )


def measure(
    measured: Sequence[proxies.Proxy], *, rounds: int, seconds: int, upstream: Sequence[str]
) -> list[tuple[Turn, Measured]]:
    """Load the proxies in turn and return every turn's figures."""
    by_name = {proxy.name: proxy for proxy in measured}
    turns = []
    with rig("json", measured, upstream) as running:
        for proxy in measured:
            running.load(proxy, seconds=WARM_UP_SECONDS)
        for turn in interleaved(list(by_name), rounds):
            one = running.load(by_name[turn.name], seconds=seconds)
            say(
                f"  round {turn.round} of {rounds}: {turn.name:<10} {one.load.rate:8,.0f} requests/s  "
                f"p99 {one.load.p99:6.2f} ms  {one.cpu:6.1f} µs CPU"
            )
            turns.append((turn, one))
    return turns


def raw(turns: Sequence[tuple[Turn, Measured]]) -> list[dict[str, Any]]:
    """Return every turn's figures as they were measured."""
    return [
        {
            "round": turn.round,
            "proxy": turn.name,
            "requests": one.load.requests,
            "requests/s": one.load.rate,
            "p50 ms": one.load.p50,
            "p99 ms": one.load.p99,
            "CPU µs/request": one.cpu,
        }
        for turn, one in turns
    ]


def run(command: str, *, rounds: int, seconds: int) -> Report:
    """Measure, and return the report."""
    context = proxies.measured_context()
    facts = machine.facts({"caddy": peers.CADDY.version, "traefik": peers.TRAEFIK.version})
    measured = proxies.everyone(context)
    turns = measure(measured, rounds=rounds, seconds=seconds, upstream=proxies.aliases(context))
    found = medians(turns)
    relative = ratios(found)
    return Report(
        name="edge",
        title="The edge beside bare nginx, Caddy and Traefik",
        command=command,
        machine=facts,
        parameters={
            "rounds": rounds,
            "seconds": seconds,
            "connections": CONNECTIONS,
            "wrk threads": THREADS,
            "workers of each proxy": proxies.worker_count(context),
        },
        tables=(comparison(found),),
        notes=tuple(f"{name}: {what}" for name, what in proxies.FEATURES.items()),
        raw=raw(turns),
        summary={name: {"ratios": vars(relative[name]), "medians": vars(one)} for name, one in found.items()},
    )
