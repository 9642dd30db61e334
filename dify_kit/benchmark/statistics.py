"""Percentiles by nearest rank, and the summary of a run."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

PERCENTILES = (50, 95, 99)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One request: seconds to its end and to its first token, the kind of error (empty: none) and its reason."""

    seconds: float
    first_token: float | None = None
    error: str = ""
    reason: str = ""


def percentile(values: Sequence[float], percent: int) -> float | None:
    """Return the smallest value that at least ``percent`` (1 to 100) of all are not above; None of none."""
    if not 1 <= percent <= 100:  # noqa: PLR2004  # percent
        raise ValueError(f"percent is {percent}, not 1 to 100")
    if not values:
        return None
    return sorted(values)[math.ceil(percent * len(values) / 100) - 1]


def summary(samples: Sequence[Sample], seconds: float) -> dict[str, Any]:
    """Return counts, milliseconds and requests a second. Failed requests count in `errors` only."""
    good = [one for one in samples if not one.error]
    first = [one.first_token for one in good if one.first_token is not None]
    return {
        "requests": len(samples),
        "ok": len(good),
        "errors": errors(samples),
        "reasons": reasons(samples),
        "seconds": seconds,
        "throughput": len(good) / seconds if seconds > 0 else 0.0,
        "latencyMs": _percentiles([one.seconds for one in good]),
        "firstTokenMs": _percentiles(first),
    }


def errors(samples: Sequence[Sample]) -> dict[str, int]:
    """Return how many requests failed, by kind of error."""
    return dict(sorted(Counter(one.error for one in samples if one.error).items()))


def reasons(samples: Sequence[Sample]) -> dict[str, dict[str, int]]:
    """Return how many requests failed, by kind of error and reason; kinds without a reason are left out."""
    found = Counter((one.error, one.reason) for one in samples if one.reason)
    return {
        error: {reason: count for (kind, reason), count in sorted(found.items()) if kind == error}
        for error, _ in sorted(found)
    }


def _percentiles(values: Sequence[float]) -> dict[str, float | None]:
    found = {f"p{one}": percentile(values, one) for one in PERCENTILES}
    return {name: None if value is None else value * 1000 for name, value in found.items()}
