"""`dify-kit upgrade`: a stack gets a newer release of Dify, by a plan that is shown first."""

import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from dify_kit.app import DEFAULT_STACK, Stack, Verbose, app
from dify_kit.commands.selected import Minutes, locked, require_configured
from dify_kit.containers.docker_host import DockerEngine
from dify_kit.engine.cli import Pulumi
from dify_kit.errors import CancelledError, KitError, UsageError
from dify_kit.stack.cluster_objects import require_docker
from dify_kit.talk import say, step
from dify_kit.upgrade import journal as journals
from dify_kit.upgrade import plan as plans
from dify_kit.upgrade import running, showing
from dify_kit.upgrade.journal import Journal, State
from dify_kit.upgrade.running import Upgrade
from dify_kit.workspace.files import StackFiles


@app.command()
def upgrade(  # noqa: PLR0917  # Typer calls it by name
    release: Annotated[
        str, typer.Argument(metavar="RELEASE", help="The release of Dify that the stack gets.")
    ],
    stack: Stack = DEFAULT_STACK,
    plan_only: Annotated[
        bool, typer.Option("--plan", help="Show what would happen, and change nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --plan: print the plan as JSON.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Begin without asking.")] = False,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="DIRECTORY",
            help="Where the backup goes; without it backups/ in the data directory.",
        ),
    ] = "",
    passphrase_file: Annotated[
        Path | None,
        typer.Option(
            "--passphrase-file",
            envvar="DIFY_KIT_BACKUP_PASSPHRASE_FILE",
            metavar="FILE",
            help="File with the passphrase of the backup; without it the kit makes one and keeps it.",
        ),
    ] = None,
    without_backup: Annotated[
        bool, typer.Option("--without-backup", help="Make no backup: the kit has no way back then.")
    ] = False,
    without_smoke: Annotated[
        bool, typer.Option("--without-smoke", help="Do not run the smoke tests at the end.")
    ] = False,
    verbose: Verbose = False,
    timeout: Minutes = 90,
) -> None:
    """Bring a stack to a newer Dify: check, back up, deploy, test.

    Shows the plan and asks first. Interrupted at any step, the same command continues there; `rollback` goes back.
    """
    began = time.monotonic()
    if as_json and not plan_only:
        raise UsageError("--json prints a plan", "add --plan")
    with locked(stack) as files:
        require_configured(files)
        require_docker(files, "upgrade")
        work = Upgrade(
            pulumi=Pulumi(files=files), engine=DockerEngine(), deadline=timeout * 60, verbose=verbose
        )
        found = journals.load(files)
        if found and found.state is not State.DONE:
            _require_same(found, release)
            if plan_only:
                say(f"the upgrade to Dify {release} that began at {found.began} is in {found.place()}")
                return
            if without_smoke:
                found = running.without_smoke(found)
            step(f"continuing the upgrade of stack {stack} to Dify {release} that began at {found.began}")
            _end(files, running.carry_out(work, found, resumed=True), time.monotonic() - began)
            return
        choice = plans.Choice(
            target=release,
            folder=Path(to).expanduser().absolute() if to else files.data.backups,
            passphrase_file=passphrase_file.expanduser().absolute() if passphrase_file else None,
            backup=not without_backup,
            smoke=not without_smoke,
        )
        plan = plans.make(work.pulumi, work.engine, choice)
        if as_json:
            typer.echo(json.dumps(showing.document(plan), indent=2))
            return
        for line in showing.lines(plan):
            say(line)
        if plan_only:
            say("nothing was changed")
            return
        if not yes:
            _ask()
        found = running.begin(work, plan)
        _end(files, running.carry_out(work, found, resumed=False), time.monotonic() - began)


def _require_same(found: Journal, release: str) -> None:
    on, back = found.on_and_back()
    if found.state is State.ROLLING_BACK:
        raise KitError(
            f"the upgrade of stack {found.stack} to Dify {found.target} is being taken back",
            f"`{back}` continues",
        )
    if found.target != release:
        raise KitError(
            f"an upgrade of stack {found.stack} to Dify {found.target} is not complete: it is in {found.place()}",
            f"`{on}` continues there, `{back}` goes back to Dify {found.release}",
        )


def _ask() -> None:
    if not sys.stdin.isatty():
        raise UsageError(
            "an upgrade is confirmed at a terminal, and standard input is no terminal; nothing was changed",
            "begin it without a question: --yes",
        )
    if not typer.confirm("Begin?", default=False, err=True):
        raise CancelledError("nothing was changed")


def _end(files: StackFiles, found: Journal, seconds: float) -> None:
    away = f", of which Dify's api did not answer for {found.away:.0f} s" if found.away else ""
    say("")
    step(f"stack {files.stack} runs Dify {found.target} (before: {found.release}): {seconds:.0f} s{away}")
    _, back = found.on_and_back()
    if found.archive:
        say(f"to go back to Dify {found.release}, and to what was there at {found.backed_up}: `{back}`")
    else:
        say("there is no backup of it: the kit has no way back")
