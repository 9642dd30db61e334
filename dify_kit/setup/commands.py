"""Running installers: with a deadline, a heartbeat, and the last words of what failed."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from dify_kit.errors import KitError
from dify_kit.talk import say

HEARTBEAT_SECONDS = 10.0
LAST_LINES = 15


def done(what: str, detail: str = "") -> None:
    """Say that a step is done, or was done already."""
    say(f"✓ {what}{f': {detail}' if detail else ''}")


def as_root(command: Sequence[str]) -> list[str]:
    """Return the command to run with root's rights. Raises KitError when there is no way to get them."""
    if os.geteuid() == 0:
        return list(command)
    if shutil.which("sudo") is None:
        raise KitError(
            f"`{' '.join(command[:3])}` needs root, and sudo is not installed",
            "run `make setup` once as root, or install the Docker engine by hand",
        )
    return ["sudo", "--non-interactive", *command] if os.environ.get("CI") else ["sudo", *command]


def run_step(
    what: str,
    command: Sequence[str],
    *,
    hint: str,
    seconds: float,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> str:
    """Run an installer, say every ten seconds that it goes on, and return its output.

    Raises KitError with the last lines of the output on failure, or when `seconds` have passed.
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
                    raise KitError(f"{what}: not finished within {seconds:.0f} s\n{_tail(log)}", hint)
                if now - talked > HEARTBEAT_SECONDS:
                    talked = now
                    say(f"  {what}: {now - started:.0f} s")
                time.sleep(0.1)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait(timeout=10)
        if process.returncode != 0:
            raise KitError(f"{what}: exit code {process.returncode}\n{_tail(log)}", hint)
        done(what, f"{time.monotonic() - started:.0f} s")
        log.seek(0)
        return log.read()


def _tail(log: "tempfile._TemporaryFileWrapper[str]") -> str:
    log.seek(0)
    lines = [line.rstrip() for line in log.read().splitlines() if line.strip()]
    return "\n".join(f"  {line}" for line in lines[-LAST_LINES:]) or "  (no output)"
