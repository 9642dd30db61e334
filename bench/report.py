"""Results as files: a table to read and JSON to compare, each with what a reader needs to repeat them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
Cell = str | float | int


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of the report. Every row has as many cells as there are columns."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def __post_init__(self) -> None:
        """Refuse a row that does not fit: it would shift figures under other headings."""
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"{self.title}: {len(row)} cells for {len(self.columns)} columns: {row}")


@dataclass(frozen=True, kw_only=True)
class Report:
    """The result of one bench. `raw` holds each round's figures as they were measured.

    `problem` says what did not work, if something did not; slow is no problem.
    """

    name: str
    title: str
    command: str
    machine: Mapping[str, str]
    parameters: Mapping[str, Any]
    tables: tuple[Table, ...]
    notes: tuple[str, ...]
    raw: Sequence[Mapping[str, Any]]
    summary: Mapping[str, Any]
    problem: str = ""


def shown(cell: Cell) -> str:
    """Return a figure with the digits that it deserves: three, and all of those before the point."""
    if isinstance(cell, float):
        size = abs(cell)
        return f"{cell:,.0f}" if size >= 100 else f"{cell:.1f}" if size >= 10 else f"{cell:.2f}"
    return f"{cell:,}" if isinstance(cell, int) else cell.replace("|", "\\|")


def table_lines(table: Table) -> list[str]:
    """Return a table in Markdown, with its title."""
    lines = [f"## {table.title}", "", f"| {' | '.join(table.columns)} |", "|---" * len(table.columns) + "|"]
    return [*lines, *(f"| {' | '.join(shown(cell) for cell in row)} |" for row in table.rows), ""]


def markdown(report: Report, date: str) -> str:
    """Return the report to read."""
    raw = Table(
        title="Every round",
        columns=tuple(report.raw[0]) if report.raw else ("nothing",),
        rows=tuple(tuple(one.values()) for one in report.raw),
    )
    lines = [
        f"# {report.title}",
        "",
        f"{date}, by `{report.command}`.",
        "",
        *(line for table in report.tables for line in table_lines(table)),
        *([f"**{report.problem}**", ""] if report.problem else []),
        *(f"- {note}" for note in report.notes),
        *([""] if report.notes else []),
        "## Machine and parameters",
        "",
        *(f"- {key}: {value}" for key, value in {**report.machine, **report.parameters}.items()),
        "",
        *table_lines(raw),
    ]
    return "\n".join(lines).rstrip() + "\n"


def write(report: Report, out: Path = RESULTS) -> Path:
    """Write `<name>.md` and `<name>.json` and return the former."""
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    out.mkdir(parents=True, exist_ok=True)
    document = {"date": date} | asdict(report)
    (out / f"{report.name}.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    path = out / f"{report.name}.md"
    path.write_text(markdown(report, date), encoding="utf-8")
    return path
