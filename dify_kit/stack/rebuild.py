"""Makes the state of a stack again after it was lost, damaged or replaced by an old one.

The state is Pulumi's record of what it made. Dify's data is in volumes, settings and secrets are in the stack's file:
neither is touched. The best of Pulumi's own copies becomes the state; without one, an empty state does, and the next
`up` takes over volumes, apps and API keys as it finds them.
"""

import os
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from dify_kit.engine import snapshots
from dify_kit.engine.cli import Pulumi
from dify_kit.engine.snapshots import Snapshot
from dify_kit.engine.state import FileBackend, StackState
from dify_kit.errors import KitError

_PRIVATE = 0o600


class Fault(StrEnum):
    """What is wrong with a state."""

    NONE = "none"
    MISSING = "missing"
    UNREADABLE = "unreadable"
    BEHIND = "behind"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """How the state compares with what runs.

    `unknown` is the number of the stack's containers that the state does not have, `copy` what takes the state's place;
    without a copy an empty state does, unless there is no fault.
    """

    fault: Fault
    unknown: int = 0
    running: int = 0
    copy: Snapshot | None = None


def examine(backend: FileBackend, running: Collection[str]) -> Finding:
    """Compare the state with the ids of the stack's containers, and choose what takes its place."""
    fault, state = _read(backend)
    unknown = len(set(running) - state.ids)
    if fault is Fault.NONE and unknown:
        fault = Fault.BEHIND
    if fault is Fault.NONE:
        return Finding(fault=fault, running=len(running))
    copy = snapshots.best(snapshots.snapshots(backend), running)
    if fault is Fault.BEHIND and (copy is None or copy.matches(running) <= len(running) - unknown):
        # No copy knows more than the state does: `up` makes again what it does not know.
        copy = None
    return Finding(fault=fault, unknown=unknown, running=len(running), copy=copy)


def _read(backend: FileBackend) -> tuple[Fault, StackState]:
    if not backend.exists():
        return Fault.MISSING, StackState()
    try:
        return Fault.NONE, backend.read()
    except KitError:
        return Fault.UNREADABLE, StackState()


def chosen(path: Path) -> Snapshot:
    """Return the copy that an operator named. Raises KitError."""
    found = snapshots.snapshot(path)
    if found is None:
        raise KitError(
            f"--from {path} is no copy of a state with resources",
            "name a file of Pulumi's directories backups/ or history/ (*.checkpoint.json), or leave the option out",
        )
    return found


def replace(pulumi: Pulumi, backend: FileBackend, copy: Snapshot | None) -> list[Path]:
    """Put a copy, or an empty state, in the state's place; return where the files went that were there.

    Raises KitError, with the files back in their places, when Pulumi refuses the copy.
    """
    checkpoint = backend.root / ".pulumi" / "stacks" / backend.project / f"{backend.stack}.json"
    aside = _set_aside(checkpoint)
    try:
        if copy is None:
            pulumi.run("stack", "init", "--no-select")
        else:
            _install(copy, checkpoint)
            # Reads the whole state, checks its integrity, and opens its secrets with this machine's passphrase.
            pulumi.run("stack", "export", "--show-secrets")
    except KitError:
        for one in _states(checkpoint):
            one.unlink()
        for before, after in aside:
            after.rename(before)
        raise
    return [after for _, after in aside]


def _states(checkpoint: Path) -> list[Path]:
    return [one for one in (checkpoint, checkpoint.with_suffix(".json.gz")) if one.exists()]


def _set_aside(checkpoint: Path) -> list[tuple[Path, Path]]:
    when = datetime.now(tz=UTC).strftime("%Y%m%d-%H%M%S")
    moved = []
    for one in _states(checkpoint):
        # Pulumi lists files by their ends, so it does not take this one for a stack; `forget` removes it.
        target = one.with_name(f"{one.name}.replaced-{when}")
        one.rename(target)
        moved.append((one, target))
    return moved


def _install(copy: Snapshot, checkpoint: Path) -> None:
    target = checkpoint.with_suffix(".json.gz") if snapshots.packed(copy.path) else checkpoint
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    new = target.with_name(f".{target.name}.new")
    shutil.copyfile(copy.path, new)
    new.chmod(_PRIVATE)
    os.replace(new, target)  # noqa: PTH105  # atomic
