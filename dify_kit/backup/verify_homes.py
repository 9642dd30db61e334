"""The data directories of `backup verify`: one for each run, with all secrets of the archive, until its end.

Each is locked by its run. One that nothing locks is of a run that was killed, whose stack is still there.
"""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dify_kit.talk import say
from dify_kit.workspace.files import DataDir

HOME = "DIFY_KIT_HOME"
PREFIX = "verify-"
"""How the names of the stacks begin."""


def _folder() -> Path:
    data = DataDir.locate()
    data.prepare()
    data.verifying.mkdir(mode=0o700, exist_ok=True)
    return data.verifying


@contextmanager
def home(name: str) -> Iterator[None]:
    """Use a data directory that is removed with all secrets in it, for the stack of this name."""
    folder = _folder()
    with _alone(folder):
        lock = (folder / f"{name}.lock").open("a+", encoding="utf-8")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with lock:
        try:
            with _chosen(folder / name):
                yield
        finally:
            _delete(folder, name)


def remove_abandoned(remove: Callable[[str], None]) -> None:
    """Remove what runs that were killed have left; `remove` is called for each stack, with its data directory chosen.

    What it raises ends this, and the next run tries again.
    """
    folder = _folder()
    for path in sorted(folder.glob(f"{PREFIX}*.lock")):
        name = path.name.removesuffix(".lock")
        with _alone(folder), path.open("a+", encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            say(f"stack {name} is of a `backup verify` that was killed: removing it")
            if (folder / name).exists():
                with _chosen(folder / name):
                    remove(name)
            _delete(folder, name)


def _delete(folder: Path, name: str) -> None:
    shutil.rmtree(folder / name, ignore_errors=True)
    (folder / f"{name}.lock").unlink(missing_ok=True)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let no other run make or remove a lock meanwhile."""
    with (folder / ".lock").open("a+", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _chosen(root: Path) -> Iterator[None]:
    before = {name: value for name, value in os.environ.items() if name == HOME or name.startswith("PULUMI_")}
    for name in before:
        os.environ.pop(name)
    os.environ[HOME] = str(root)
    try:
        yield
    finally:
        os.environ.pop(HOME)
        os.environ.update(before)
