"""Checks before anything is changed: the settings are valid, the ports are free, the disk has room."""

import shutil
from pathlib import Path

from dify_kit.containers.docker_host import Engine
from dify_kit.engine.cli import shell_hint
from dify_kit.errors import KitError
from dify_kit.stack import settings as stack_settings
from dify_kit.talk import warn
from dify_kit.workspace.files import PROJECT, StackFiles
from infra.guards.ports import conflict
from infra.settings.network import addresses_of
from infra.settings.stack import Settings

_GIB = 1024**3
_DISK_NEEDED = 2
_DISK_WANTED = 10


def check(files: StackFiles, engine: Engine) -> None:
    """Raise KitError when the settings cannot work, a port is taken by something else, or the disk is full."""
    check_port(check_settings(files), engine)
    check_disk(engine)


def check_settings(files: StackFiles) -> Settings:
    """Return the settings of a stack that is to be deployed. Raises KitError with every problem.

    They are the problems that Pulumi's program would report, in its words.
    """
    return stack_settings.checked(files, decrypt=True, pending=stack_settings.MADE_BY_UP)


def check_port(settings: Settings, engine: Engine) -> None:
    """Raise KitError when a port is taken by anything but this stack's own edge."""
    _check(settings, engine, "httpPort", settings.http_port)
    if settings.tls.on:
        _check(settings, engine, "httpsPort", settings.https_port)


def _check(settings: Settings, engine: Engine, setting: str, port: int) -> None:
    address = settings.bind_address
    problem = conflict(
        addresses_of(address),
        port,
        engine.publishers(port),
        f"dify-{settings.stack}-nginx",
        local=engine.local(),
    )
    if problem is None:
        return
    other, reason, fix = problem
    what, value = ("address", address) if other else ("port", str(port))
    command = f"pulumi config set {other or setting} <{what}> --stack {settings.stack}"
    raise KitError(f"{PROJECT}:{other or setting}: {value} {reason}", f"{fix}: {shell_hint(command)}")


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
