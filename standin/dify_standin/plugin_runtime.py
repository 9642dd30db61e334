"""Which plugins run: a state of the daemon's process, and not of its database.

After a start of the daemon the installed plugins need some seconds, in which its health check is green already.
"""

import threading
import time

from dify_standin.config import text

# A version that an upgrade left is stopped within this time. Installed again earlier, it never runs.
LEAVING_SECONDS = 4.0


class Runtime:
    """The plugins of one process of the daemon."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._launched: set[str] = set()
        self._broken: set[str] = set()
        self._left: dict[str, float] = {}

    def restart(self) -> None:
        """Begin as a new process does."""
        with self._lock:
            self._began = time.monotonic()
            self._launched, self._broken, self._left = set(), set(), {}

    def runs(self, identifier: str) -> bool:
        """Return whether an installed plugin answers calls."""
        with self._lock:
            if identifier in self._broken:
                return False
            return identifier in self._launched or time.monotonic() - self._began >= _start_seconds()

    def launch(self, identifier: str) -> None:
        """Note that a plugin was started."""
        with self._lock:
            if identifier not in self._broken:
                self._launched.add(identifier)

    def stop(self, identifier: str) -> None:
        """Note that a plugin was stopped."""
        with self._lock:
            self._launched.discard(identifier)
            self._broken.discard(identifier)

    def leave(self, identifier: str) -> None:
        """Note that an upgrade left a version, which ends a little later."""
        with self._lock:
            self._launched.discard(identifier)
            self._left[identifier] = time.monotonic()

    def was_left_lately(self, identifier: str) -> bool:
        """Return whether a version that an upgrade left has not ended yet."""
        with self._lock:
            return time.monotonic() - self._left.get(identifier, -LEAVING_SECONDS) < LEAVING_SECONDS

    def break_down(self, identifier: str) -> None:
        """Note that a plugin never runs again in this process, though it is installed."""
        with self._lock:
            self._launched.discard(identifier)
            self._broken.add(identifier)


def _start_seconds() -> float:
    return float(text("DIFY_STANDIN_PLUGIN_SECONDS") or 3)


RUNTIME = Runtime()
