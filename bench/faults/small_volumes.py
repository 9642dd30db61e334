"""Volumes that a few MiB fill: in memory, made before the stack that they are of, which adopts them."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import docker

from dify_kit.errors import KitError
from infra.guards.volumes import STACK_LABEL
from support.images import image_of

MEBIBYTES = {"postgres": 768, "redis": 64, "app_storage": 256, "gateway_redis": 64, "llm_usage": 16}
"""The volumes of the catalogue that are made small, and their sizes. PostgreSQL begins with 100, and its log grows."""
FILL_SECONDS = 60
LABEL = {"dify-kit.bench": "faults"}
_HELD, _FILLED = "/held", "/volume"
# Whatever becomes free is taken, too: a database recycles its files.
_FILL = (
    "trap 'exit 0' TERM; while :; do dd if=/dev/zero bs=64k >> {file} 2>/dev/null; "
    "dd if=/dev/zero bs=512 >> {file} 2>/dev/null; sleep 0.2; done"
)
Docker = Any  # docker's models are not typed


@contextlib.contextmanager
def small(stack: str) -> Iterator[None]:
    """Make the volumes of a stack, and keep them while the block runs: the last container that has one empties it.

    They are left to whoever removes the stack.
    """
    client = docker.from_env(timeout=120)
    binds = {}
    for name, size in MEBIBYTES.items():
        client.volumes.create(
            f"dify-{stack}-{name}",
            driver_opts={"type": "tmpfs", "device": "tmpfs", "o": f"size={size}m"},
            labels={STACK_LABEL: stack},
        )
        binds[f"dify-{stack}-{name}"] = {"bind": f"{_HELD}/{name}", "mode": "ro"}
    holder = _helper(client, ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1; done"], binds)
    try:
        yield
    finally:
        holder.remove(force=True)


@contextlib.contextmanager
def full(stack: str, volume: str) -> Iterator[None]:
    """Leave no byte of a volume free while the block runs."""
    client = docker.from_env(timeout=120)
    binds = {f"dify-{stack}-{volume}": {"bind": _FILLED, "mode": "rw"}}
    file = f"{_FILLED}/.filled"
    filler = _helper(client, ["sh", "-c", _FILL.format(file=file)], binds)
    try:
        _wait_until_full(filler)
        yield
    finally:
        filler.remove(force=True)
        emptying = _helper(client, ["rm", "-f", file], binds)
        emptying.wait(timeout=60)
        emptying.remove(force=True)


def _wait_until_full(filler: Docker) -> None:
    ends = time.monotonic() + FILL_SECONDS
    while True:
        # Available blocks of the file system.
        code, output = filler.exec_run(["stat", "-f", "-c", "%a", _FILLED])
        if code == 0 and int(output) == 0:
            return
        if time.monotonic() > ends:
            raise KitError(
                f"{filler.name}: {_FILLED} still has room after {FILL_SECONDS} s: {output.decode()}"
            )
        time.sleep(0.25)


def _helper(client: Docker, command: list[str], binds: dict[str, dict[str, str]]) -> Docker:
    return client.containers.run(
        image_of("busybox"),
        command,
        volumes=binds,
        network_mode="none",
        labels=LABEL,
        user="0",
        detach=True,
    )
