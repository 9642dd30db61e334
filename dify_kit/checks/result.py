"""The result of one check, and how results are shown."""

from dataclasses import dataclass
from enum import StrEnum

from rich.console import Console
from rich.markup import escape
from rich.table import Table

GIB = 1024**3
_UNFOLDED = 400


class Status(StrEnum):
    """How a check ended. Only ``FAILED`` makes the exit code 1."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One result: what was checked, what was found, and what to do about it."""

    name: str
    status: Status
    found: str
    hint: str = ""


_SIGNS = {Status.OK: ("✓", "green"), Status.WARNING: ("!", "yellow"), Status.FAILED: ("✗", "bold red")}


def first_line(problem: object) -> str:
    """Return the first line of an error, shortened."""
    return (str(problem).strip().splitlines() or ["it has no message"])[0][:200]


def show(checks: list[Check]) -> None:
    """Print the checks as a table on stdout."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for check in checks:
        sign, style = _SIGNS[check.status]
        table.add_row(f"[{style}]{sign}[/]", check.name, _escaped(check))
    console = Console(highlight=False)
    if not console.is_terminal:
        # Lines of a file or a pipe are not folded: a folded path cannot be copied.
        console = Console(highlight=False, width=_UNFOLDED)
    console.print(table)


def _escaped(check: Check) -> str:
    return escape(check.found) + (f"\n[cyan]hint: {escape(check.hint)}[/]" if check.hint else "")
