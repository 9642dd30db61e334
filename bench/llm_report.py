"""What bench/llm reports: one turn of each way, the tables, and the goals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench import edge
from bench.report import Cell, Table
from bench.rig import Measured
from bench.rounds import Turn, median, percentile

DIRECT, OURS, LITELLM_1, LITELLM_2 = "direct", "dify-kit", "LiteLLM, 1 worker", "LiteLLM, 2 workers"
# Each connection rests so long (ms, mean) before a request. Otherwise both cores are full, and what is measured is the
# queue in front of them.
PACED, GENTLE = 8, 600
# Short streams, a few at a time: what is measured is the way, not the queue.
STREAM = {"streams": 24, "at_once": 2, "events": 10, "gap": 20, "deadline": 30}
# Goals, of issue 6 and docs/decisions/0008. Nothing fails when one is missed.
GOALS: Mapping[str, float] = {
    "added p50 ms": 1,
    "added p99 ms": 5,
    "requests/s of LiteLLM, 1 worker, on a core of its own": 50,
    "requests/s of LiteLLM, 2 workers, on a core of its own": 50,
    "requests/s of LiteLLM, 1 worker, all on the same cores": 50,
    "requests/s of LiteLLM, 2 workers, all on the same cores": 50,
    "added to the first token ms": 3,
}
NOTES = (
    f"{DIRECT}: the load asks the upstream itself, over TLS; its CPU time is the upstream's.",
    (
        f"{OURS}: the edge with `dify:llm`: a proxy key as the caller, limits, a budget, metering, the JSON access "
        "log. It checks the upstream's certificate, as LiteLLM does."
    ),
    (
        "LiteLLM: set up for production as it is documented, but without a database: the master key as the caller, no "
        "budgets, no spend kept, no access log. With two workers it is served by granian: under uvicorn, its default, "
        "one worker takes all connections that are opened at once, and the other has nothing to do."
    ),
    (
        "On a core of its own: the proxy, whatever number of workers it has, gets one core, load and upstream the "
        "other one. What one core carries is the proxy's alone."
    ),
    (
        "All on the same cores: load, proxy and upstream share two full cores (LiteLLM's one worker fills one), and "
        "load and upstream take about a third from a proxy that is fast. What a proxy adds there is mostly waiting "
        "for a core, so the goals for latency are judged paced."
    ),
    (
        f"Paced: each of the connections rests {PACED} ms (mean) before a request; LiteLLM cannot keep up with that. "
        f"Gentle: {GENTLE} ms, which it can; p99 of so few requests is coarse."
    ),
    (
        "First token: from the request, sent over an open connection, to the first event with content; "
        f"{STREAM['at_once']} streams at a time."
    ),
)


@dataclass(frozen=True, kw_only=True)
class Taken:
    """One turn: as many requests as go through, on a core of its own and on all, paced and gentle, and streams."""

    alone: Measured
    full: Measured
    paced: Measured
    gentle: Measured
    streams: Sequence[Mapping[str, Any]]

    @property
    def first_tokens(self) -> list[float]:
        """How long each stream's first token took, in ms."""
        return [one["first"] / 1000 for one in self.streams]


def first_tokens(found: Sequence[tuple[Turn, Taken]]) -> dict[str, dict[str, float]]:
    """Return for each way the medians over the rounds of its streams' p50 and p99, in ms."""
    names = dict.fromkeys(turn.name for turn, _ in found)
    return {
        name: {
            "p50 ms": median(own, lambda one: percentile(one.first_tokens, 0.5)),
            "p99 ms": median(own, lambda one: percentile(one.first_tokens, 0.99)),
        }
        for name in names
        for own in [[one for turn, one in found if turn.name == name]]
    }


def added_table(title: str, figures: Mapping[str, edge.Figures]) -> Table:
    """Return latencies, and what each way adds to direct."""
    base = figures[DIRECT]
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (name, one.rate, one.p50, one.p50 - base.p50, one.p99, one.p99 - base.p99, one.cpu)
        for name, one in figures.items()
    )
    columns = ("way", "requests/s", "p50 ms", "added", "p99 ms", "added", "CPU µs/request")
    return Table(title=title, columns=columns, rows=rows)


def judged(
    alone: Mapping[str, edge.Figures],
    full: Mapping[str, edge.Figures],
    paced: Mapping[str, edge.Figures],
    tokens: Mapping[str, Mapping[str, float]],
) -> dict[str, float]:
    """Return what the goals are about, by their names."""
    return {
        "added p50 ms": paced[OURS].p50 - paced[DIRECT].p50,
        "added p99 ms": paced[OURS].p99 - paced[DIRECT].p99,
        **{
            f"requests/s of {peer}, {where}": rates[OURS].rate / rates[peer].rate
            for where, rates in (("on a core of its own", alone), ("all on the same cores", full))
            for peer in (LITELLM_1, LITELLM_2)
        },
        "added to the first token ms": tokens[OURS]["p50 ms"] - tokens[DIRECT]["p50 ms"],
    }


def goals(found: Mapping[str, float]) -> Table:
    """Return what was wanted beside what is. Goals about multiples of a rate want more, the others less."""
    rows = []
    for name, goal in GOALS.items():
        more = name.startswith("requests/s")
        met = found[name] >= goal if more else found[name] <= goal
        rows.append(
            (name, f"{'at least' if more else 'at most'} {goal:g}", found[name], "yes" if met else "no")
        )
    return Table(title="Goals for our proxy", columns=("what", "goal", "measured", "met"), rows=tuple(rows))


def raw(found: Sequence[tuple[Turn, Taken]]) -> list[dict[str, Any]]:
    """Return every turn's figures as they were measured."""
    return [
        {
            "round": turn.round,
            "way": turn.name,
            **{
                f"{kind} {name}": value
                for kind, one in (
                    ("alone", taken.alone),
                    ("full", taken.full),
                    ("paced", taken.paced),
                    ("gentle", taken.gentle),
                )
                for name, value in (
                    ("requests/s", one.load.rate),
                    ("p50 ms", one.load.p50),
                    ("p99 ms", one.load.p99),
                    ("CPU µs", one.cpu),
                )
            },
            "first token p50 ms": percentile(taken.first_tokens, 0.5),
            "first token p99 ms": percentile(taken.first_tokens, 0.99),
        }
        for turn, taken in found
    ]
