"""`dify-kit up`: deploy a stack, or repair it."""

import time
from typing import Annotated

import typer

from dify_kit.app import DEFAULT_STACK, Stack, Verbose, app
from dify_kit.checks import preflight
from dify_kit.commands.selected import Minutes, locked
from dify_kit.containers.docker_host import DockerEngine
from dify_kit.deploying import bring_up, summarise
from dify_kit.engine.cli import Pulumi
from dify_kit.stack import callers, llm_offer, unfinished
from dify_kit.stack.cluster_objects import cluster_objects
from dify_kit.stack.create import Choices, initialise
from dify_kit.talk import say, step
from dify_kit.workspace.files import StackFiles
from infra.resources.console_client import KEEP_KEYS


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
    unfinished.refuse(files)
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
            pulumi.environment[KEEP_KEYS] = "1"
        if llm and not new:
            llm_offer.turn_on(pulumi)
        outcome = bring_up(pulumi, engine, deadline=timeout * 60, verbose=verbose)
        seconds = time.monotonic() - began
        summarise(pulumi.state(), outcome, stack, seconds, issued=callers.have_keys(files))
