"""Brings a stack that has its settings up, and takes it down: what several commands have in common."""

from dify_kit.checks import platform_change, preflight, published
from dify_kit.containers.docker_host import Engine
from dify_kit.containers.stopping import stop
from dify_kit.engine.cli import Outcome, Pulumi, require_success
from dify_kit.engine.recovery import recover
from dify_kit.engine.state import StackState
from dify_kit.errors import KitError
from dify_kit.stack import addresses, cut_off_backup, dify_key, gateway_secret, settings, signing_keys
from dify_kit.stack.protection import unprotect
from dify_kit.talk import say, step, warn
from dify_kit.workspace.files import StackFiles
from infra import hints


def bring_up(pulumi: Pulumi, engine: Engine, *, deadline: float, verbose: bool = False) -> Outcome:
    """Deploy a stack until every service is healthy, for `deadline` seconds at most. Raises KitError.

    Makes the secrets that a stack of an earlier version of the kit lacks.
    """
    files = pulumi.files
    stack = files.stack
    dify_key.ensure(pulumi)
    signing_keys.ensure(pulumi)
    gateway_secret.ensure(pulumi)
    platform_change.refuse(pulumi.state(), files)
    preflight.check(files, engine)
    checked = settings.checked(files)
    if checked.kubernetes is not None:
        from dify_kit.images import node_images  # noqa: PLC0415  # with what shows its progress, which no stack on Docker needs

        node_images.ensure(checked)
    cut_off_backup.mend(files, engine)
    recover(pulumi, engine, deploying=True)
    step(f"deploying stack {stack}")
    outcome = pulumi.stream("up", "--refresh", "--yes", "--skip-preview", deadline=deadline, verbose=verbose)
    require_success(outcome, f"deploying stack {stack}", stack)
    if dify_key.finish(pulumi):
        again = hints.kit("up", stack=stack)
        say(f"Dify uses its new key for the LLM proxy; the next `{again}` refuses the old one")
    # Health checks run inside the containers; clients connect from outside.
    published.ensure(files, engine)
    return outcome


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


def take_down(files: StackFiles, engine: Engine, *, deadline: float, verbose: bool = False) -> None:
    """Remove containers and networks of a stack; its data stays. Raises KitError."""
    pulumi = Pulumi(files=files)
    if not pulumi.created():
        say(f"stack {files.stack} is not deployed")
        return
    cut_off_backup.mend(files, engine)
    state = recover(pulumi, engine, deploying=False)
    if state.urns:
        step(f"taking stack {files.stack} down")
        unprotect(pulumi, state, say)
        stop(engine, engine.workloads(files.stack), say)
        outcome = pulumi.stream(
            "destroy", "--refresh", "--yes", "--skip-preview", deadline=deadline, verbose=verbose
        )
        require_success(outcome, f"taking stack {files.stack} down", files.stack)
    left = [container.name for container in engine.containers(files.stack)]
    left += [network.name for network in engine.networks(files.stack)]
    if left:
        raise KitError(f"still there: {', '.join(left)}", "run the same command again; see `docker ps -a`")
    say(f"stack {files.stack} is down: no container and no network of it is left")
