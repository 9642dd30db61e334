"""The faults, and how each is done and undone."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import docker

from bench.faults.small_volumes import LABEL, full
from dify_kit.errors import KitError
from support.images import image_of
from support.stacks import Stack

FROZEN_SECONDS = 10.0
"""How long a service is paused, or cut off from a network."""
FULL_SECONDS = 20.0
"""How long a volume has no room."""
NAMES_SECONDS, NAME_SECONDS = 20, 2
"""How long names are slow, and the most that one takes."""
CLOCK_MINUTES, CLOCK_SECONDS = 10, 10.0
"""How far the clock is moved, and for how long."""
Docker = Any  # docker's models are not typed


class Kind(StrEnum):
    """What is done. CUT_OFF and FULL need the name of a network or of a volume, AHEAD and BEHIND move the clock."""

    KILLED = "killed"
    PAUSED = "paused"
    CUT_OFF = "cut off"
    FULL = "full"
    SLOW_NAMES = "slow names"
    AHEAD = "ahead"
    BEHIND = "behind"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault: of a service, or of the whole machine where `service` is empty. `of` is a network or a volume."""

    kind: Kind
    service: str = ""
    of: str = ""


FAULTS = (
    *(
        Fault(kind=Kind.KILLED, service=one)
        for one in ("db-postgres", "redis", "worker", "api", "gateway", "gateway-redis", "nginx")
    ),
    *(
        Fault(kind=Kind.PAUSED, service=one)
        for one in ("db-postgres", "redis", "worker", "api", "gateway", "gateway-redis")
    ),
    Fault(kind=Kind.CUT_OFF, service="db-postgres", of="data"),
    Fault(kind=Kind.CUT_OFF, service="redis", of="data"),
    Fault(kind=Kind.FULL, service="db-postgres", of="postgres"),
    Fault(kind=Kind.FULL, service="redis", of="redis"),
    Fault(kind=Kind.FULL, service="api", of="app_storage"),
    Fault(kind=Kind.FULL, service="gateway-redis", of="gateway_redis"),
    Fault(kind=Kind.FULL, service="nginx", of="llm_usage"),
    Fault(kind=Kind.SLOW_NAMES),
)
CLOCK = (Fault(kind=Kind.AHEAD), Fault(kind=Kind.BEHIND))
"""They move the clock of the machine, so they are done on request only."""


def named(fault: Fault) -> str:
    """Return a fault in words."""
    match fault.kind:
        case Kind.KILLED:
            return f"{fault.service} killed"
        case Kind.PAUSED:
            return f"{fault.service} frozen for {FROZEN_SECONDS:.0f} s"
        case Kind.CUT_OFF:
            return f"{fault.service} cut off from network {fault.of} for {FROZEN_SECONDS:.0f} s"
        case Kind.FULL:
            return f"volume {fault.of} of {fault.service} full for {FULL_SECONDS:.0f} s"
        case Kind.SLOW_NAMES:
            return f"names of services take up to {NAME_SECONDS} s for {NAMES_SECONDS} s"
        case Kind.AHEAD | Kind.BEHIND:
            return f"clock {CLOCK_MINUTES} min {fault.kind} for {CLOCK_SECONDS:.0f} s"


def strike(stack: Stack, fault: Fault) -> None:
    """Do it, and undo what does not end by itself."""
    client = docker.from_env(timeout=120)
    with contextlib.ExitStack() as undone:
        match fault.kind:
            case Kind.KILLED:
                _kill(client, _container(client, stack, fault))
            case Kind.PAUSED:
                undone.enter_context(_paused(_container(client, stack, fault)))
                time.sleep(FROZEN_SECONDS)
            case Kind.CUT_OFF:
                network = f"dify-{stack.name}-{fault.of}"
                undone.enter_context(_cut_off(client, _container(client, stack, fault), network))
                time.sleep(FROZEN_SECONDS)
            case Kind.FULL:
                undone.enter_context(full(stack.name, fault.of))
                time.sleep(FULL_SECONDS)
            case Kind.SLOW_NAMES:
                _slow_names(client)
            case Kind.AHEAD | Kind.BEHIND:
                _move_clock(client, CLOCK_MINUTES if fault.kind is Kind.AHEAD else -CLOCK_MINUTES)


def _container(client: Docker, stack: Stack, fault: Fault) -> Docker:
    return client.containers.get(f"dify-{stack.name}-{fault.service}")


def _kill(client: Docker, container: Docker) -> None:
    """Send SIGKILL to the service's main process, as the kernel does when memory runs out.

    `docker kill` would count as a stop by hand, after which the engine starts nothing.
    """
    _on_machine(client, f"kill -9 {container.attrs['State']['Pid']}")


@contextlib.contextmanager
def _paused(container: Docker) -> Iterator[None]:
    container.pause()
    try:
        yield
    finally:
        container.unpause()


@contextlib.contextmanager
def _cut_off(client: Docker, container: Docker, network: str) -> Iterator[None]:
    """Take a container off a network while the block runs, and put it back with its names."""
    before = container.attrs["NetworkSettings"]["Networks"][network]
    there = client.networks.get(network)
    there.disconnect(container)
    try:
        yield
    finally:
        there.connect(container, aliases=before.get("Aliases"))


def _slow_names(client: Docker) -> None:
    """Let the engine, which answers the names of services, work for moments only. What runs in it goes on."""
    _on_machine(
        client,
        f"engine=$(pidof dockerd) || exit 1; ends=$(( $(date +%s) + {NAMES_SECONDS} )); "
        f'while [ "$(date +%s)" -lt "$ends" ]; do kill -STOP $engine; sleep {NAME_SECONDS}; kill -CONT $engine; '
        "sleep 0.1; done",
    )


def _move_clock(client: Docker, minutes: int) -> None:
    """Move the clock of the machine, and move it back by as much."""
    seconds = minutes * 60
    _on_machine(
        client,
        f"date -s @$(( $(date +%s) + {seconds} )) && sleep {CLOCK_SECONDS:.0f}; "
        f"date -s @$(( $(date +%s) - {seconds} ))",
        cap_add=["SYS_TIME"],
    )


def _on_machine(client: Docker, script: str, **options: Any) -> None:  # noqa: ANN401  # those of docker
    """Run a script of the shell among the processes of the machine. Raises KitError when it fails."""
    helper = client.containers.run(
        image_of("busybox"),
        ["sh", "-c", script],
        pid_mode="host",
        network_mode="none",
        user="0",
        labels=LABEL,
        detach=True,
        **options,
    )
    try:
        if helper.wait(timeout=300)["StatusCode"]:
            raise KitError(f"`{script}` failed: {helper.logs().decode()[-300:]}")
    finally:
        helper.remove(force=True)
