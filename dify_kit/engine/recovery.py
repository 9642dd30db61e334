"""Clean up after interrupted runs before the next ``pulumi up`` or ``destroy``.

Pulumi alone does not recover: a killed run leaves plugin processes, a lock, pending operations and objects
that its state does not know; a failed one leaves a container that the next run accepts as good; a container
stopped by hand is started again without a look at its health. Everything here is idempotent, and a stack in
order costs one look at the state's file and one at the engine. Volumes are never touched.
"""

from dataclasses import dataclass, field

from dify_kit.containers.docker_host import Container, Engine, Network
from dify_kit.engine.cli import Pulumi, error_text, require_success
from dify_kit.engine.processes import Run
from dify_kit.engine.state import StackState
from dify_kit.errors import KitError
from dify_kit.talk import say
from dify_kit.workspace.files import PROJECT
from infra import hints

_EARLIER_RUN_GRACE = 60.0
_REFRESH_DEADLINE = 600.0
# The words of Pulumi's own backends, and of Pulumi Cloud.
_LOCKED = ("currently locked by", "Another update is currently in progress")
# No type and no name of a resource.
_NO_RESOURCE = "dify-kit-none"


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What does not fit: objects outside the state, and containers that do not do their work."""

    orphans: list[Container] = field(default_factory=list)
    orphan_networks: list[Network] = field(default_factory=list)
    sick: list[tuple[Container, str]] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether there is anything to clean up."""
        return bool(self.orphans or self.orphan_networks or self.sick)

    def both(self, later: "Findings") -> "Findings":
        """Return what this look and a later one have found."""
        known = {container.id for container in later.orphans}
        sick = {container.id for container, _ in later.sick}
        networks = {network.id for network in later.orphan_networks}
        return Findings(
            orphans=[container for container in self.orphans if container.id in known],
            orphan_networks=[network for network in self.orphan_networks if network.id in networks],
            sick=[(container, wrong) for container, wrong in self.sick if container.id in sick],
        )


def examine(state: StackState, containers: list[Container], networks: list[Network]) -> Findings:
    """Compare the state with what the engine has."""
    known = [container for container in containers if container.id in state.ids]
    return Findings(
        orphans=[container for container in containers if container.id not in state.ids],
        orphan_networks=[network for network in networks if network.id not in state.ids],
        sick=[(container, wrong) for container in known if (wrong := container.sick())],
    )


def end_earlier_run(pulumi: Pulumi) -> None:
    """End the processes of a run whose dify-kit is gone. The caller holds the lock, so no other run controls them."""
    record = pulumi.files.data.runs / f"{pulumi.files.stack}.json"
    run = Run.recall(record)
    if run is None:
        return
    if run.processes():
        say(f"an earlier `pulumi {run.verb}` was cut off and its processes are still there: ending them")
        run.stop(grace=_EARLIER_RUN_GRACE)
        if left := run.processes():
            raise KitError(
                f"processes {left} of an earlier run do not end",
                f"end them yourself: kill -9 {' '.join(map(str, left))}",
            )
    record.unlink(missing_ok=True)


def release_stale_lock(pulumi: Pulumi) -> None:
    """Cancel a lock whose process is dead. Raises KitError when another run works on the stack."""
    if pulumi.backend is None:
        return
    for lock in pulumi.backend.locks():
        if lock.held() is False:
            say(f"the run that locked the stack (process {lock.pid}, {lock.since}) is dead: releasing it")
            pulumi.run("cancel", "--yes")
            return
        place = f"{lock.holder}@{lock.host}"
        raise KitError(
            f"the stack is locked by {place} (process {lock.pid}) since {lock.since}",
            "wait until that run ends. When it is dead: "
            + hints.pulumi("cancel", "--yes", stack=pulumi.files.stack),
        )


def refuse_locked_elsewhere(pulumi: Pulumi) -> None:
    """Raise KitError when a run on another machine holds the lock of a backend that is not on this one.

    Only Pulumi reaches such a lock. A refresh of a resource that cannot exist takes it, then ends without a change.
    """
    stack = pulumi.files.stack
    probed = pulumi.run(
        "refresh",
        "--yes",
        "--skip-preview",
        "--target",
        f"urn:pulumi:{stack}::{PROJECT}::{_NO_RESOURCE}::{_NO_RESOURCE}",
        check=False,
    )
    output = probed.stderr + probed.stdout
    if any(sign in output for sign in _LOCKED):
        raise KitError(
            f"another run works on stack {stack}: {error_text(output)}",
            "wait until that run ends. When it is dead: " + hints.pulumi("cancel", "--yes", stack=stack),
        )


def recover(pulumi: Pulumi, engine: Engine, *, deploying: bool) -> StackState:
    """Bring state and engine to a point from which Pulumi can continue; return the state read last.

    ``deploying`` also removes sick containers, so that the refresh of ``up`` finds them gone.
    """
    end_earlier_run(pulumi)
    release_stale_lock(pulumi)
    stack = pulumi.files.stack
    state = pulumi.state()
    findings = examine(state, engine.containers(stack), engine.networks(stack))
    if findings and pulumi.backend is None:
        # What another machine creates at this moment is not in the state yet. Without a run there, it is by now.
        refuse_locked_elsewhere(pulumi)
        state = pulumi.state()
        findings = findings.both(examine(state, engine.containers(stack), engine.networks(stack)))
    for container in findings.orphans:
        say(f"container {container.name} is not in the state (left by a run that was cut off): removing it")
        engine.remove_container(container.id)
    for network in findings.orphan_networks:
        say(f"network {network.name} is not in the state (left by a run that was cut off): removing it")
        engine.remove_network(network.id)
    if deploying:
        for container, wrong in findings.sick:
            say(f"{container.service} {wrong}: removing its container; it is created again")
            engine.remove_container(container.id, stop=container.state in {"running", "restarting", "paused"})
    if state.pending_creates:
        say(f"{len(state.pending_creates)} creation(s) of the run that was cut off are open: clearing them")
        outcome = pulumi.stream(
            "refresh", "--yes", "--skip-preview", "--clear-pending-creates", deadline=_REFRESH_DEADLINE
        )
        require_success(outcome, "clearing what the cut-off run left", stack)
        state = pulumi.state()
    return state
