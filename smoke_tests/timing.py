"""Decides whether a stream arrived while it was made, from several attempts on a machine that may be busy.

A stream that a proxy holds back arrives in one piece every time. A busy machine reads a stream in one piece now and
then, so an attempt counts against the environment only when this machine ran without a long interruption just before.
"""

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

TICK_SECONDS = 0.001
# This machine must react at least this many times faster than the stream, for an attempt to count as held back.
MARGIN = 2
ATTEMPTS = 8
HELD_BACK_ATTEMPTS = 3
# A pause between two moments, in seconds of one clock.
Stall = tuple[float, float]


class Stalls:
    """Records the interruptions of this process inside a `with` block.

    `found` are (start, end) by time.monotonic(): the time between two ticks without the tick itself.
    """

    def __init__(self) -> None:
        self.found: list[Stall] = []
        self._last = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Self:
        """Start to measure: an interruption before the thread's first step counts too."""
        self._last = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop to measure."""
        self._done.set()
        self._thread.join()

    def _tick(self) -> None:
        while not self._done.wait(TICK_SECONDS):
            self._record()
        self._record()

    def _record(self) -> None:
        now = time.monotonic()
        if now > self._last + TICK_SECONDS:
            self.found.append((self._last + TICK_SECONDS, now))
        self._last = now


def longest_stall(stalls: Iterable[Stall], *, since: float, until: float) -> float:
    """Return the seconds of the longest interruption that overlaps this time, 0 without one."""
    return max((end - start for start, end in stalls if start <= until and end >= since), default=0.0)


def attempt(arrivals: Iterable[float], stalls: Iterable[Stall], *, needed: float) -> "Attempt":
    """Return the attempt with these times of arrival and interruptions, both in seconds of one clock.

    Only an interruption that overlaps the arrival, or the time just before it, can have joined events that came apart.
    """
    times = tuple(arrivals)
    first, last = min(times), max(times)
    stalled = longest_stall(stalls, since=first - MARGIN * needed, until=last)
    return Attempt(spread=last - first, needed=needed, stalled=stalled)


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One stream: the seconds between its first and last event, those expected at least, and the longest stall."""

    spread: float
    needed: float
    stalled: float

    @property
    def streamed(self) -> bool:
        """Whether the events arrived one after the other."""
        return self.spread >= self.needed

    @property
    def held_back(self) -> bool:
        """Whether the events arrived together although this machine could have kept them apart."""
        return not self.streamed and self.needed >= MARGIN * self.stalled

    def __str__(self) -> str:
        """Return the times in milliseconds."""
        return (
            f"{self.spread * 1000:.1f} ms from first to last event, at least {self.needed * 1000:.1f} ms expected, "
            f"this machine stalled for {self.stalled * 1000:.1f} ms"
        )


@dataclass(kw_only=True)
class Timing:
    """The attempts so far."""

    attempts: list[Attempt] = field(default_factory=list)

    @property
    def streamed(self) -> bool:
        """Whether one attempt shows that streams arrive while they are made."""
        return any(one.streamed for one in self.attempts)

    @property
    def held_back(self) -> bool:
        """Whether enough attempts show that something holds streams back."""
        return not self.streamed and sum(one.held_back for one in self.attempts) >= HELD_BACK_ATTEMPTS

    @property
    def decided(self) -> bool:
        """Whether no further attempt is needed or allowed."""
        return self.streamed or self.held_back or len(self.attempts) >= ATTEMPTS

    def __str__(self) -> str:
        """Return every attempt."""
        return "; ".join(str(one) for one in self.attempts)
