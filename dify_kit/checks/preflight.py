"""What must be true before anything is changed. The settings themselves are judged by the Pulumi program."""

import json
import shutil
from pathlib import Path

from dify_kit.containers.docker_host import Engine
from dify_kit.engine.cli import shell_hint
from dify_kit.errors import KitError
from dify_kit.stack.create import default
from dify_kit.talk import warn
from dify_kit.workspace.files import PROJECT, StackFiles
from infra.guards.ports import conflict
from infra.settings.network import addresses_of

_GIB = 1024**3
_DISK_NEEDED = 2
_DISK_WANTED = 10
_MAX_PORT = 65535


def check(files: StackFiles, engine: Engine) -> None:
    """Raise KitError when the stack's port is somebody else's or the disk is full."""
    check_port(files, engine)
    check_disk(engine)


def published(files: StackFiles) -> tuple[str, int] | None:
    """Return address and port the stack publishes; None for values that the program will refuse."""
    config = files.config()
    address = str(config.get(f"{PROJECT}:bindAddress") or default("bindAddress"))
    try:
        port = int(str(config.get(f"{PROJECT}:httpPort") or default("httpPort")))
    except ValueError:
        return None
    return (address, port) if 0 < port <= _MAX_PORT else None


def check_port(files: StackFiles, engine: Engine) -> None:
    """Raise KitError when a port is taken by anything but this stack's own edge."""
    wanted = published(files)
    if wanted is None:
        return
    address, port = wanted
    _check(files, engine, "httpPort", address, port)
    if (tls_port := published_tls(files)) is not None:
        _check(files, engine, "httpsPort", address, tls_port)


def published_tls(files: StackFiles) -> int | None:
    """Return the port of TLS; None without TLS and for values that the program will refuse."""
    config = files.config()
    tls = config.get(f"{PROJECT}:tls")
    try:
        tls = json.loads(tls) if isinstance(tls, str) else tls
        port = int(str(config.get(f"{PROJECT}:httpsPort") or default("httpsPort")))
    except ValueError:
        return None
    # YAML reads an unquoted `off` as false.
    on = isinstance(tls, dict) and tls.get("mode") not in {None, False, "off"}
    return port if on and 0 < port <= _MAX_PORT else None


def _check(files: StackFiles, engine: Engine, setting: str, address: str, port: int) -> None:
    problem = conflict(
        addresses_of(address),
        port,
        engine.publishers(port),
        f"dify-{files.stack}-nginx",
        local=engine.local(),
    )
    if problem is None:
        return
    other, reason, fix = problem
    what, value = ("address", address) if other else ("port", str(port))
    command = f"pulumi config set {other or setting} <{what}> --stack {files.stack}"
    raise KitError(f"{PROJECT}:{other or setting}: {value} {reason}", f"{fix}: {shell_hint(command)}")


def check_disk(engine: Engine) -> None:
    """Raise KitError when the engine's disk is as good as full; warn when it is getting narrow."""
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
