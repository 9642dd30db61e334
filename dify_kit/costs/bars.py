"""The totals as bars of a terminal: each a row of marks, one kind for each part of the costs."""

from collections.abc import Mapping, Sequence
from decimal import Decimal

from rich.text import Text

from dify_kit.costs.sums import PARTS, Cost, money

WIDTH = 32
# They differ without colours too.
MARKS: Mapping[str, tuple[str, str]] = {
    "tokens": ("█", "blue"),
    "hosting": ("▒", "yellow"),
    "engineering": ("░", "magenta"),
}


def bars(costs: Sequence[Cost]) -> list[Text]:
    """Return a legend and a line for each option; the longest bar is ``WIDTH`` marks."""
    most = max((cost.total for cost in costs if cost.total is not None), default=Decimal(0))
    room = max(len(cost.title) for cost in costs)
    legend = Text()
    for part in PARTS:
        mark, colour = MARKS[part]
        legend.append(f"{mark * 2} ", style=colour).append(f"{part}  ")
    return [legend, *(_line(cost, most, room) for cost in costs)]


def marks(cost: Cost, most: Decimal) -> dict[str, int]:
    """Return how many marks each part has: its place on the axis decides, so that they add up to the total's."""
    found, before = {}, Decimal(0)
    for part in PARTS:
        after = before + cost.part(part)
        found[part] = _place(after, most) - _place(before, most)
        before = after
    return found


def _line(cost: Cost, most: Decimal, room: int) -> Text:
    line = Text(f"{cost.title:<{room}}  ")
    if cost.total is None:
        return line.append("no price", style="yellow")
    for part, count in marks(cost, most).items():
        mark, colour = MARKS[part]
        line.append(mark * count, style=colour)
    return line.append(f"  {money(cost.total)}")


def _place(usd: Decimal, most: Decimal) -> int:
    return round(usd / most * WIDTH) if most else 0
