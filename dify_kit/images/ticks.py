"""Progress of one long step: nothing in the first two seconds, then a line now and then, or one that moves."""

import threading
import time
from types import TracebackType
from typing import Self

from rich.console import Console

from dify_kit.talk import say

AFTER_SECONDS = 2.0
EVERY_SECONDS = 10.0
_MOVING_SECONDS = 0.5
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_STEP = 1024.0


def size_text(count: float) -> str:
    """Return a number of bytes for people."""
    unit = 0
    while count >= _STEP and unit < len(_UNITS) - 1:
        count /= _STEP
        unit += 1
    return f"{count:.0f} {_UNITS[unit]}" if unit == 0 else f"{count:.1f} {_UNITS[unit]}"


class Ticks:
    """Tells on stderr how far a step is, from a thread of its own: the step may hang in a read.

    `total` is in bytes, and None where the size is unknown. On a terminal one line moves.
    """

    def __init__(self, what: str, total: int | None = None, *, after: float = AFTER_SECONDS) -> None:
        self._what = what
        self._total = total
        self._after = after
        self._done = 0
        self._note = ""
        self._began = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._tell, daemon=True)

    def add(self, count: int) -> None:
        """Count bytes that were handled."""
        self._done += count

    def note(self, text: str) -> None:
        """Show a step instead of a number of bytes."""
        self._note = text

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End; nothing is printed after this."""
        self._ended.set()
        self._thread.join()

    def line(self) -> str:
        """Return how far it is."""
        total = f" of about {size_text(self._total)}" if self._total else ""
        far = f"{size_text(self._done)}{total}, " if self._done or self._total else ""
        note = f"{self._note}, " if self._note else ""
        return f"{self._what}: {note}{far}{time.monotonic() - self._began:.0f} s"

    def _tell(self) -> None:
        if self._ended.wait(self._after):
            return
        console = Console(stderr=True, highlight=False)
        if console.is_terminal:
            with console.status(self.line()) as status:
                while not self._ended.wait(_MOVING_SECONDS):
                    status.update(self.line())
            return
        while True:
            say(f"    {self.line()}")
            if self._ended.wait(EVERY_SECONDS):
                return
