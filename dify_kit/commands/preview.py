"""`dify-kit preview`: what `up` would change."""

import sys
from typing import Annotated

import typer

from dify_kit.app import DEFAULT_STACK, Stack, Verbose, app
from dify_kit.checks import platform_change, preflight
from dify_kit.commands.selected import Minutes, locked, require_configured
from dify_kit.engine.cli import Pulumi, require_success
from dify_kit.talk import say

CHANGES_FOUND = 3


@app.command()
def preview(  # noqa: PLR0917  # Typer calls it by name
    stack: Stack = DEFAULT_STACK,
    verbose: Verbose = False,
    timeout: Minutes = 15,
    diff: Annotated[bool, typer.Option("--diff", help="Print Pulumi's detailed diff on stdout.")] = False,
    refresh: Annotated[
        bool,
        typer.Option(
            "--refresh/--no-refresh", help="Compare with what really runs, not with the state alone."
        ),
    ] = True,
    expect_no_changes: Annotated[
        bool,
        typer.Option("--expect-no-changes", help=f"Exit with {CHANGES_FOUND} when anything would change."),
    ] = False,
) -> None:
    """Show what `up` would change, and change nothing. stdout has one line per planned change."""
    with locked(stack) as files:
        require_configured(files)
        preflight.check_settings(files)
        pulumi = Pulumi(files=files)
        platform_change.refuse(pulumi.state(), files)
        arguments = [*(["--refresh"] if refresh else []), *(["--diff"] if diff else [])]
        outcome = pulumi.stream(
            "preview",
            *arguments,
            deadline=timeout * 60,
            verbose=verbose,
            planning=True,
            raw=sys.stdout if diff else None,
            show=_data if not diff else (lambda _line: None),
        )
        require_success(outcome, f"previewing stack {stack}", stack)
    count = outcome.changes
    say(f"{count} change(s) planned" if count else "no changes: the stack is as its settings say")
    if count and expect_no_changes:
        raise typer.Exit(CHANGES_FOUND)


def _data(line: str) -> None:
    typer.echo(line.strip()) if line[2:3] in "+~-±=" else say(line)
