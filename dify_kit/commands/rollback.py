"""`dify-kit rollback`: takes the last upgrade of a stack back."""

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from dify_kit.app import DEFAULT_STACK, Stack, Verbose, app
from dify_kit.commands.selected import Minutes, locked
from dify_kit.containers.docker_host import DockerEngine
from dify_kit.engine.cli import Pulumi
from dify_kit.errors import KitError, UsageError
from dify_kit.stack.cluster_objects import require_docker
from dify_kit.talk import say, step, warn
from dify_kit.upgrade import rollback as back
from dify_kit.upgrade.running import Upgrade
from infra import hints


@app.command()
def rollback(
    stack: Stack = DEFAULT_STACK,
    *,
    yes_delete_data_of: Annotated[
        str,
        typer.Option(
            "--yes-delete-data-of",
            metavar="NAME",
            help="Replace the data of this stack by that of the backup without asking.",
        ),
    ] = "",
    passphrase_file: Annotated[
        Path | None,
        typer.Option(
            "--passphrase-file",
            envvar="DIFY_KIT_BACKUP_PASSPHRASE_FILE",
            metavar="FILE",
            help="File with the passphrase of the backup; without it the one that the upgrade noted.",
        ),
    ] = None,
    verbose: Verbose = False,
    timeout: Minutes = 90,
) -> None:
    """Take the last upgrade of a stack back: its release, its settings, and its data where the upgrade changed it.

    The data comes from the backup that the upgrade made: what was written after it is lost.
    """
    began = time.monotonic()
    if yes_delete_data_of and yes_delete_data_of != stack:
        raise UsageError(
            f"--yes-delete-data-of {yes_delete_data_of} does not name the stack that goes back ({stack})",
            "name the same stack twice, or leave the option out",
        )
    with locked(stack) as files:
        require_docker(files, "rollback")
        work = Upgrade(
            pulumi=Pulumi(files=files), engine=DockerEngine(), deadline=timeout * 60, verbose=verbose
        )
        found = back.require(work)
        way = back.way(work, found)
        if way.restoring:
            say(
                f"stack {stack} goes from Dify {found.target} back to {found.release} by the archive {found.archive}"
            )
            warn(
                f"lost: conversations, files, accounts, keys and settings of after {back.since(way)}; "
                "no request is answered until the stack is restored"
            )
            if not yes_delete_data_of:
                _ask(stack)
            back.restore(work, found, passphrase_file)
        elif way.deploy:
            back.settings_back(work, found)
        back.finish(work, found)
        say("")
        if not way.deploy:
            step(f"stack {stack} has Dify {found.release}: the upgrade had not changed it")
            return
        kept = f"its data is of {found.backed_up}" if way.restoring else "no data was lost"
        step(f"stack {stack} runs Dify {found.release} again: {kept}, {time.monotonic() - began:.0f} s")
        say(f"    next         {hints.make('smoke', stack)}")


def _ask(stack: str) -> None:
    if not sys.stdin.isatty():
        raise UsageError(
            "the stack's name is typed at a terminal before its data is replaced, and standard input is no terminal",
            f"name the stack on the command line: --yes-delete-data-of {stack}",
        )
    typed = typer.prompt(
        f"Type the stack's name ({stack}) to continue", default="", show_default=False, err=True
    )
    if typed != stack:
        raise KitError("the names differ; nothing was changed")
