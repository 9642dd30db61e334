"""The commands about this machine and about files: setup, doctor, render."""

from pathlib import Path
from typing import Annotated

import typer

from dify_kit import doctor as checks
from dify_kit.app import DEFAULT_STACK, Stack, app
from dify_kit.errors import KitError
from dify_kit.stack_files import StackFiles
from dify_kit.talk import say


@app.command()
def setup(
    browser: Annotated[
        bool,
        typer.Option(
            "--browser", help="Only a Chromium, for the smoke tests that look through a browser (Debian)."
        ),
    ] = False,
) -> None:
    """Install what is missing: Docker engine, Pulumi engine, base image. Skips what is there."""
    from dify_kit.setup import ensure_browser, run_setup  # noqa: PLC0415  # probes the machine

    if browser:
        ensure_browser()
    else:
        run_setup()


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


@app.command()
def render(
    stack: Stack = DEFAULT_STACK,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Where to write.")] = Path(
        "rendered"
    ),
) -> None:
    """Write every rendered file of the stack, and check nginx's: crossplane, gixy, `nginx -t` in its image.

    Secrets are not written. stdout lists the files.
    """
    from dify_kit import rendering  # noqa: PLC0415  # imports Pulumi

    files = StackFiles.open(stack)
    if not files.configured():
        raise KitError(
            f"stack {stack} does not exist on this machine", f"create it with `dify-kit init {stack}`"
        )
    settings = rendering.settings_of(files)
    for path in rendering.write(settings, out):
        typer.echo(path)
    rendering.check(settings, out)
    say(f"rendered for Dify {settings.release} into {out}")
