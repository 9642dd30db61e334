"""`dify-kit diff`: in what two stacks differ."""

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from dify_kit.app import app
from dify_kit.commands.selected import require_configured
from dify_kit.errors import KitError, UsageError
from dify_kit.talk import say
from dify_kit.watch.differences import UNKNOWN, Differences, Pair, Value, compare, shown
from dify_kit.workspace.files import StackFiles

_UNFOLDED = 400


@app.command()
def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="A stack.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another stack.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the differences as JSON on stdout.")] = False,
) -> None:
    """Compare two stacks: settings, release, images, secrets by fingerprint, clients by name.

    Exits with 0 when they are equal, with 1 when they differ, and with 2 when they cannot be compared. Neither has to
    be deployed.
    """
    try:
        one, other = StackFiles.look(a), StackFiles.look(b)
        require_configured(one)
        require_configured(other)
        found = compare(one, other)
    except KitError as problem:
        # 1 says that they differ.
        raise UsageError(problem.message, problem.hint) from None
    if as_json:
        typer.echo(json.dumps(document(found), indent=2, default=str))
    elif found.equal:
        say(f"stacks {a} and {b} are equal")
    else:
        _show(found)
    raise typer.Exit(0 if found.equal else 1)


def document(found: Differences) -> dict[str, Any]:
    """Return the differences in types of JSON."""
    return {
        "equal": found.equal,
        "stacks": [found.a, found.b],
        **{part: [_entry(pair) for pair in pairs] for part, pairs in found.parts().items()},
    }


def _entry(pair: Pair) -> dict[str, Any]:
    return {
        "name": pair.name,
        **{
            side: asdict(value) if isinstance(value, Value) else value
            for side, value in (("a", pair.a), ("b", pair.b))
        },
    }


def _show(found: Differences) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_UNFOLDED)
    columns = [Column(name, overflow="fold") for name in ("", found.a, found.b)]
    table = Table(*columns, box=SIMPLE, pad_edge=False)
    for part, pairs in found.parts().items():
        if not pairs:
            continue
        table.add_row(Text(part, style="bold"))
        for pair in pairs:
            table.add_row(*map(Text, (f"  {pair.name}", *_cells(part, pair))))
    console.print(table)


def _cells(part: str, pair: Pair) -> tuple[str, str]:
    if part != "secrets":
        return shown(pair.a), shown(pair.b)
    if None in {pair.a, pair.b}:
        return ("not set" if pair.a is None else "set"), ("not set" if pair.b is None else "set")
    return ("set", "unknown, without the passphrase" if UNKNOWN in {pair.a, pair.b} else "set, another one")
