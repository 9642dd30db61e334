"""The commands about what callers of the LLM proxy used: show it, and let a caller begin again."""

import json
from collections.abc import Iterable
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Column, Table

from dify_kit.app import COMMANDS, DEFAULT_STACK, Group, Stack, app
from dify_kit.errors import KitError
from dify_kit.stack.llm_usage import URL, asked, document
from dify_kit.talk import say
from dify_kit.workspace.files import StackFiles
from infra import hints

# Short: the table fits a terminal of 80 columns, and numbers are never broken.
HEADINGS = ("calls", "failed", "est.", "in", "out", "cost")
# A number from here on is shown in this unit; one of dollars with so many decimals below.
UNITS = ((1_000_000_000, "G"), (1_000_000, "M"))
DECIMALS = ((100, 4), (10_000, 2))
COST_DIGITS = 6
FIELDS = ("requests", "failed", "estimated", "tokens_in", "tokens_out", "cost")
# What is counted of an upstream, and its heading.
SERVED = {"requests": "calls", "tokens_in": "in", "tokens_out": "out", "cost": "cost"}


commands = typer.Typer(cls=Group, name="usage", help=COMMANDS["usage"], invoke_without_command=True)
app.add_typer(commands)


@commands.callback()
def usage(
    context: typer.Context,
    stack: Stack = DEFAULT_STACK,
    month: Annotated[
        str, typer.Option(metavar="YYYY-MM", help="One month (UTC). [default: the newest one]")
    ] = "",
    upstreams: Annotated[
        bool,
        typer.Option("--upstreams", help="What each upstream served and how it failed, and nothing else."),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON on stdout: every month, or the chosen one.")
    ] = False,
) -> None:
    """Show tokens and cost of the LLM proxy by caller and model, and how often upstreams failed."""
    if context.invoked_subcommand:
        return
    answer = document(StackFiles.open(stack))
    months = by_upstream(answer) if upstreams else answer["months"]
    chosen = month or max((*answer["months"], *answer["upstreams"]), default="")
    if as_json:
        shown = {month: months.get(month, {})} if month else months
        typer.echo(json.dumps(_rounded(shown), indent=2, sort_keys=True))
        return
    rows = [] if upstreams else rows_of(answer["months"].get(chosen, {}))
    served = answer["served"].get(chosen, {}) if upstreams else {}
    failures = failures_of(answer["upstreams"].get(chosen, {}))
    if not rows and not served and not failures:
        what = "no upstream served or failed" if upstreams else "nothing was used"
        say(f"{what}{' in ' + chosen if chosen else ''}")
        return
    console = Console(width=None)
    if rows:
        table = _table("caller", "model", headings=HEADINGS, title=chosen)
        for caller, model, numbers in rows:
            table.add_row(caller, model, *(_text(name, numbers[name]) for name in FIELDS))
        table.add_section()
        table.add_row("all", "", *(_text(name, sum(row[2][name] for row in rows)) for name in FIELDS))
        console.print(table)
    if served:
        table = _table("upstream", headings=SERVED.values(), title=f"{chosen}, served by upstreams")
        for upstream, numbers in sorted(served.items()):
            table.add_row(upstream, *(_text(name, float(numbers.get(name) or 0)) for name in SERVED))
        console.print(table)
    if failures:
        table = Table(
            "upstream", "failed with", "times", title=f"{chosen}, failures of upstreams", box=SIMPLE
        )
        for upstream, status, times in failures:
            table.add_row(upstream, "200, an error or nothing" if status == "200" else status, f"{times:,}")
        console.print(table)


@commands.command()
def reset(
    caller: Annotated[str, typer.Argument(metavar="CALLER", help="As `dify-kit usage` shows it: key:web.")],
    stack: Stack = DEFAULT_STACK,
) -> None:
    """Forget what a caller used this month, so that its budget begins again. Earlier months stay."""
    files = StackFiles.open(stack)
    answer = json.loads(asked(files, "-X", "POST", f"{URL}/reset?caller={quote(caller, safe='')}"))
    if not answer["counters"]:
        callers = document(files)["months"].get(answer["month"], {})
        raise KitError(f"{caller} used nothing in {answer['month']}", hints.nearest(caller, callers))
    say(f"{caller} starts at zero: its use in {answer['month']} is forgotten")


def by_upstream(answer: dict[str, Any]) -> dict[str, Any]:
    """Return month -> upstream -> numbers, with `failures`: status -> how often."""
    served, failed = answer["served"], answer["upstreams"]
    return {
        month: {
            upstream: {
                **{name: served.get(month, {}).get(upstream, {}).get(name) or 0 for name in SERVED},
                "failures": failed.get(month, {}).get(upstream, {}),
            }
            for upstream in sorted({*served.get(month, {}), *failed.get(month, {})})
        }
        for month in sorted({*served, *failed})
    }


def _table(*names: str, headings: Iterable[str], title: str) -> Table:
    return Table(
        *(Column(name, overflow="fold") for name in names),
        *(Column(name, no_wrap=True, justify="right") for name in headings),
        title=title,
        box=SIMPLE,
        padding=(0, 1, 0, 0),
    )


def rows_of(callers: dict[str, Any]) -> list[tuple[str, str, dict[str, float]]]:
    """Return caller, model and numbers, every number named."""
    return [
        (caller, model, {name: float(numbers.get(name) or 0) for name in FIELDS})
        for caller, models in sorted(callers.items())
        for model, numbers in sorted(models.items())
    ]


def failures_of(upstreams: dict[str, Any]) -> list[tuple[str, str, int]]:
    """Return upstream, status and how often."""
    return [
        (upstream, status, int(times))
        for upstream, statuses in sorted(upstreams.items())
        for status, times in sorted(statuses.items())
    ]


def _rounded(counted: dict[str, Any]) -> dict[str, Any]:
    """Return what was counted, with costs to a millionth of a dollar: the sums have digits that mean nothing."""
    return {
        name: _rounded(value)
        if isinstance(value, dict)
        else round(value, COST_DIGITS)
        if name == "cost"
        else value
        for name, value in counted.items()
    }


def _text(name: str, value: float) -> str:
    """Return a number in at most 10 characters; `--json` has more of its digits."""
    if name == "cost":
        decimals = next((digits for below, digits in DECIMALS if value < below), 0)
        return f"${value:,.{decimals}f}"
    size, unit = next((one for one in UNITS if value >= one[0]), (1, ""))
    return f"{value / size:,.{2 if unit else 0}f}{unit}"
