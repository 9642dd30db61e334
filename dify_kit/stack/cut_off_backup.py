"""What a backup changes while it runs, noted before it does: one that is killed cannot take it back by itself.

Redis rewrites none of its files, a vector store is stopped, a container that never runs has a volume, and a part of an
archive lies where the archive was to be. The next `backup`, `up`, `upgrade` or `rollback` puts that in order.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dify_kit.containers.docker_host import Container, Engine
from dify_kit.errors import KitError
from dify_kit.stack import redis_files
from dify_kit.talk import say, warn
from dify_kit.workspace.files import StackFiles, write_private
from infra import hints

# How the containers that have a volume for a backup or a restore are named, after the stack's own part.
HOLDER = "backup-"


@contextmanager
def noted(files: StackFiles, target: Path | None) -> Iterator[None]:
    """Note a backup while the block runs, with the file that it writes. The caller holds the stack's lock."""
    _write(files, {"target": str(target.absolute()) if target else "", "stopped": ""})
    try:
        yield
    finally:
        files.data.backing_up(files.stack).unlink(missing_ok=True)


def note_stopped(files: StackFiles, service: str) -> None:
    """Note that a service is stopped for its copy; an empty name, that it runs again."""
    _write(files, {**_read(files), "stopped": service})


def drafts(target: Path) -> Iterator[Path]:
    """Yield the parts of an archive that commands which were killed have left."""
    yield from target.parent.glob(f".{target.name}.[0-9]*.part")


def found(files: StackFiles) -> bool:
    """Whether a backup has begun and not ended. Another command that holds the stack's lock may be at work on it."""
    return files.data.backing_up(files.stack).exists()


def mend(files: StackFiles, engine: Engine) -> None:
    """Put in order what a killed backup left. The caller holds the stack's lock. What does not work is a warning."""
    if not found(files):
        return
    note, stack = _read(files), files.stack
    say(f"a backup of stack {stack} was cut off: putting in order what it left")
    if target := str(note.get("target") or ""):
        for draft in drafts(Path(target)):
            draft.unlink(missing_ok=True)
            say(f"removed {draft}, a part of an archive")
    try:
        for container in engine.containers(stack):
            if container.name.startswith(f"dify-{stack}-{HOLDER}"):
                engine.remove_container(container.id)
        running = {one.service: one for one in engine.workloads(stack)}
        for service in redis_files.OWNERS.values():
            if service in running and running[service].state == "running":
                redis_files.with_rewrites(running[service].id)
        _start(running.get(str(note.get("stopped") or "")), engine)
    except KitError as problem:
        # It stays noted: the next command tries again.
        again = hints.kit("up", stack=stack)
        warn(f"what a killed backup left is not all in order: {problem.message}; `{again}` tries again")
        return
    files.data.backing_up(stack).unlink(missing_ok=True)


def _start(stopped: Container | None, engine: Engine) -> None:
    if stopped and stopped.state != "running":
        engine.resume(stopped)
        say(f"{stopped.service} was stopped for its copy: started it")


def _write(files: StackFiles, note: dict[str, Any]) -> None:
    write_private(files.data.backing_up(files.stack), json.dumps(note))


def _read(files: StackFiles) -> dict[str, Any]:
    try:
        note = json.loads(files.data.backing_up(files.stack).read_bytes())
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}
