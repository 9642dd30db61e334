"""`dify-kit status`: how a stack is, on one screen."""

import json
from typing import Annotated

import typer

from dify_kit.app import DEFAULT_STACK, Stack, app
from dify_kit.commands.selected import require_configured
from dify_kit.containers.docker_host import DockerEngine
from dify_kit.stack.cluster_objects import engine_of
from dify_kit.upgrade import incomplete
from dify_kit.watch import screen
from dify_kit.watch import status as watch
from dify_kit.workspace.files import StackFiles


@app.command()
def status(
    stack: Stack = DEFAULT_STACK,
    as_json: Annotated[bool, typer.Option("--json", help="Print the status as JSON on stdout.")] = False,
) -> None:
    """Show how a stack is: services, address, certificate, drift, limits, last deployment.

    Exits with 1 when there is a problem, and says what to do about it. Starts and changes nothing.
    """
    files = StackFiles.look(stack)
    require_configured(files)
    found = watch.gather(files, connect=lambda: engine_of(files, DockerEngine))
    incomplete.note(files, found)
    if as_json:
        typer.echo(json.dumps(found.document(), indent=2))
    else:
        screen.show(found)
    raise typer.Exit(0 if found.ok else 1)
