"""`dify-kit doctor`: check this machine and a stack."""

from typing import Annotated

import typer

from dify_kit.app import DEFAULT_STACK, Stack, app
from dify_kit.checks import doctor as checks


@app.command()
def doctor(
    stack: Stack = DEFAULT_STACK,
    json: Annotated[bool, typer.Option("--json", help="Print the checks as JSON on stdout.")] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Restart the edge when its published address is dead.")
    ] = False,
) -> None:
    """Check this machine, the stack's settings and its published address. Exits with 1 when something is wrong.

    Changes nothing without --repair.
    """
    raise typer.Exit(checks.doctor(stack, json_output=json, repair=repair))
