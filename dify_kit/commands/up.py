"""`dify-kit up`: deploy a stack, or repair it."""

import time
from typing import Annotated

import typer

from dify_kit.app import DEFAULT_STACK, Stack, Verbose, app
from dify_kit.checks import preflight, published
from dify_kit.commands.selected import Minutes, locked, make_suffix
from dify_kit.containers.docker_host import DockerEngine
from dify_kit.engine.cli import Outcome, Pulumi, require_success
from dify_kit.engine.recovery import recover
from dify_kit.engine.state import StackState
from dify_kit.stack import gateway_secret, signing_keys
from dify_kit.stack.create import Choices, initialise
from dify_kit.talk import say, step, warn
from dify_kit.workspace.files import StackFiles


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
    files = StackFiles.open(stack)
    # Setting up may take minutes: wrong settings are reported before it.
    images = preflight.check_settings(files).images if files.configured() else None
    if not skip_setup:
        from dify_kit.setup import run_setup  # noqa: PLC0415  # probes the machine when imported

        # It installs what the stack needs: where images are preloaded, no registry answers.
        run_setup(images)
    with locked(stack) as files:
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
        # Health checks run inside the containers; clients connect from outside.
        published.ensure(files, engine)
        summarise(pulumi.state(), outcome, stack, time.monotonic() - began)


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
        ("password", f"dify-kit password{option}"),
        ("next", f"make smoke{make_suffix(stack)}"),
    ]
    for label, value in rows:
        if value:
            say(f"    {label:<12} {value}")
    if outputs.get("standIn"):
        warn("images: local - stand-ins take the place of Dify's own services; for trials and tests only")
