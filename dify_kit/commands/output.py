"""`dify-kit output`: a stack's exports."""

import json
from typing import Annotated

import typer

from dify_kit.app import DEFAULT_STACK, Stack, app
from dify_kit.commands.selected import require_configured
from dify_kit.engine.cli import Pulumi
from dify_kit.errors import KitError
from dify_kit.stack import setting_path
from dify_kit.workspace.files import StackFiles
from infra import hints

# What Pulumi prints in place of a secret export.
MASKED = "[secret]"


@app.command()
def output(
    name: Annotated[
        str,
        typer.Argument(
            metavar="[NAME]", help="One export, or a part: tls.ca. All of them as JSON when left out."
        ),
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
    if not outputs:
        raise KitError(
            f"stack {stack} has no exports: it is not deployed",
            f"deploy it: `{hints.kit('up', stack=stack)}`",
        )
    if not name:
        typer.echo(json.dumps(outputs, indent=2, sort_keys=True))
        return
    path = setting_path.read(name)
    value = setting_path.get(outputs, path)
    if value is None and not show_secrets and outputs.get(str(path[0])) == MASKED:
        # Pulumi masks a secret export as a whole: whether it has this part cannot be seen.
        value = MASKED
    if value is None and name not in outputs:
        raise KitError(f"stack {stack} has no export {name}", hints.nearest(name, outputs))
    typer.echo(value if isinstance(value, str) else json.dumps(value))
