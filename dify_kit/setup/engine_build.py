"""Build the Pulumi engine from Go modules, for machines that cannot reach its download site.

A built engine is stored in the user's cache, under a name derived from its sources, so that every checkout
of the same version uses the same one. It is complete or absent: it is built beside its place and moved in.
"""

import contextlib
import fcntl
import hashlib
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from dify_kit.errors import KitError
from dify_kit.setup.commands import HEARTBEAT_SECONDS, cache_directory, done, run_step
from dify_kit.setup.go_toolchain import Toolchain, find_go
from dify_kit.talk import say
from dify_kit.workspace.files import CHECKOUT

VERSION = "3.259.0"
SOURCES = CHECKOUT / "tools" / "engine"
BUILD_SECONDS = 2400
LOCK_SECONDS = 3600
GIB = 1024**3
# Modules, object files and the engine itself, on a machine that has none of them.
DISK_NEEDED = 8 * GIB
_PROXY_HINT = "is the Go module proxy reachable (GOPROXY)? The same command continues where it stopped"
_STRIPPED = "-s -w"


@dataclass(frozen=True, kw_only=True)
class Part:
    """A program of the engine: the module below tools/engine, the package in it, and its linker flags."""

    module: str
    package: str
    program: str
    linker: str = _STRIPPED


PARTS = (
    Part(
        module="cli",
        package="github.com/pulumi/pulumi/pkg/v3/cmd/pulumi",
        program="pulumi",
        linker=f"{_STRIPPED} -X github.com/pulumi/pulumi/sdk/v3/go/common/version.Version=v{VERSION}",
    ),
    Part(
        module="language",
        package="github.com/pulumi/pulumi/sdk/v3/python/cmd/pulumi-language-python",
        program="pulumi-language-python",
    ),
    Part(module="provider", package=".", program="pulumi-resource-docker"),
)
# Scripts of the SDK module that the engine starts; they are copied next to it, not built.
SCRIPTS = ("python/cmd/pulumi-language-python-exec", "python/dist/pulumi-resource-pulumi-python")
PROGRAMS = tuple(part.program for part in PARTS) + tuple(Path(script).name for script in SCRIPTS)


def engine_key() -> str:
    """Return the name of an engine built from these sources: version, and a digest of all that counts."""
    digest = hashlib.sha256(repr((PARTS, SCRIPTS)).encode())
    for path in sorted(SOURCES.glob("*/*")):
        if path.name in {"go.mod", "go.sum"} or path.suffix == ".go":
            digest.update(str(path.relative_to(SOURCES)).encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return f"pulumi-{VERSION}-{digest.hexdigest()[:12]}"


def built_engine() -> Path:
    """Return where the built engine's programs lie, or would lie."""
    return cache_directory() / "engine" / engine_key() / "bin"


def is_complete(directory: Path) -> bool:
    """Tell whether a directory holds everything that an engine consists of."""
    return all((directory / name).is_file() for name in PROGRAMS)


def build_engine() -> Path:
    """Build the engine into the cache, complete or not at all, and return the directory of its programs.

    Takes 7 to 10 minutes on two cores, about one when Go has modules and objects already. Raises KitError.
    """
    directory = built_engine()
    store = directory.parents[1]
    store.mkdir(parents=True, exist_ok=True)
    with _alone(store):
        if is_complete(directory):
            return directory  # built by the process that was waited for
        _check_disk(store)
        toolchain = find_go()
        say(
            f"→ building the Pulumi engine from Go modules: {len(PARTS)} parts, up to 10 minutes on two cores"
        )
        _clear_drafts(store)
        draft = Path(tempfile.mkdtemp(prefix=".new-", dir=store))
        try:
            _build_into(draft / "bin", toolchain)
            draft.chmod(0o755)
            shutil.rmtree(directory.parent, ignore_errors=True)
            draft.rename(directory.parent)
        finally:
            # All of them: the compiler of a run that was killed may have put a draft back meanwhile.
            _clear_drafts(store)
        toolchain.clean()
    return directory


def _clear_drafts(store: Path) -> None:
    for draft in store.glob(".new-*"):
        shutil.rmtree(draft, ignore_errors=True)


@contextlib.contextmanager
def _alone(store: Path) -> Iterator[None]:
    """Hold the store's lock, so that two checkouts do not build the same engine at the same time."""
    deadline = time.monotonic() + LOCK_SECONDS
    talked = 0.0
    with (store / ".lock").open("w", encoding="ascii") as lock:
        while not _take(lock):
            now = time.monotonic()
            if now > deadline:
                raise KitError(
                    f"another process has been building the engine for {LOCK_SECONDS} s",
                    f"see who holds {store / '.lock'} (`fuser`), end it, then try again",
                )
            if now - talked >= HEARTBEAT_SECONDS:
                talked = now
                say("  another process builds the same engine; waiting for it")
            time.sleep(0.2)
        yield


def _take(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _check_disk(store: Path) -> None:
    free = shutil.disk_usage(store).free
    if free < DISK_NEEDED:
        raise KitError(
            f"{free / GIB:.1f} GiB are free in {store}; building the engine takes up to {DISK_NEEDED // GIB}",
            "free some, or set XDG_CACHE_HOME to a directory on a larger disk",
        )


def _build_into(directory: Path, toolchain: Toolchain) -> None:
    directory.mkdir()
    environment = toolchain.environment()
    for number, part in enumerate(PARTS, start=1):
        flags = ["-v", "-trimpath", "-buildvcs=false", "-ldflags", part.linker]
        run_step(
            f"building {part.program} ({number} of {len(PARTS)})",
            [str(toolchain.go), "build", *flags, "-o", str(directory / part.program), part.package],
            hint=_PROXY_HINT,
            seconds=BUILD_SECONDS,
            env=environment,
            cwd=SOURCES / part.module,
            detail=describe_build,
        )
    _copy_scripts(toolchain, environment, directory)
    _try_out(directory)


def describe_build(output: str) -> str:
    """Say how far `go build -v` has come."""
    lines = [line for line in output.splitlines() if line.strip()]
    downloaded = sum(line.startswith("go: downloading") for line in lines)
    compiled = sum(re.fullmatch(r"[\w.~/-]+", line) is not None for line in lines)
    reported = [f"{downloaded} modules downloaded"] if downloaded else []
    return ", ".join([*reported, f"{compiled} packages compiled"]) if compiled else "".join(reported)


def _copy_scripts(toolchain: Toolchain, environment: dict[str, str], directory: Path) -> None:
    listed = subprocess.run(
        [str(toolchain.go), "list", "-m", "-f", "{{.Dir}}", "github.com/pulumi/pulumi/sdk/v3"],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
        cwd=SOURCES / "cli",
        env=environment,
    )
    module = Path(listed.stdout.strip())
    for script in SCRIPTS:
        source = module / script
        if listed.returncode != 0 or not source.is_file():
            raise KitError(
                f"{script} is not in Pulumi's SDK module: {listed.stderr.strip()[-300:]}", _PROXY_HINT
            )
        shutil.copyfile(source, directory / source.name)
        (directory / source.name).chmod(0o755)


def _try_out(directory: Path) -> None:
    try:
        reported = subprocess.run(
            [str(directory / "pulumi"), "version"],
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError) as problem:
        raise KitError(
            f"the engine that was built does not run: {problem}", "run the same command again"
        ) from None
    if reported != f"v{VERSION}":
        raise KitError(
            f"the engine that was built says it is {reported!r}, not v{VERSION}", "is tools/engine unchanged?"
        )
    done("the built engine runs", reported)
