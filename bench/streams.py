"""bench/sse and bench/soak: how late streamed events arrive, and whether many long streams hold."""

from collections.abc import Mapping, Sequence
from typing import Any

from bench import machine, peers, proxies
from bench.report import Cell, Report, Table
from bench.rig import Rig, rig
from bench.rounds import interleaved, percentile
from dify_kit.errors import KitError
from dify_kit.talk import say

DIRECT = "direct"
CHAT = "/v1/chat-messages"
# Short streams, a few at a time: what is measured is the way, not the queue.
LAG = {"streams": 40, "at_once": 4, "events": 10, "gap": 40, "deadline": 20}
SOAK = {"streams": 200, "at_once": 200, "events": 61, "gap": 1000, "deadline": 90}
GRACE_SECONDS = 60


def milliseconds(streams: Sequence[Mapping[str, Any]], *, first: bool) -> list[float]:
    """Return the lags of the first event, or of all events, of every stream that ended well."""
    good = [one["lags"] for one in streams if not one["problem"]]
    return [lag / 1000 for lags in good for lag in (lags[:1] if first else lags)]


def figures(streams: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the lags in ms. Raises ValueError when no stream ended well."""
    first, every = milliseconds(streams, first=True), milliseconds(streams, first=False)
    return {
        "first event p50 ms": percentile(first, 0.5),
        "first event p99 ms": percentile(first, 0.99),
        "event p50 ms": percentile(every, 0.5),
        "event p99 ms": percentile(every, 0.99),
        "event max ms": max(every),
    }


def _held(streams: Sequence[Mapping[str, Any]]) -> None:
    broken = [one["problem"] for one in streams if one["problem"]]
    if broken:
        raise KitError(f"{len(broken)} of {len(streams)} streams broke, the first: {broken[0]}")


def lag(command: str, *, rounds: int) -> Report:
    """Measure how late events come directly, through the edge, and through its peers."""
    context = proxies.measured_context()
    facts = machine.facts({"caddy": peers.CADDY.version, "traefik": peers.TRAEFIK.version})
    measured = proxies.everyone(context)
    ports = {DIRECT: proxies.UPSTREAM_PORT} | {proxy.name: proxy.port for proxy in measured}
    request = proxies.Request(host=context.server_names[0], path=CHAT)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in ports}
    raw = []
    with rig("sse", measured, proxies.aliases(context)) as running:
        for turn in interleaved(list(ports), rounds):
            streams = running.streams(request, ports[turn.name], LAG, seconds=LAG["deadline"] + GRACE_SECONDS)
            _held(streams)
            one = figures(streams)
            say(
                f"  round {turn.round} of {rounds}: {turn.name:<8} first event {one['first event p50 ms']:.2f} ms"
            )
            found[turn.name] += streams
            raw.append({"round": turn.round, "way": turn.name, **one})
    summary = {name: figures(streams) for name, streams in found.items()}
    return Report(
        name="sse",
        title="How late streamed events arrive",
        command=command,
        machine=facts,
        parameters={"rounds": rounds, **LAG},
        tables=(_table(summary),),
        notes=(
            "From the stamp that upstream puts into an event just before it writes it, to its arrival at the client.",
            f"`{DIRECT}` has no proxy: what it shows is the machine, the client and the upstream.",
        ),
        raw=raw,
        summary=summary,
    )


def _table(summary: Mapping[str, Mapping[str, float]]) -> Table:
    names = tuple(next(iter(summary.values())))
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (way, *(one[name] for name in names)) for way, one in summary.items()
    )
    return Table(title="Lag over all rounds", columns=("way", *names), rows=rows)


def soak(command: str) -> Report:
    """Hold many long streams through the edge at once. The report says it when some broke."""
    context = proxies.measured_context()
    edge = proxies.edge(context)
    facts = machine.facts()
    with rig("sse", [edge], proxies.aliases(context)) as running:
        say(f"  {SOAK['streams']} streams of {(SOAK['events'] - 1) * SOAK['gap'] / 1000:.0f} s ...")
        streams = _soak(running, edge)
    broken = [one["problem"] for one in streams if one["problem"]]
    summary: dict[str, float | int] = {
        "streams": len(streams),
        "ended well": len(streams) - len(broken),
        "events": sum(len(one["lags"]) for one in streams),
        "events expected": SOAK["streams"] * SOAK["events"],
        **(figures(streams) if len(broken) < len(streams) else {}),
    }
    say(f"  {summary['ended well']} of {len(streams)} streams ended well")
    return Report(
        name="soak",
        title="Many long event streams through the edge at once",
        command=command,
        machine=facts,
        parameters=SOAK,
        tables=(Table(title="What held", columns=tuple(summary), rows=(tuple(summary.values()),)),),
        notes=tuple(f"broken: {problem}" for problem in dict.fromkeys(broken)),
        problem=f"{len(broken)} of {len(streams)} streams broke, the first: {broken[0]}" if broken else "",
        raw=[
            {"stream": number, "events": len(one["lags"]), "worst ms": max(one["lags"], default=0) / 1000}
            for number, one in enumerate(streams)
        ],
        summary=summary,
    )


def _soak(running: Rig, edge: proxies.Proxy) -> list[dict[str, Any]]:
    request = proxies.Request(host=edge.request.host, path=CHAT)
    return running.streams(request, edge.port, SOAK, seconds=SOAK["deadline"] + GRACE_SECONDS)
