"""Copies of a stack's state that Pulumi keeps in a file backend, for a state that is lost or damaged.

After each update Pulumi copies the state to `.pulumi/backups` and into the history; before each write of the state it
keeps the last one as `<stack>.json.bak`. All have the form of the state itself, plain or packed by gzip.
"""

import gzip
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dify_kit.engine.state import FileBackend, StackState

_PACKED = ".gz"


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A copy of the state: its file, when it was written, and the resources in it."""

    path: Path
    written: datetime
    state: StackState

    def matches(self, running: Collection[str]) -> int:
        """Return how many of the running containers it has, by their ids."""
        return len(self.state.ids & set(running))


def snapshots(backend: FileBackend) -> list[Snapshot]:
    """Return every readable copy of the stack's state, the newest first."""
    base = backend.root / ".pulumi"
    places = (
        (base / "backups" / backend.project / backend.stack, f"{backend.stack}.*"),
        (base / "history" / backend.project / backend.stack, f"{backend.stack}-*.checkpoint.json*"),
        (base / "stacks" / backend.project, f"{backend.stack}.json*.bak"),
    )
    found = [one for directory, names in places for path in directory.glob(names) if (one := snapshot(path))]
    return sorted(found, key=lambda one: one.written, reverse=True)


def snapshot(path: Path) -> Snapshot | None:
    """Read one copy; None when it has no resources or cannot be read."""
    latest = read(path)
    if latest is None:
        return None
    return Snapshot(
        path=path,
        written=datetime.fromtimestamp(path.stat().st_mtime, tz=UTC),
        state=StackState.parse(latest),
    )


def read(path: Path) -> Mapping[str, Any] | None:
    """Return the snapshot of a file in the form of the state; None when it has none, or cannot be read."""
    try:
        raw = path.read_bytes()
        document = json.loads(gzip.decompress(raw) if packed(path) else raw)
        latest = (document.get("checkpoint") or {}).get("latest")
    except (OSError, EOFError, ValueError, AttributeError):
        return None
    return latest if isinstance(latest, dict) and latest.get("resources") else None


def packed(path: Path) -> bool:
    """Whether a file is packed by gzip, by its name; `.bak` comes after it."""
    return path.name.removesuffix(".bak").endswith(_PACKED)


def best(found: list[Snapshot], running: Collection[str]) -> Snapshot | None:
    """Return the copy that knows most of the running containers, the newest of those; None without any."""
    return max(found, key=lambda one: (one.matches(running), one.written), default=None)
