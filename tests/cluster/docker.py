"""The docker client, as the test cluster calls it."""

import subprocess
from collections.abc import Sequence
from typing import IO

from dify_kit.errors import KitError
from infra import hints

SECONDS = 120


def docker(*words: str, stdin: IO[bytes] | None = None, seconds: float = SECONDS) -> str:
    """Run `docker` and return its output without white space around it. Raises KitError with what it reports."""
    return run(["docker", *words], stdin=stdin, seconds=seconds)


def run(
    command: Sequence[str],
    *,
    stdin: IO[bytes] | None = None,
    text: str | None = None,
    seconds: float = SECONDS,
) -> str:
    """Run a command and return its output. Raises KitError with what it reports, or when the time is over."""
    shown = " ".join(command[:3])
    try:
        done = subprocess.run(
            list(command),
            stdin=None if text is not None else (stdin or subprocess.DEVNULL),
            input=text.encode() if text is not None else None,
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except FileNotFoundError:
        raise KitError(f"{command[0]} is not installed", f"run `{hints.make('setup')}`") from None
    except subprocess.TimeoutExpired:
        raise KitError(
            f"`{shown}` did not end within {seconds:.0f} s", "is the machine busy? Try again"
        ) from None
    if done.returncode != 0:
        reported = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise KitError(f"`{shown}` failed: {reported[-2000:]}")
    return done.stdout.decode(errors="replace").strip()
