"""Interleaved rounds and their medians: the one place that decides how figures of several runs become one."""

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Turn:
    """Whose turn it is: `round` counts from 1."""

    round: int
    name: str


def interleaved(names: Sequence[str], rounds: int) -> Iterator[Turn]:
    """Yield A, B, C, A, B, C, ...: a noisy minute of the machine meets all of them."""
    for number in range(1, rounds + 1):
        for name in names:
            yield Turn(round=number, name=name)


def median(values: Sequence[T], of: Callable[[T], float]) -> float:
    """Return the median of a figure. Raises ValueError without values: a figure of nothing is none."""
    if not values:
        raise ValueError("no round was measured")
    return statistics.median(of(value) for value in values)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that `share` (0..1) of all values do not exceed. Raises ValueError without values."""
    if not values:
        raise ValueError("no value was measured")
    # Rounded first: 0.99 * 300 is a little more than 297, and would count as 298.
    return sorted(values)[max(0, math.ceil(round(share * len(values), 6)) - 1)]
