"""`dify-kit up`: deploy a stack, or repair it."""

import time
from typing import Annotated

import typer

from dify_kit.app import DEFAULT_STACK, Stack, Verbose, app
from dify_kit.checks import preflight, published
from dify_kit.commands.selected import Minutes, locked
from dify_kit.containers.docker_host import DockerEngine
from dify_kit.engine.cli import Outcome, Pulumi, require_success
from dify_kit.engine.recovery import recover
from dify_kit.engine.state import StackState
from dify_kit.images import node_images
from dify_kit.stack import addresses, callers, dify_key, gateway_secret, llm_offer, settings, signing_keys
from dify_kit.stack.cluster_objects import cluster_objects
from dify_kit.stack.create import Choices, initialise
from dify_kit.talk import say, step, warn
from dify_kit.workspace.files import StackFiles
from infra import hints


@app.command()
def up(
    stack: Stack = DEFAULT_STACK,
    verbose: Verbose = False,
    timeout: Minutes = 90,
    skip_setup: Annotated[
        bool, typer.Option("--skip-setup", help="Trust that the engines are installed and running.")
    ] = False,
    llm: Annotated[
        bool | None,
        typer.Option(
            "--llm/--no-llm",
            help="Serve models with the key of a provider in the environment, to Dify too. "
            "[default: ask, for a new stack on a terminal]",
        ),
    ] = None,
) -> None:
    """Deploy the stack, or repair it. A new stack is created first, with generated secrets.

    Installs what is missing on this machine, checks what can be checked, cleans up after runs that were cut
    off, then runs `pulumi up --refresh`. Returns once every service is healthy. A second run changes nothing.
    """
    began = time.monotonic()
    files = StackFiles.open(stack)
    if skip_setup:
        if files.configured():
            preflight.check_settings(files)
        preset = llm_offer.prepare(files, llm)
    else:
        # Setting up may take minutes: what would be refused after it is refused before it.
        images = preflight.first(files)
        preset = llm_offer.prepare(files, llm)
        from dify_kit.setup import run_setup  # noqa: PLC0415  # probes the machine when imported

        # It installs what the stack needs: where images are preloaded, no registry answers.
        run_setup(images, kubernetes=files.config().get("dify:platform") == "kubernetes")
    with locked(stack) as files:
        engine = cluster_objects(files) or DockerEngine()
        pulumi = Pulumi(files=files)
        new = not files.configured()
        if new:
            step(f"creating stack {stack}")
            initialise(pulumi, engine, Choices(extra=llm_offer.settings_for(preset)))
            if preset:
                llm_offer.store(pulumi, preset)
        elif not pulumi.created():
            say(f"stack {stack} is configured, but the state does not know it: creating it there")
            pulumi.run("stack", "init", "--no-select")
        if llm and not new:
            llm_offer.turn_on(pulumi)
        dify_key.ensure(pulumi)
        signing_keys.ensure(pulumi)
        gateway_secret.ensure(pulumi)
        preflight.check(files, engine)
        node_images.ensure(settings.checked(files))
        recover(pulumi, engine, deploying=True)
        step(f"deploying stack {stack}")
        outcome = pulumi.stream(
            "up", "--refresh", "--yes", "--skip-preview", deadline=timeout * 60, verbose=verbose
        )
        require_success(outcome, f"deploying stack {stack}", stack)
        if dify_key.finish(pulumi):
            again = hints.kit("up", stack=stack)
            say(f"Dify uses its new key for the LLM proxy; the next `{again}` refuses the old one")
        # Health checks run inside the containers; clients connect from outside.
        published.ensure(files, engine)
        seconds = time.monotonic() - began
        summarise(pulumi.state(), outcome, stack, seconds, issued=callers.have_keys(files))


def summarise(state: StackState, outcome: Outcome, stack: str, seconds: float, *, issued: bool) -> None:
    """Say what stands, where it is, and what to do next."""
    outputs = state.outputs
    changed = f"{outcome.changes} change(s)" if outcome.changes else "nothing to change"
    say("")
    step(f"stack {stack} is up and healthy: {changed}, {seconds:.0f} s")
    for label, text in (*addresses.rows(outputs, stack, issued=issued), ("next", hints.make("smoke", stack))):
        say(f"    {label:<12} {text}")
    if request := addresses.first_request(outputs, stack):
        say("    a first request:")
        say(request)
    if outputs.get("standIn"):
        warn("images: local - stand-ins take the place of Dify's own services; for trials and tests only")
