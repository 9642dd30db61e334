"""What was measured: a table for people, JSON for machines."""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dify_kit.benchmark.chart import MEASURES
from dify_kit.benchmark.load import Run
from dify_kit.benchmark.statistics import errors, reasons, summary
from dify_kit.benchmark.targets import Target


def result_of(target: Target, found: Run, concurrency: int) -> dict[str, Any]:
    """Return the summary of a run with what was asked of it; nothing secret."""
    return {
        "target": target.name,
        "mode": "streaming" if target.streaming else "blocking",
        "concurrency": concurrency,
        "warmUp": {
            "requests": len(found.warm_up),
            "errors": errors(found.warm_up),
            "reasons": reasons(found.warm_up),
        },
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
    for words, part in (("error", result), ("warm-up error", result["warmUp"])):
        for error, count in part["errors"].items():
            table.add_row(f"{words} {error}", str(count))
            for reason, times in part["reasons"].get(error, {}).items():
                table.add_row(Text(f"  {reason}"), str(times))
    Console().print(table)
