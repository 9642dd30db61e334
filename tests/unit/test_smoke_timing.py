"""A stream is judged by attempts that this machine could time: a busy machine neither fails a run nor hides a proxy."""

import time
from collections.abc import Sequence

import pytest

from smoke_tests.timing import (
    ATTEMPTS,
    HELD_BACK_ATTEMPTS,
    TICK_SECONDS,
    Attempt,
    Stall,
    Stalls,
    Timing,
    attempt,
    longest_stall,
)

STREAMED = Attempt(spread=0.05, needed=0.02, stalled=0.001)
HELD_BACK = Attempt(spread=0.0, needed=0.02, stalled=0.001)
# The machine was away for as long as the stream took.
BLURRED = Attempt(spread=0.0, needed=0.02, stalled=0.03)
# A stream of some milliseconds, and an interruption as long.
TOO_SHORT = Attempt(spread=0.001, needed=0.002, stalled=0.004)


@pytest.mark.parametrize(
    ("attempts", "streamed", "held_back", "decided"),
    [
        pytest.param([STREAMED], True, False, True, id="streamed"),
        pytest.param([BLURRED, HELD_BACK, STREAMED], True, False, True, id="streamed-in-the-end"),
        pytest.param([HELD_BACK] * HELD_BACK_ATTEMPTS, False, True, True, id="held-back"),
        pytest.param(
            [HELD_BACK] * (HELD_BACK_ATTEMPTS - 1) + [BLURRED] * 2, False, False, False, id="not-yet"
        ),
        pytest.param([BLURRED] * ATTEMPTS, False, False, True, id="busy"),
        pytest.param([TOO_SHORT] * ATTEMPTS, False, False, True, id="too-short"),
        pytest.param([], False, False, False, id="none"),
    ],
)
def test_attempts_decide(attempts: list[Attempt], *, streamed: bool, held_back: bool, decided: bool) -> None:
    timing = Timing(attempts=attempts)

    assert (timing.streamed, timing.held_back, timing.decided) == (streamed, held_back, decided)


def test_an_attempt_shows_its_times() -> None:
    assert str(HELD_BACK) == (
        "0.0 ms from first to last event, at least 20.0 ms expected, this machine stalled for 1.0 ms"
    )


def test_an_interruption_is_measured() -> None:
    with Stalls() as stalls:
        # A loop in C holds the interpreter: no other thread of this process runs meanwhile.
        started = time.monotonic()
        sum(range(3_000_000))
        held = time.monotonic() - started

    assert longest_stall(stalls.found, since=started, until=started + held) > held / 2


def test_a_tick_is_no_interruption(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ticks of exactly their length: by a clock that only they move."""
    clock = [100.0]
    monkeypatch.setattr("smoke_tests.timing.time.monotonic", lambda: clock[0])
    stalls = Stalls()
    ticks = iter([TICK_SECONDS, TICK_SECONDS, 0.03, TICK_SECONDS])

    def wait(_: float) -> bool:
        step = next(ticks, None)
        clock[0] += step or 0.0
        return step is None

    monkeypatch.setattr(stalls._done, "wait", wait)
    with stalls:
        stalls._thread.join()

    ((start, end),) = stalls.found
    assert end - start == pytest.approx(0.03 - TICK_SECONDS)


@pytest.mark.parametrize(
    ("stalls", "stalled"),
    [
        pytest.param((), 0.0, id="none"),
        pytest.param(((1.0, 1.5),), 0.0, id="long-before-the-arrival"),
        pytest.param(((1.5, 1.99),), 0.49, id="just-before"),
        pytest.param(((1.98, 2.005), (2.005, 2.01)), 0.025, id="while-it-arrives"),
        pytest.param(((2.5, 2.9),), 0.0, id="afterwards"),
    ],
)
def test_interruptions_count_that_can_have_joined_events(stalls: Sequence[Stall], stalled: float) -> None:
    found = attempt([2.0, 2.01, 2.02], stalls, needed=0.01)

    assert found.spread == pytest.approx(0.02)
    assert found.stalled == pytest.approx(stalled)
