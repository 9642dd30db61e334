"""What commands in containers print, on an engine that is busy."""

from collections.abc import Sequence
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
