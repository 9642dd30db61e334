"""`dify-kit password`: the administrator's password."""

import typer

from dify_kit.app import DEFAULT_STACK, Stack, app
from dify_kit.commands.selected import require_configured
from dify_kit.engine.cli import Pulumi
from dify_kit.workspace.files import PROJECT, StackFiles


@app.command()
def password(stack: Stack = DEFAULT_STACK) -> None:
    """Print the administrator's password. It is the only thing on stdout."""
    files = StackFiles.open(stack)
    require_configured(files)
    typer.echo(Pulumi(files=files).run("config", "get", f"{PROJECT}:adminPassword").stdout.strip())
