"""The command about Pulumi's state of a stack: rebuild."""

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from dify_kit.app import COMMANDS, DEFAULT_STACK, Group, Stack, Verbose, app
from dify_kit.commands.selected import Minutes, locked, require_configured
from dify_kit.containers.docker_host import DockerEngine
from dify_kit.deploying import bring_up, summarise
from dify_kit.engine.cli import Pulumi
from dify_kit.engine.recovery import end_earlier_run, release_stale_lock
from dify_kit.engine.state import FileBackend
from dify_kit.errors import KitError, UsageError
from dify_kit.stack import callers, rebuild, unfinished
from dify_kit.stack.rebuild import Fault, Finding
from dify_kit.talk import say, step
from dify_kit.workspace.files import StackFiles
from infra import hints
from infra.resources.console_client import KEEP_KEYS

state = typer.Typer(cls=Group, name="state", help=COMMANDS["state"], no_args_is_help=True)
app.add_typer(state)


# A group with one command would lose its name.
@state.callback()
def _group() -> None:
    pass


@state.command(name="rebuild")
def rebuild_state(
    stack: Stack = DEFAULT_STACK,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="A copy of the state. [default: the one of Pulumi's own copies that knows most of what runs]",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it without asking.")] = False,
    verbose: Verbose = False,
    timeout: Minutes = 90,
) -> None:
    """Make the state again after it was lost, damaged, or replaced by an old one; then deploy.

    Says what is wrong, what takes the state's place, and asks. Data, settings and secrets are not touched, and API keys
    stay. A state that knows everything that runs is left alone.
    """
    began = time.monotonic()
    with locked(stack) as files:
        require_configured(files)
        unfinished.refuse(files)
        _refuse_clusters(files)
        pulumi = Pulumi(files=files)
        backend = _on_this_machine(pulumi)
        end_earlier_run(pulumi)
        release_stale_lock(pulumi)
        engine = DockerEngine()
        running = [one.id for one in engine.containers(stack)]
        finding = rebuild.examine(backend, running)
        if source:
            finding = Finding(
                fault=finding.fault,
                unknown=finding.unknown,
                running=finding.running,
                copy=rebuild.chosen(source),
            )
        elif finding.fault is Fault.NONE:
            say(f"the state of stack {stack} has all {finding.running} container(s) that are there")
            say(f"nothing to rebuild; `{hints.kit('up', stack=stack)}` repairs what does not work")
            return
        for line in described(finding, stack):
            say(line)
        if not yes:
            _ask(stack)
        if source or finding.fault is not Fault.BEHIND or finding.copy:
            for path in rebuild.replace(pulumi, backend, finding.copy):
                say(f"the state that was there is now {path}")
        pulumi.environment[KEEP_KEYS] = "1"
        outcome = bring_up(pulumi, engine, deadline=timeout * 60, verbose=verbose)
        summarise(pulumi.state(), outcome, stack, time.monotonic() - began, issued=callers.have_keys(files))


def described(finding: Finding, stack: str) -> list[str]:
    """Return what is wrong, and what happens next."""
    wrong = {
        Fault.NONE: f"the state of stack {stack} is in order",
        Fault.MISSING: f"there is no state of stack {stack}",
        Fault.UNREADABLE: f"the state of stack {stack} cannot be read",
        Fault.BEHIND: f"the state of stack {stack} lacks {finding.unknown} of {finding.running} container(s)",
    }[finding.fault]
    if (copy := finding.copy) is None:
        left = finding.running - finding.unknown if finding.fault is Fault.BEHIND else 0
        return [
            wrong,
            "no copy of it knows more: "
            + (
                "the state stays as it is"
                if finding.fault is Fault.BEHIND
                else "it starts empty, and `up` takes over volumes, apps and API keys"
            ),
            f"{finding.running - left} container(s) are made again: their services do not answer meanwhile",
        ]
    known = len(copy.state.ids)
    return [
        wrong,
        f"the copy of {copy.written:%Y-%m-%d %H:%M:%S} UTC takes its place: {copy.path} ({known} objects)",
        "`up` makes again what differs from it; data, settings, secrets and API keys stay",
    ]


def _refuse_clusters(files: StackFiles) -> None:
    if files.config().get("dify:platform") == "kubernetes":
        raise KitError(
            f"stack {files.stack} is on a cluster (dify:platform kubernetes), where no state is rebuilt",
            "import a copy of it: "
            + hints.pulumi("stack", "import", "--file", "copy.json", stack=files.stack)
            + f"; a backup of {files.data.state} has one",
        )


def _on_this_machine(pulumi: Pulumi) -> FileBackend:
    if pulumi.backend is None:
        place = pulumi.environment["PULUMI_BACKEND_URL"]
        raise KitError(
            f"the state of stack {pulumi.files.stack} is not on this machine: PULUMI_BACKEND_URL is {place}",
            "restore an earlier version of its object there, or import a copy: "
            + hints.pulumi("stack", "import", "--file", "copy.json", stack=pulumi.files.stack),
        )
    return pulumi.backend


def _ask(stack: str) -> None:
    if not sys.stdin.isatty():
        raise UsageError(
            "rebuilding the state needs a yes at a terminal, and standard input is no terminal",
            f"say it on the command line: {hints.kit('state', 'rebuild', '--yes', stack=stack)}",
        )
    step("continue?")
    typer.confirm("Rebuild the state", abort=True, err=True)
