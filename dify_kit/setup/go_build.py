"""Programs built from Go modules into the user's cache, for machines that cannot download them.

A build is stored under a name derived from its sources, so that every checkout of the same version uses the same one.
It is complete or absent: it is built next to its place and moved in.
"""

import contextlib
import fcntl
import hashlib
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from dify_kit.errors import KitError
from dify_kit.setup.commands import HEARTBEAT_SECONDS, cache_directory, run_step
from dify_kit.setup.go_toolchain import Toolchain, find_go
from dify_kit.talk import say

BUILD_SECONDS = 2400
LOCK_SECONDS = 3600
GIB = 1024**3
# Modules, object files and the programs themselves, on a machine that has none of them.
DISK_NEEDED = 8 * GIB
PROXY_HINT = "is the Go module proxy reachable (GOPROXY)? The same command continues where it stopped"
STRIPPED = "-s -w"


@dataclass(frozen=True, kw_only=True)
class Part:
    """A program of a build: the module's directory below the sources, the package in it, and its linker flags."""

    module: str
    package: str
    program: str
    linker: str = STRIPPED


Finish = Callable[[Path, Toolchain], None]


@dataclass(frozen=True, kw_only=True)
class GoBuild:
    """Programs that are built and stored together.

    ``name`` is what messages call it, ``folder`` its place in the cache, ``version`` the beginning of its key.
    ``extra`` names programs that ``finish`` adds; it receives the directory of the programs and the toolchain, and
    raises KitError when something is wrong with what was built.
    """

    name: str
    folder: str
    version: str
    sources: Path
    parts: tuple[Part, ...]
    extra: tuple[str, ...] = ()
    finish: Finish = lambda _directory, _toolchain: None

    @property
    def key(self) -> str:
        """The build's name in the cache: its version, and a digest of all that counts."""
        described = (self.parts, self.extra) if self.extra else self.parts
        digest = hashlib.sha256(repr(described).encode())
        modules = {part.module for part in self.parts}
        for path in sorted(self.sources.glob("*/*")):
            counts = path.name in {"go.mod", "go.sum"} or path.suffix == ".go"
            if counts and path.parent.name in modules:
                digest.update(str(path.relative_to(self.sources)).encode() + b"\0")
                digest.update(hashlib.sha256(path.read_bytes()).digest())
        return f"{self.version}-{digest.hexdigest()[:12]}"

    @property
    def directory(self) -> Path:
        """The directory where the programs are, or would be."""
        return cache_directory() / self.folder / self.key / "bin"

    @property
    def programs(self) -> tuple[str, ...]:
        """The names of the programs."""
        return tuple(part.program for part in self.parts) + tuple(Path(one).name for one in self.extra)

    def is_complete(self, directory: Path | None = None) -> bool:
        """Tell whether a directory, by default the build's own, holds every program."""
        place = directory or self.directory
        return all((place / name).is_file() for name in self.programs)


def build_all(builds: Sequence[GoBuild]) -> None:
    """Build what is missing, one after the other with one toolchain. Raises KitError."""
    toolchain: Toolchain | None = None
    for one in builds:
        if one.is_complete():
            continue
        store = one.directory.parents[1]
        store.mkdir(parents=True, exist_ok=True)
        with _alone(store, one.name):
            if one.is_complete():
                continue  # built by the process that was waited for
            _check_disk(store, one.name)
            toolchain = toolchain or find_go()
            _build(one, store, toolchain)
    if toolchain:
        toolchain.clean()


def _build(build: GoBuild, store: Path, toolchain: Toolchain) -> None:
    say(f"→ building {build.name} from Go modules, parts: {len(build.parts)}")
    directory = build.directory
    _clear_drafts(store)
    draft = Path(tempfile.mkdtemp(prefix=".new-", dir=store))
    try:
        _build_into(draft / "bin", build, toolchain)
        draft.chmod(0o755)
        shutil.rmtree(directory.parent, ignore_errors=True)
        draft.rename(directory.parent)
    finally:
        # All of them: the compiler of a run that was killed may have put a draft back meanwhile.
        _clear_drafts(store)


def _clear_drafts(store: Path) -> None:
    for draft in store.glob(".new-*"):
        shutil.rmtree(draft, ignore_errors=True)


@contextlib.contextmanager
def _alone(store: Path, name: str) -> Iterator[None]:
    """Hold the store's lock, so that two checkouts do not build the same programs at the same time."""
    deadline = time.monotonic() + LOCK_SECONDS
    reported = float("-inf")
    with (store / ".lock").open("w", encoding="ascii") as lock:
        while not _take(lock):
            now = time.monotonic()
            if now > deadline:
                raise KitError(
                    f"another process has been building in {store} for {LOCK_SECONDS} s, {name} waits for it",
                    f"see which process holds {store / '.lock'} (`fuser`), end it, then try again",
                )
            if now - reported >= HEARTBEAT_SECONDS:
                reported = now
                say(f"  another process builds in {store}; {name} waits for it")
            time.sleep(0.2)
        yield


def _take(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _check_disk(store: Path, name: str) -> None:
    free = shutil.disk_usage(store).free
    if free < DISK_NEEDED:
        raise KitError(
            f"{free / GIB:.1f} GiB are free in {store}; building {name} takes up to {DISK_NEEDED // GIB}",
            "free some, or set XDG_CACHE_HOME to a directory on a larger disk",
        )


def _build_into(directory: Path, build: GoBuild, toolchain: Toolchain) -> None:
    directory.mkdir()
    for number, part in enumerate(build.parts, start=1):
        flags = ["-v", "-trimpath", "-buildvcs=false", "-ldflags", part.linker]
        run_step(
            f"building {part.program} ({number} of {len(build.parts)})",
            [str(toolchain.go), "build", *flags, "-o", str(directory / part.program), part.package],
            hint=PROXY_HINT,
            seconds=BUILD_SECONDS,
            env=toolchain.environment(),
            cwd=build.sources / part.module,
            detail=describe_build,
        )
    build.finish(directory, toolchain)


def describe_build(output: str) -> str:
    """Describe how far `go build -v` is."""
    lines = [line for line in output.splitlines() if line.strip()]
    downloaded = sum(line.startswith("go: downloading") for line in lines)
    compiled = sum(re.fullmatch(r"[\w.~/-]+", line) is not None for line in lines)
    reported = [f"{downloaded} modules downloaded"] if downloaded else []
    return ", ".join([*reported, f"{compiled} packages compiled"]) if compiled else "".join(reported)
