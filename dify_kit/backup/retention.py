"""Which archives of a stack stay at a place when a new one is complete: by days, weeks and months."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

_FORM = "%Y%m%d-%H%M%S"
SUFFIX = ".dify-backup"


@dataclass(frozen=True, kw_only=True)
class Retention:
    """How many days, weeks and months keep an archive, the newest of each; 0: that unit keeps none."""

    daily: int = 0
    weekly: int = 0
    monthly: int = 0

    def __bool__(self) -> bool:
        """Whether anything is deleted."""
        return bool(self.daily or self.weekly or self.monthly)


def name_of(stack: str, when: datetime) -> str:
    """Return the name of an archive that was begun at a time."""
    return f"dify-{stack}-{when.astimezone(UTC):{_FORM}}{SUFFIX}"


def time_of(name: str, stack: str) -> datetime | None:
    """Return when an archive of a stack was begun, by its name; None for every other name."""
    found = re.fullmatch(rf"dify-{re.escape(stack)}-(\d{{8}}-\d{{6}}){re.escape(SUFFIX)}", name)
    if not found:
        return None
    try:
        return datetime.strptime(found[1], _FORM).replace(tzinfo=UTC)
    except ValueError:
        return None


def expired(names: Iterable[str], stack: str, wanted: Retention) -> list[str]:
    """Return the archives of a stack to delete, the oldest first.

    Of each of the last `daily` days that have an archive the newest stays, and so for weeks (from Monday) and months.
    Without any such number all stay.
    """
    if not wanted:
        return []
    times = {name: when for name in names if (when := time_of(name, stack))}
    newest_first = sorted(times, key=times.__getitem__, reverse=True)
    units: tuple[tuple[int, Callable[[datetime], str]], ...] = (
        (wanted.daily, lambda when: f"{when:%Y-%m-%d}"),
        (wanted.weekly, lambda when: f"{when:%G-%V}"),
        (wanted.monthly, lambda when: f"{when:%Y-%m}"),
    )
    kept = set(newest_first[:1])
    for number, unit in units:
        newest: dict[str, str] = {}
        for name in newest_first:
            newest.setdefault(unit(times[name]), name)
        kept.update(list(newest.values())[:number])
    return [name for name in reversed(newest_first) if name not in kept]
