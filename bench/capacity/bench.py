"""bench/capacity: what replicas of the edge and of the gateway serve, beside what the model says of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from bench import machine
from bench.capacity import planning
from bench.capacity.measuring import CORES, JOINED, PARTS, measure
from bench.capacity.model import BUSY, FITTED, Demand, fitted
from bench.capacity.replicas import Group, Taken
from bench.load import CONNECTIONS
from bench.report import Cell, Report, Table
from bench.rounds import Turn, median
from infra.catalogue.project import declared

Turns = Sequence[tuple[Turn, Group, Taken]]


def by_count(turns: Turns, part: str) -> dict[int, list[Taken]]:
    """Return what was measured of a part, by the number of replicas."""
    found: dict[int, list[Taken]] = {}
    for _, group, taken in turns:
        if group.part == part:
            found.setdefault(group.count, []).append(taken)
    return found


def demands(turns: Turns) -> dict[str, Demand]:
    """Return the model of each part."""
    return {
        part: fitted(
            {count: [one.cpu for one in taken] for count, taken in by_count(turns, part).items()},
            joined=part in JOINED,
        )
        for part in PARTS
    }


def compared(turns: Turns, models: Mapping[str, Demand]) -> Table:
    """Return what was measured beside what the model says of it, and how far it is off."""
    rows: list[tuple[Cell, ...]] = []
    for part, model in models.items():
        for count, taken in by_count(turns, part).items():
            cpu, rate = median(taken, lambda one: one.cpu), median(taken, lambda one: one.rate)
            expected, most = model.of(count), model.rate(count, CORES[part])
            rows.append(
                (
                    part,
                    count,
                    "fitted" if count in FITTED else "predicted",
                    cpu,
                    expected,
                    _off(expected, cpu),
                    rate,
                    most,
                    _off(most, rate),
                )
            )
    return Table(
        title="Measured, and what the model says",
        columns=(
            "part",
            "replicas",
            "model",
            "CPU µs/request",
            "by the model",
            "off",
            "requests/s",
            "by the model",
            "off",
        ),
        rows=tuple(rows),
    )


def _off(said: float, measured: float) -> str:
    return f"{(said / measured - 1) * 100:+.0f} %"


def parameters(models: Mapping[str, Demand]) -> Table:
    """Return the parameters of the models, which plans are made from."""
    return Table(
        title="The model, in CPU µs for each request",
        columns=("part", "one replica", "several", "for the share of other replicas"),
        rows=tuple((part, one.alone, one.several, one.remote) for part, one in models.items()),
    )


def raw(turns: Turns) -> list[dict[str, Any]]:
    """Return every turn's figures as they were measured."""
    return [
        {
            "round": turn.round,
            "part": group.part,
            "replicas": group.count,
            "requests/s": taken.rate,
            "CPU µs/request": taken.cpu,
        }
        for turn, group, taken in turns
    ]


def run(command: str, *, rounds: int, seconds: int) -> Report:
    """Measure, fit, compare, plan, and return the report."""
    facts = machine.facts()
    turns = measure(rounds=rounds, seconds=seconds)
    models = demands(turns)
    return Report(
        name="capacity",
        title="What replicas of the edge and of the gateway serve",
        command=command,
        machine=facts,
        parameters={
            "rounds": rounds,
            "seconds": seconds,
            "connections to each replica": CONNECTIONS,
            **{f"cores of a replica: {part}": cores for part, cores in CORES.items()},
        },
        tables=(
            compared(turns, models),
            parameters(models),
            planning.table(models, connections=int(declared()["apiWorkerConnections"]["default"])),
        ),
        notes=(
            *(f"{part}: {what}" for part, what in PARTS.items()),
            (
                "fitted: the model is made from these rounds; predicted: it was not. Requests/s by the model are the "
                "cores of the replicas, divided by the CPU time of a request: these were never fitted."
            ),
            (
                f"A plan has each replica {BUSY * 100:.0f} % busy at most, with a core for each replica of edge and "
                "gateway, and two of each at least."
            ),
        ),
        raw=raw(turns),
        summary={part: vars(one) for part, one in models.items()},
    )
