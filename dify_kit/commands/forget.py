"""`dify-kit forget`: remove everything of a stack that is down."""

import sys
from typing import Annotated

import typer

from dify_kit.app import app
from dify_kit.commands.selected import locked
from dify_kit.containers.docker_host import DockerEngine
from dify_kit.engine.cli import Pulumi, pulumi_environment
from dify_kit.errors import KitError, UsageError
from dify_kit.stack import forget as belongings
from dify_kit.stack import volumes
from dify_kit.stack.cluster_objects import engine_of
from dify_kit.stack.protection import refuse_data_loss
from dify_kit.talk import say, warn
from dify_kit.workspace.files import StackFiles
from infra import hints

_FILE = "PULUMI_CONFIG_PASSPHRASE_FILE"


@app.command()
def forget(
    stack: Annotated[str, typer.Argument(metavar="STACK", help="Name of the stack, which has to be down.")],
    delete_data: Annotated[
        bool, typer.Option("--delete-data", help="Also delete the stack's volumes with their data.")
    ] = False,
    yes: Annotated[
        str, typer.Option("--yes", metavar="NAME", help="Remove the stack of this name without asking.")
    ] = "",
) -> None:
    """Remove everything of a stack that is down from this machine.

    Settings, secrets, state, clients, issued keys and links. Lists what it removes, and asks for the stack's name.
    Volumes stay unless you say otherwise.
    """
    if yes and yes != stack:
        raise UsageError(
            f"--yes {yes} does not name the stack that is forgotten ({stack})",
            "name the same stack twice, or leave the option out",
        )
    with locked(stack) as files:
        refuse_data_loss(files, "nothing of it is removed")
        pulumi, engine = _pulumi(files), engine_of(files, DockerEngine)
        belongings.refuse_running(pulumi, engine)
        found = belongings.find(pulumi, engine)
        if delete_data:
            volumes.find(engine, stack).refuse_foreign()
        lines = found.described(delete_data=delete_data)
        if not found or not lines:
            left = f"only its volumes: {', '.join(found.volumes)}" if found.volumes else "nothing"
            raise KitError(
                f"there is {left} of stack {stack} on this machine; nothing was removed",
                f"remove them: {hints.kit('forget', stack, '--delete-data')}"
                if found.volumes
                else "name a stack that was created on this machine",
            )
        warn(f"this removes stack {stack} for good:")
        for line in lines:
            say(f"  - {line}")
        _say_what_stays(found, delete_data=delete_data)
        if not yes:
            _ask_for_name(stack)
        belongings.forget(pulumi, engine, found, delete_data=delete_data)
    say(f"stack {stack} is forgotten: a new one of this name starts from nothing")


def _pulumi(files: StackFiles) -> Pulumi:
    """Return Pulumi for a stack whose passphrase may be lost: removing a state needs none."""
    environment = pulumi_environment(files)
    if environment.get(_FILE) == str(files.data.passphrase) and not files.data.passphrase.exists():
        environment.pop(_FILE)
        environment["PULUMI_CONFIG_PASSPHRASE"] = ""
    return Pulumi(files=files, environment=environment)


def _say_what_stays(found: belongings.Belongings, *, delete_data: bool) -> None:
    for path in found.kept:
        say(f"it stays, as a file of your own: {path}")
    for name in found.foreign:
        say(f"it stays, as a volume that this stack did not make: {name}")
    if found.volumes and not delete_data:
        warn(
            f"these volumes stay, and their data cannot be read without the secrets that are removed: "
            f"{', '.join(found.volumes)}; --delete-data deletes them too"
        )


def _at_a_terminal() -> bool:
    return sys.stdin.isatty()


def _ask_for_name(stack: str) -> None:
    if not _at_a_terminal():
        raise UsageError(
            "forget needs the stack's name typed at a terminal, and standard input is no terminal",
            f"name the stack on the command line: {hints.kit('forget', stack, '--yes', stack)}",
        )
    typed = typer.prompt(
        f"Type the stack's name ({stack}) to continue", default="", show_default=False, err=True
    )
    if typed != stack:
        raise KitError("the names differ; nothing was removed")
