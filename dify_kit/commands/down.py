"""`dify-kit down`: remove containers and networks, and the data only on request."""

import sys
from typing import Annotated

import typer

from dify_kit.app import DEFAULT_STACK, Stack, Verbose, app
from dify_kit.commands.selected import Minutes, locked, require_configured
from dify_kit.containers.docker_host import DockerEngine, Engine
from dify_kit.deploying import take_down
from dify_kit.errors import KitError, UsageError
from dify_kit.stack import volumes
from dify_kit.stack.cluster_objects import cluster_objects
from dify_kit.talk import say, warn
from infra import hints
from infra.catalogue.service import Keep


@app.command()
def down(
    stack: Stack = DEFAULT_STACK,
    verbose: Verbose = False,
    timeout: Minutes = 30,
    delete_data: Annotated[
        bool, typer.Option("--delete-data", help="Also delete the stack's volumes, after you typed its name.")
    ] = False,
    yes_delete_data_of: Annotated[
        str,
        typer.Option(
            "--yes-delete-data-of", metavar="NAME", help="Delete the volumes of this stack without asking."
        ),
    ] = "",
) -> None:
    """Remove containers and networks. The data stays in its volumes, unless you say otherwise."""
    if yes_delete_data_of and yes_delete_data_of != stack:
        raise UsageError(
            f"--yes-delete-data-of {yes_delete_data_of} does not name the stack that is taken down ({stack})",
            "name the same stack twice, or leave the option out",
        )
    deleting = delete_data or bool(yes_delete_data_of)
    with locked(stack) as files:
        engine = cluster_objects(files) or DockerEngine()
        if deleting:
            volumes.find(engine, stack, Keep.DATA, Keep.RECORDS).refuse_foreign()
        if deleting and not yes_delete_data_of:
            _ask_for_name(stack, engine)
        if files.configured():
            take_down(files, engine, deadline=timeout * 60, verbose=verbose)
        elif not deleting:
            require_configured(files)
        own = volumes.find(engine, stack, Keep.DATA, Keep.RECORDS).own
        if deleting:
            for volume in own:
                engine.remove_volume(volume)
                say(f"  - volume {volume:<35} deleted with its data")
            say("no data of this stack is left" if own else "there was no data to delete")
        elif own:
            say(f"the data stays in {len(own)} volume(s): {', '.join(own)}")
            say(f"`{hints.kit('up', stack=stack)}` finds it again; to delete it for good:")
            say(f"    {hints.kit('down', '--delete-data', stack=stack)}")


def _at_a_terminal() -> bool:
    return sys.stdin.isatty()


def _ask_for_name(stack: str, engine: Engine) -> None:
    if not _at_a_terminal():
        raise UsageError(
            "--delete-data needs the stack's name typed at a terminal, and standard input is no terminal",
            f"name the stack on the command line: --yes-delete-data-of {stack}",
        )
    own = volumes.find(engine, stack, Keep.DATA, Keep.RECORDS).own
    warn(f"this deletes all data of stack {stack} for good: {', '.join(own) or '(no volumes)'}")
    if (
        typer.prompt(f"Type the stack's name ({stack}) to continue", default="", show_default=False, err=True)
        != stack
    ):
        raise KitError("the names differ; nothing was deleted")
