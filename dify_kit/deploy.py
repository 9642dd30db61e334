"""The commands that change or compare a deployment: up, preview, refresh, down."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from dify_kit import gateway_secret, preflight, published, signing_keys
from dify_kit.app import DEFAULT_STACK, Stack, Verbose, app
from dify_kit.docker_host import DockerEngine, Engine
from dify_kit.errors import KitError, UsageError
from dify_kit.init import KEPT_VOLUMES, Choices, initialise
from dify_kit.pulumi_cli import Outcome, Pulumi, require_success
from dify_kit.recovery import recover
from dify_kit.stack_files import PROJECT, StackFiles
from dify_kit.state import StackState
from dify_kit.stopping import stop
from dify_kit.talk import say, step, warn

CHANGES_FOUND = 3
Minutes = Annotated[
    float,
    typer.Option(
        "--timeout",
        envvar="DIFY_KIT_TIMEOUT_MINUTES",
        min=0.1,
        metavar="MINUTES",
        help="Stop in an orderly way after this time.",
    ),
]


@contextmanager
def _stack(name: str) -> Iterator[StackFiles]:
    files = StackFiles.open(name)
    with files.lock():
        yield files


def _require_configured(files: StackFiles) -> None:
    if not files.configured():
        raise KitError(
            f"stack {files.stack} does not exist on this machine (no {files.stored})",
            f"create it with `make up STACK={files.stack}`, or restore the data directory {files.data.root}",
        )


def _images_of(stack: str) -> str | None:
    """Return a stack's `dify:images`; None while it has no settings."""
    found = StackFiles.open(stack).config().get(f"{PROJECT}:images")
    return str(found) if found else None


@app.command()
def up(
    stack: Stack = DEFAULT_STACK,
    verbose: Verbose = False,
    timeout: Minutes = 90,
    skip_setup: Annotated[
        bool, typer.Option("--skip-setup", help="Trust that the engines are installed and running.")
    ] = False,
) -> None:
    """Deploy the stack, or repair it. A new stack is created first, with generated secrets.

    Installs what is missing on this machine, checks what can be checked, cleans up after runs that were cut
    off, then runs `pulumi up --refresh`. Returns once every service is healthy. A second run changes nothing.
    """
    began = time.monotonic()
    if not skip_setup:
        from dify_kit.setup import run_setup  # noqa: PLC0415  # probes the machine when imported

        # What a stack does not need is not asked for: where images are preloaded, no registry answers.
        run_setup(_images_of(stack))
    with _stack(stack) as files:
        engine = DockerEngine()
        pulumi = Pulumi(files=files)
        if not files.configured():
            step(f"creating stack {stack}")
            initialise(pulumi, engine, Choices())
        elif not pulumi.created():
            say(f"stack {stack} is configured, but the state does not know it: creating it there")
            pulumi.run("stack", "init")
        signing_keys.ensure(pulumi)
        gateway_secret.ensure(pulumi)
        preflight.check(files, engine)
        recover(pulumi, engine, deploying=True)
        step(f"deploying stack {stack}")
        outcome = pulumi.stream(
            "up", "--refresh", "--yes", "--skip-preview", deadline=timeout * 60, verbose=verbose
        )
        require_success(outcome, f"deploying stack {stack}", stack)
        # Health is judged inside; clients come from outside.
        published.ensure(files, engine)
        summarise(pulumi.state(), outcome, stack, time.monotonic() - began)


def _suffix(stack: str) -> str:
    return "" if stack == DEFAULT_STACK else f" STACK={stack}"


def summarise(state: StackState, outcome: Outcome, stack: str, seconds: float) -> None:
    """Say what stands, where it is, and what to do next."""
    outputs = state.outputs
    changed = f"{outcome.changes} change(s)" if outcome.changes else "nothing to change"
    say("")
    step(f"stack {stack} is up and healthy: {changed}, {seconds:.0f} s")
    option = "" if stack == DEFAULT_STACK else f" --stack {stack}"
    rows = [
        ("console", outputs.get("publicUrl")),
        ("service API", outputs.get("serviceApiUrl")),
        ("sign in as", outputs.get("adminEmail")),
        ("password", f".venv/bin/dify-kit password{option}"),
        ("next", f"make smoke{_suffix(stack)}"),
    ]
    for label, value in rows:
        if value:
            say(f"    {label:<12} {value}")
    if outputs.get("standIn"):
        warn("images: local - stand-ins take the place of Dify's own services; for trials and tests only")


@app.command()
def preview(  # noqa: PLR0917  # Typer calls it by name
    stack: Stack = DEFAULT_STACK,
    verbose: Verbose = False,
    timeout: Minutes = 15,
    diff: Annotated[bool, typer.Option("--diff", help="Print Pulumi's detailed diff on stdout.")] = False,
    refresh: Annotated[
        bool,
        typer.Option(
            "--refresh/--no-refresh", help="Compare with what really runs, not with the state alone."
        ),
    ] = True,
    expect_no_changes: Annotated[
        bool,
        typer.Option("--expect-no-changes", help=f"Exit with {CHANGES_FOUND} when anything would change."),
    ] = False,
) -> None:
    """Show what `up` would change, and change nothing. stdout has one line per planned change."""
    with _stack(stack) as files:
        _require_configured(files)
        pulumi = Pulumi(files=files)
        arguments = [*(["--refresh"] if refresh else []), *(["--diff"] if diff else [])]
        outcome = pulumi.stream(
            "preview",
            *arguments,
            deadline=timeout * 60,
            verbose=verbose,
            planning=True,
            raw=sys.stdout if diff else None,
            show=_data if not diff else (lambda _line: None),
        )
        require_success(outcome, f"previewing stack {stack}", stack)
    count = outcome.changes
    say(f"{count} change(s) planned" if count else "no changes: the stack is as its settings say")
    if count and expect_no_changes:
        raise typer.Exit(CHANGES_FOUND)


def _data(line: str) -> None:
    typer.echo(line.strip()) if line[2:3] in "+~-±=" else say(line)


@app.command()
def refresh(stack: Stack = DEFAULT_STACK, verbose: Verbose = False, timeout: Minutes = 15) -> None:
    """Compare the state with what really runs and write the differences into the state. Repairs nothing."""
    with _stack(stack) as files:
        _require_configured(files)
        pulumi = Pulumi(files=files)
        outcome = pulumi.stream("refresh", "--yes", "--skip-preview", deadline=timeout * 60, verbose=verbose)
        require_success(outcome, f"refreshing stack {stack}", stack)
    # A resource that reports itself gone comes as a removal from the state.
    count = len({*outcome.progress.drifted, *(label for _, label in outcome.progress.changed)})
    say(f"{count} resource(s) had drifted; `make up` repairs them" if count else "no drift")


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
    with _stack(stack) as files:
        engine = DockerEngine()
        if deleting and not yes_delete_data_of:
            _ask_for_name(stack, engine)
        if files.configured():
            _destroy(files, engine, deadline=timeout * 60, verbose=verbose)
        elif not deleting:
            _require_configured(files)
        volumes = engine.volumes([f"dify-{stack}-{volume}" for volume in KEPT_VOLUMES])
        if deleting:
            for volume in volumes:
                engine.remove_volume(volume)
                say(f"  - volume {volume:<35} deleted with its data")
            say("no data of this stack is left" if volumes else "there was no data to delete")
        elif volumes:
            say(f"the data stays in {len(volumes)} volume(s): {', '.join(volumes)}")
            say(f"`make up{_suffix(stack)}` finds it again; to delete it for good:")
            say(f"    .venv/bin/dify-kit down --stack {stack} --delete-data")


def _at_a_terminal() -> bool:
    return sys.stdin.isatty()


def _ask_for_name(stack: str, engine: Engine) -> None:
    if not _at_a_terminal():
        raise UsageError(
            "--delete-data asks for the stack's name, and nobody is there to type it",
            f"say it on the command line: --yes-delete-data-of {stack}",
        )
    volumes = engine.volumes([f"dify-{stack}-{volume}" for volume in KEPT_VOLUMES])
    warn(f"this deletes all data of stack {stack} for good: {', '.join(volumes) or '(no volumes)'}")
    if (
        typer.prompt(f"Type the stack's name ({stack}) to go on", default="", show_default=False, err=True)
        != stack
    ):
        raise KitError("the names differ; nothing was deleted")


def _destroy(files: StackFiles, engine: Engine, *, deadline: float, verbose: bool) -> None:
    pulumi = Pulumi(files=files)
    if not pulumi.created():
        say(f"stack {files.stack} is not deployed")
        return
    state = recover(pulumi, engine, deploying=False)
    if state.urns:
        step(f"taking stack {files.stack} down")
        stop(engine, engine.containers(files.stack), say)
        outcome = pulumi.stream(
            "destroy", "--refresh", "--yes", "--skip-preview", deadline=deadline, verbose=verbose
        )
        require_success(outcome, f"taking stack {files.stack} down", files.stack)
    left = [container.name for container in engine.containers(files.stack)]
    left += [network.name for network in engine.networks(files.stack)]
    if left:
        raise KitError(f"still there: {', '.join(left)}", "run the same command again; see `docker ps -a`")
    say(f"stack {files.stack} is down: no container and no network of it is left")
