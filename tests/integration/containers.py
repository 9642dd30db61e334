"""Containers of tests: directories that they can read, and what commands in them print on an engine that is busy."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

# An engine under load now and then loses what a command printed, and tells its exit code all the same.
TIMES = 5


def printed(container: Any, command: Sequence[str]) -> str:  # docker's models are not typed
    """Run a command that prints something, and return that; it is asked again while nothing came of it."""
    for _ in range(TIMES):
        code, output = container.exec_run(list(command))
        text = output.decode()
        assert code == 0, f"{list(command)} exited with {code}: {text}"
        if text:
            return str(text)
    raise AssertionError(f"{list(command)} printed nothing, {TIMES} times")


def readable(directory: Path) -> Path:
    """Open one of pytest's directories, which are closed to others, to containers with other users."""
    for parent in (directory, *directory.parents):
        if parent == directory or parent.name.startswith("pytest-"):
            parent.chmod(0o755)
    return directory
