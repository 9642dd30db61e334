"""What was measured: a table for people, JSON for machines, a chart for both."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from rich.console import Console
from rich.table import Table

from dify_kit.benchmark.load import Run
from dify_kit.benchmark.statistics import PERCENTILES, errors, summary
from dify_kit.benchmark.targets import Target

BAR, GAP = 40, 48
PLOT_HEIGHT = 240
COLOURS = ("#4c78a8", "#f58518", "#e45756")
MEASURES = {"latencyMs": "latency", "firstTokenMs": "first token"}


def result_of(target: Target, found: Run, concurrency: int) -> dict[str, Any]:
    """Return the summary of a run with what was asked of it; nothing secret."""
    return {
        "target": target.name,
        "mode": "streaming" if target.streaming else "blocking",
        "concurrency": concurrency,
        "warmUp": {"requests": len(found.warm_up), "errors": errors(found.warm_up)},
        **summary(found.samples, found.seconds),
    }


def show(result: dict[str, Any]) -> None:
    """Print one target's table."""
    table = Table("measure", "value", title=f"{result['target']}, {result['mode']}")
    for name in ("requests", "ok", "concurrency"):
        table.add_row(name, str(result[name]))
    table.add_row("requests/s", f"{result['throughput']:.1f}")
    for name, label in MEASURES.items():
        for percent, value in result[name].items():
            table.add_row(f"{label} {percent}", "-" if value is None else f"{value:.1f} ms")
    for error, count in result["errors"].items():
        table.add_row(f"error {error}", str(count))
    for error, count in result["warmUp"]["errors"].items():
        table.add_row(f"warm-up error {error}", str(count))
    Console().print(table)


def chart(results: Sequence[dict[str, Any]]) -> str:
    """Return an SVG: for each target the percentiles of its latency, and of its first token when it streamed."""
    groups = [
        (result["target"], label, result[measure])
        for result in results
        for measure, label in MEASURES.items()
        if measure == "latencyMs" or result[measure]["p50"] is not None
    ]
    most = max((value for *_, values in groups for value in values.values() if value), default=1.0)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
    )
    return environment.get_template("chart.svg.j2").render(
        groups=groups,
        names=[f"p{percent}" for percent in PERCENTILES],
        colours=COLOURS,
        most=most,
        bar=BAR,
        gap=GAP,
        plot=PLOT_HEIGHT,
    )
