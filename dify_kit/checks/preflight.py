"""Checks before anything is changed: what Pulumi's program checks, and whether the disk has room."""

import shutil
from pathlib import Path

from dify_kit.checks import guards
from dify_kit.containers import docker_host
from dify_kit.containers.docker_host import Engine
from dify_kit.engine.state import FileBackend, StackState
from dify_kit.errors import KitError
from dify_kit.stack import leftovers
from dify_kit.stack import settings as stack_settings
from dify_kit.stack.cluster_objects import cluster_objects
from dify_kit.talk import warn
from dify_kit.workspace.files import StackFiles
from infra.settings.stack import Reading, Settings

_GIB = 1024**3
_DISK_NEEDED = 2
_DISK_WANTED = 10


def first(files: StackFiles) -> str | None:
    """Check what can be checked before set-up, which may take minutes. Raises KitError.

    Returns the stack's source of images; None for a stack that is not created yet. An engine that does not answer is
    left to set-up, which starts it.
    """
    configured = files.configured()
    reading = _checked(files) if configured else stack_settings.read(files)
    images = reading.settings.images if configured else None
    try:
        engine = cluster_objects(files) or docker_host.DockerEngine()
    except KitError:
        return images
    if not configured:
        backend = FileBackend.of(files)
        leftovers.refuse(files, engine, backend.read() if backend else StackState())
    guard(files, reading, engine)
    return images


def check(files: StackFiles, engine: Engine) -> None:
    """Raise KitError when Pulumi's program would refuse the stack, or the disk is full."""
    guard(files, _checked(files), engine)
    check_disk(engine)


def check_settings(files: StackFiles) -> Settings:
    """Return the settings of a stack that is to be deployed. Raises KitError with every problem.

    They are the problems that Pulumi's program would report, in its words.
    """
    return _checked(files).settings


def _checked(files: StackFiles) -> Reading:
    reading = stack_settings.read(files, decrypt=True, pending=stack_settings.MADE_BY_UP)
    stack_settings.sound(reading)
    return reading


def guard(files: StackFiles, reading: Reading, engine: Engine) -> None:
    """Raise KitError with everything that the program's guards refuse, in their words."""
    refusals = [one for _, some in guards.found(files, reading, engine) for one in some]
    if refusals:
        hints = dict.fromkeys(guards.hint(one, files) for one in refusals)
        raise KitError("\n".join(one.problem for one in refusals), "\n".join(hints))


def check_disk(engine: Engine) -> None:
    """Raise KitError when the engine's disk is nearly full; warn when little is left."""
    if not engine.local():
        return
    root = Path(engine.data_root())
    try:
        free = shutil.disk_usage(root).free / _GIB
    except OSError:
        return  # not visible to this user
    if free < _DISK_NEEDED:
        raise KitError(
            f"{free:.1f} GiB are free where Docker keeps its data ({root}); {_DISK_NEEDED} are needed",
            "free some: `docker system df` shows what can go",
        )
    if free < _DISK_WANTED:
        warn(f"{free:.1f} GiB are free in {root}; a stack with its data wants {_DISK_WANTED}")
