"""The commands `setup` and `doctor`."""

from typing import Annotated

import typer

from dify_kit.app import DEFAULT_STACK, Stack, app
from dify_kit.doctor import doctor as examine
from dify_kit.doctor import images_of
from dify_kit.setup import run_setup
from dify_kit.stack_files import CHECKOUT, DataDir, StackFiles, check_stack_name


@app.command()
def setup(stack: Stack = DEFAULT_STACK) -> None:
    """Install what is missing on this machine: Docker engine, Pulumi engine, base image. Repeats are free."""
    # Only read: a stack that does not exist yet is none of set-up's business.
    files = StackFiles(stack=check_stack_name(stack), data=DataDir.locate(), checkout=CHECKOUT)
    run_setup(images_of(files))


@app.command()
def doctor(
    stack: Stack = DEFAULT_STACK,
    json_output: Annotated[bool, typer.Option("--json", help="Print the answers as JSON on stdout.")] = False,
) -> None:
    """Check this machine and the stack's settings; change nothing. Exit code 1 when something is wrong."""
    if code := examine(stack, json_output=json_output):
        raise typer.Exit(code)
