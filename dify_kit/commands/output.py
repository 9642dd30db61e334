"""`dify-kit output`: a stack's exports."""

import json
from typing import Annotated

import typer

from dify_kit.app import DEFAULT_STACK, Stack, app
from dify_kit.commands.selected import require_configured
from dify_kit.engine.cli import Pulumi
from dify_kit.errors import KitError
from dify_kit.workspace.files import StackFiles


@app.command()
def output(
    name: Annotated[
        str, typer.Argument(metavar="[NAME]", help="One export; all of them as JSON when left out.")
    ] = "",
    stack: Stack = DEFAULT_STACK,
    show_secrets: Annotated[
        bool, typer.Option("--show-secrets", help="Print secret exports in plain text.")
    ] = False,
) -> None:
    """Print the stack's exports as JSON, or one of them as plain text."""
    files = StackFiles.open(stack)
    require_configured(files)
    outputs = json.loads(
        Pulumi(files=files)
        .run("stack", "output", "--json", *(["--show-secrets"] if show_secrets else []))
        .stdout
    )
    if not name:
        typer.echo(json.dumps(outputs, indent=2, sort_keys=True))
        return
    if name not in outputs:
        known = ", ".join(sorted(outputs)) or "none: the stack is not deployed"
        raise KitError(f"stack {stack} has no export {name}", f"exports: {known}")
    value = outputs[name]
    typer.echo(value if isinstance(value, str) else json.dumps(value))
