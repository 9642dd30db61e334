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
from dify_kit.stack.protection import protected, refuse_data_loss
from dify_kit.talk import say, warn
from dify_kit.workspace.files import StackFiles
from infra import hints
from infra.catalogue.service import Keep
from infra.settings.protection import PROTECT


@app.command()
def down(
    stack: Stack = DEFAULT_STACK,
    *,
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
    yes_take_down: Annotated[
        str,
        typer.Option(
            "--yes-take-down",
            metavar="NAME",
            help="Take down this protected stack without asking for its name.",
        ),
    ] = "",
) -> None:
    """Remove containers and networks. The data stays in its volumes, unless you say otherwise.

    A protected stack (dify:protect) is taken down after you typed its name, and keeps its data.
    """
    if yes_take_down and yes_take_down != stack:
        raise UsageError(
            f"--yes-take-down {yes_take_down} does not name the stack that is taken down ({stack})",
            "name the same stack twice, or leave the option out",
        )
    for option, name in (("--yes-delete-data-of", yes_delete_data_of), ("--yes-take-down", yes_take_down)):
        _require_same(option, name, stack)
    deleting = delete_data or bool(yes_delete_data_of)
    with locked(stack) as files:
        engine = cluster_objects(files) or DockerEngine()
        if deleting:
            refuse_data_loss(files, "its data is not deleted")
            volumes.find(engine, stack, Keep.DATA, Keep.RECORDS).refuse_foreign()
        if not yes_delete_data_of:
            _ask(files, engine, deleting=deleting, agreed=bool(yes_take_down))
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


def _require_same(option: str, name: str, stack: str) -> None:
    if name and name != stack:
        raise UsageError(
            f"{option} {name} does not name the stack that is taken down ({stack})",
            "name the same stack twice, or leave the option out",
        )


def _ask(files: StackFiles, engine: Engine, *, deleting: bool, agreed: bool) -> None:
    if deleting:
        _ask_before_deleting(files.stack, engine)
    elif protected(files) and not agreed:
        _ask_before_taking_down(files.stack)


def _at_a_terminal() -> bool:
    return sys.stdin.isatty()


def _ask_before_deleting(stack: str, engine: Engine) -> None:
    if not _at_a_terminal():
        raise UsageError(
            "--delete-data needs the stack's name typed at a terminal, and standard input is no terminal",
            f"name the stack on the command line: --yes-delete-data-of {stack}",
        )
    own = volumes.find(engine, stack, Keep.DATA, Keep.RECORDS).own
    warn(f"this deletes all data of stack {stack} for good: {', '.join(own) or '(no volumes)'}")
    _require_typed(stack, "nothing was deleted")


def _ask_before_taking_down(stack: str) -> None:
    if not _at_a_terminal():
        raise UsageError(
            f"stack {stack} is protected (dify:{PROTECT}): `down` needs its name typed at a terminal, and standard "
            "input is no terminal",
            f"name the stack on the command line: --yes-take-down {stack}",
        )
    warn(f"stack {stack} is protected; this takes it down, and its clients get no answers. The data stays.")
    _require_typed(stack, "the stack runs on")


def _require_typed(stack: str, consequence: str) -> None:
    typed = typer.prompt(
        f"Type the stack's name ({stack}) to continue", default="", show_default=False, err=True
    )
    if typed != stack:
        raise KitError(f"the names differ; {consequence}")
