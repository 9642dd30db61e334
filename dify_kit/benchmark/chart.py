"""The chart of a run: a panel for each percentile and one for throughput, each with its own axis."""

import datetime as dt
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from dify_kit.benchmark.statistics import PERCENTILES

MEASURES = {"latencyMs": "latency", "firstTokenMs": "first token"}
COLOURS = {"latency": "#4c78a8", "first token": "#f58518", "throughput": "#54a24b"}
MOST_STEPS = 5
ROUND_STEPS = (1, 2, 2.5, 5, 10)


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A value of a target, None where there is none. `text` is the value in words."""

    target: str
    measure: str
    colour: str
    value: float | None
    text: str


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A plot with its own axis from zero to the last tick."""

    title: str
    unit: str
    clusters: Sequence[Sequence[Bar]]
    ticks: Sequence[float]

    @property
    def top(self) -> float:
        """The value at the upper end of the axis."""
        return self.ticks[-1]


def chart(results: Sequence[dict[str, Any]], place: str, when: dt.datetime) -> str:
    """Return an SVG of all results. ``place`` is the stack, or the host of a URL."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["plain"] = plain
    streamed = any(_value(result, "firstTokenMs", "p50") is not None for result in results)
    return environment.get_template("chart.svg.j2").render(
        caption=caption(results, place, when),
        legend=[(name, COLOURS[name]) for name in MEASURES.values() if name == "latency" or streamed],
        panels=panels(results),
    )


def panels(results: Sequence[dict[str, Any]]) -> list[Panel]:
    """Return a panel for each percentile, and one for throughput."""
    found = [
        _panel(f"p{percent}", "ms", [_percentile_bars(result, f"p{percent}") for result in results])
        for percent in PERCENTILES
    ]
    rates = [[_bar(result, "throughput", result["throughput"], "requests/s")] for result in results]
    return [*found, _panel("Throughput", "requests/s", rates)]


def caption(results: Sequence[dict[str, Any]], place: str, when: dt.datetime) -> str:
    """Return what was measured where, when, and with how many requests."""
    counts, clients = _range(results, "requests"), _range(results, "concurrency")
    modes = " and ".join(sorted({str(result["mode"]) for result in results}))
    date = when.strftime("%Y-%m-%d %H:%M %Z").strip()
    each = " for each way" if len(results) > 1 else ""
    return f"{place}, {date}, {modes}, concurrency {clients}, {counts} requests{each}"


def ticks(most: float) -> list[float]:
    """Return round numbers from 0 to one that is at least ``most``, in at most five equal steps."""
    if most <= 0:
        return [0.0, 1.0]
    power = 10.0 ** math.floor(math.log10(most / MOST_STEPS))
    step = next(factor * power for factor in ROUND_STEPS if factor * power * MOST_STEPS >= most * (1 - 1e-9))
    return [number * step for number in range(math.ceil(most / step * (1 - 1e-9)) + 1)]


def plain(value: float) -> str:
    """Return a number without zeros behind its last digit: 0.5, 250, 1,000."""
    return f"{value:,.6f}".rstrip("0").rstrip(".")


def _percentile_bars(result: dict[str, Any], name: str) -> list[Bar]:
    """Return the bars of a target; one that did not stream has no first token."""
    return [
        _bar(result, label, value, "ms")
        for measure, label in MEASURES.items()
        if (value := _value(result, measure, name)) is not None or label == "latency"
    ]


def _bar(result: dict[str, Any], measure: str, value: float | None, unit: str) -> Bar:
    none = value is None or (unit != "ms" and not result["ok"])
    text = "none" if none or value is None else f"{value:,.0f}" if value >= 100 else f"{value:.1f}"  # noqa: PLR2004
    return Bar(
        target=result["target"],
        measure=measure,
        colour=COLOURS[measure],
        value=None if none else value,
        text=text if none else f"{text} {unit}",
    )


def _panel(title: str, unit: str, clusters: Sequence[Sequence[Bar]]) -> Panel:
    most = max((bar.value or 0.0 for bars in clusters for bar in bars), default=0.0)
    return Panel(title=title, unit=unit, clusters=clusters, ticks=ticks(most))


def _value(result: dict[str, Any], measure: str, name: str) -> float | None:
    found: float | None = result[measure][name]
    return found


def _range(results: Sequence[dict[str, Any]], key: str) -> str:
    numbers = sorted({int(result[key]) for result in results})
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
