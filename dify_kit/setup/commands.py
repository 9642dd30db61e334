"""Running installers: with a deadline, a heartbeat, and the last words of what failed."""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from dify_kit.errors import KitError
from dify_kit.talk import say

HEARTBEAT_SECONDS = 10.0
LAST_LINES = 15
_GRACE_SECONDS = 5


def done(what: str, detail: str = "") -> None:
    """Say that a step is done, or was done already."""
    say(f"✓ {what}{f': {detail}' if detail else ''}")


def cache_directory() -> Path:
    """Return the kit's directory in the user's cache."""
    chosen = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification tells programs to ignore a relative path.
    base = Path(chosen) if Path(chosen).is_absolute() else Path.home() / ".cache"
    return base / "dify-kit"


def as_root(command: Sequence[str]) -> list[str]:
    """Return the command to run with root's rights. Raises KitError when there is no way to get them."""
    if os.geteuid() == 0:
        return list(command)
    if shutil.which("sudo") is None:
        raise KitError(
            f"`{' '.join(command[:3])}` needs root, and sudo is not installed",
            "run the same once as root, or install by hand what is missing",
        )
    return ["sudo", "--non-interactive", *command] if os.environ.get("CI") else ["sudo", *command]


def apt_install(packages: Sequence[str], *, hint: str, seconds: float) -> None:
    """Install Debian or Ubuntu packages. Raises KitError where there is no apt, or apt fails."""
    names = " ".join(packages)
    if shutil.which("apt-get") is None:
        raise KitError(f"{names}: not installed, and this is neither Debian nor Ubuntu", hint)
    # Given to apt by env(1), as sudo passes no variables on.
    apt = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120"]
    run_step("reading the package lists", as_root([*apt, "update"]), hint=hint, seconds=seconds)
    run_step(
        f"installing {names}",
        as_root([*apt, "install", "--yes", "--no-install-recommends", *packages]),
        hint=hint,
        seconds=seconds,
    )


def run_step(
    what: str,
    command: Sequence[str],
    *,
    hint: str,
    seconds: float,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    detail: Callable[[str], str] | None = None,
) -> str:
    """Run an installer, report progress every ten seconds, and return its output.

    ``detail`` makes the heartbeat's text from the output so far. Raises KitError with the last lines of the
    output on failure, or when ``seconds`` have passed.
    """
    say(f"→ {what} ...")
    started = talked = time.monotonic()
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        try:
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=None if env is None else dict(env),
                cwd=cwd,
            )
        except OSError as problem:
            raise KitError(f"{what}: {problem}", hint) from None
        try:
            while process.poll() is None:
                now = time.monotonic()
                if now - started > seconds:
                    raise KitError(f"{what}: not finished within {seconds:.0f} s\n{_tail(_text(log))}", hint)
                if now - talked >= HEARTBEAT_SECONDS:
                    talked = now
                    more = detail(_text(log)) if detail else ""
                    say(f"  {what}: {now - started:.0f} s{f', {more}' if more else ''}")
                time.sleep(0.1)
        finally:
            _end(process)
        text = _text(log)
        if process.returncode != 0:
            raise KitError(f"{what}: exit code {process.returncode}\n{_tail(text)}", hint)
    done(what, f"{time.monotonic() - started:.0f} s")
    return text


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask a process that still runs to stop, then kill it. One that root owns is left to itself."""
    for stop in (process.terminate, process.kill):
        if process.poll() is not None:
            return
        with contextlib.suppress(PermissionError, subprocess.TimeoutExpired):
            stop()
            process.wait(timeout=_GRACE_SECONDS)


def _text(log: IO[str]) -> str:
    # By descriptor: the position is shared with the process that still writes.
    size = os.fstat(log.fileno()).st_size
    return os.pread(log.fileno(), size, 0).decode("utf-8", errors="replace")


def _tail(text: str) -> str:
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    return "\n".join(f"  {line}" for line in lines[-LAST_LINES:]) or "  (no output)"
