"""The Python environments of docs/guides/clients.md: its install lines, at the pins and at the newest versions.

Each is separate from the project's own environment, and is kept in the user's cache. The newest versions are looked up
once a day.
"""

import fcntl
import hashlib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Literal

from dify_kit.errors import KitError
from dify_kit.setup.commands import cache_directory, run_step
from dify_kit.talk import warn
from dify_kit.workspace.files import CHECKOUT

GUIDE = CHECKOUT / "docs" / "guides" / "clients.md"
Versions = Literal["pinned", "newest"]
INSTALL_SECONDS = 300
HINT = "is the package index reachable? Behind a proxy, set HTTPS_PROXY and SSL_CERT_FILE"
_INSTALL = re.compile(r"`pip install ([^`]+)`")
_PIN = re.compile(r"([A-Za-z][\w.-]*)==(\d[\w.]*)")


def pins() -> dict[str, str]:
    """Return the version of each package that the page installs. A package without a pin is an error."""
    found: dict[str, str] = {}
    for line in _INSTALL.findall(GUIDE.read_text(encoding="utf-8")):
        for word in line.split():
            pin = _PIN.fullmatch(word)
            assert pin, f"{GUIDE.name}: pip install {word}: no version, write {word}==<version>"
            assert found.setdefault(pin[1], pin[2]) == pin[2], f"{GUIDE.name}: {pin[1]} has two versions"
    return found


def requirements(versions: Versions) -> list[str]:
    """Return what is installed: everything in one environment, as a reader of the whole page has it."""
    return [f"{name}=={pin}" if versions == "pinned" else name for name, pin in sorted(pins().items())]


@cache
def python(versions: Versions) -> Path:
    """Return the interpreter of an environment; make or renew the environment first. Raises KitError."""
    wanted = requirements(versions)
    digest = hashlib.sha256("\n".join([sys.version, sys.executable, *wanted]).encode()).hexdigest()[:12]
    home = cache_directory() / "clients" / f"{versions}-{digest}"
    # Pins do not move; what is the newest is looked up each day.
    stamp, state = home / ".ready", "pinned" if versions == "pinned" else datetime.now(UTC).date().isoformat()
    interpreter = home / "bin" / "python"
    with _locked(home):
        ready = stamp.read_text(encoding="utf-8") if stamp.exists() else ""
        if ready == state and interpreter.exists():
            return interpreter
        try:
            _install(home, wanted, empty=not ready)
        except KitError as problem:
            if not ready:
                raise
            warn(f"the newest packages of {GUIDE.name} are those of {ready}: {problem}")
            return interpreter
        stamp.write_text(state, encoding="utf-8")
    return interpreter


def _install(home: Path, wanted: list[str], *, empty: bool) -> None:
    bootstrap = _bootstrap()
    uv, env = bootstrap.find_uv() or bootstrap.install_uv(), bootstrap.uv_environment()
    if empty:
        make = [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(home)]
        run_step(f"making {home}", make, hint=f"remove {home}", seconds=INSTALL_SECONDS, env=env)
    install = [
        uv,
        "pip",
        "install",
        "--quiet",
        "--upgrade",
        "--python",
        str(home / "bin" / "python"),
        *wanted,
    ]
    what = f"installing the packages of {GUIDE.name}"
    run_step(what, install, hint=HINT, seconds=INSTALL_SECONDS, env=env)


@cache
def _bootstrap() -> ModuleType:
    """Return tools/bootstrap as a module: it finds uv, and the settings that pip and uv share."""
    loader = SourceFileLoader("bootstrap", str(CHECKOUT / "tools" / "bootstrap"))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    """Let one process at a time make the environment."""
    home.parent.mkdir(parents=True, exist_ok=True)
    with home.with_suffix(".lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
