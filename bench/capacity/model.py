"""The model: how much CPU time a request takes with any number of replicas, and what follows for their throughput."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MICROSECONDS = 1_000_000
# What the model is fitted to. What is measured of more replicas shows how well it predicts.
FITTED = (1, 2, 3)
# Replicas are planned for this share of their CPU: above it, waiting times grow fast with small changes of the load.
BUSY = 0.6


@dataclass(frozen=True, kw_only=True)
class Demand:
    """CPU time in µs that one request takes of all replicas of a part together.

    ``alone`` is that of a single replica. Several replicas take ``several``, and ``remote`` more for the share of
    requests that another replica takes part in, which is (n - 1) / n for owners that a hash spreads evenly.
    """

    alone: float
    several: float
    remote: float

    def of(self, replicas: int) -> float:
        """Return it for a number of replicas."""
        return self.alone if replicas == 1 else self.several + self.remote * others(replicas)

    def rate(self, replicas: int, cores: float) -> float:
        """Return the most requests/s of replicas that have ``cores`` each."""
        return replicas * cores * MICROSECONDS / self.of(replicas)

    def least(self, rate: float, cores: float) -> int:
        """Return the fewest replicas that serve ``rate`` requests/s while they are ``BUSY`` at most."""
        least = 1
        while self.rate(least, cores) * BUSY < rate:
            least += 1
        return least


def others(replicas: int) -> float:
    """Return the share of keys whose owner is another replica."""
    return (replicas - 1) / replicas


def fitted(measured: Mapping[int, Sequence[float]], *, joined: bool) -> Demand:
    """Return the demand that fits the rounds measured with 1, 2 and 3 replicas, in µs for each request.

    ``joined``: several replicas take part in one request, so the first of them is no measure for several. Raises
    ValueError where one of the three was not measured.
    """
    missing = [count for count in FITTED if not measured.get(count)]
    if missing:
        raise ValueError(f"nothing was measured with {', '.join(map(str, missing))} replica(s)")
    medians = {count: statistics.median(measured[count]) for count in FITTED}
    several = [count for count in FITTED if count > 1 or not joined]
    line = statistics.linear_regression(
        [others(count) for count in several], [medians[count] for count in several]
    )
    intercept, slope = line.intercept, line.slope
    if slope < 0:
        # Noise: a request never gets cheaper when more replicas take part in it.
        intercept, slope = statistics.fmean(medians[count] for count in several), 0.0
    return Demand(alone=medians[1] if joined else intercept, several=intercept, remote=slope)


def slots(rate: float, seconds: float, connections: int) -> int:
    """Return how many processes of the api hold ``rate`` requests/s that take ``seconds`` each.

    One process of Dify's api handles ``connections`` requests at a time, and when all of them are slow it answers
    nothing else. By Little's law rate x seconds of them run at a time.
    """
    return max(1, math.ceil(rate * seconds / (connections * BUSY)))
