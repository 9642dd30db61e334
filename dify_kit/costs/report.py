"""The costs as a table for people, and as JSON for machines."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from dify_kit.costs.bars import bars
from dify_kit.costs.prices import Price
from dify_kit.costs.scenario import Scenario
from dify_kit.costs.sums import PARTS, Cost, exact, money, percent


def show(scenario: Scenario, costs: Sequence[Cost]) -> None:
    """Print the table, its chart, the arithmetic, and the prices with their sources."""
    console = Console(soft_wrap=True, highlight=False)
    wide = Console(highlight=False)
    first = costs[0]
    right = [
        Column(name, justify="right", overflow="fold")
        for name in (*PARTS, "total", f"less than {first.option}")
    ]
    table = Table(Column("option", overflow="fold"), *right, title=f"{scenario.name}: US dollars a month")
    for cost in costs:
        table.add_row(
            cost.title, *(money(cost.part(part)) for part in PARTS), _total(cost), saved(first, cost)
        )
    wide.print(table)
    for line_of_chart in bars(costs):
        wide.print(line_of_chart)
    for cost in costs:
        console.print(Text(f"\n{cost.title}", style="bold"))
        for line in cost.lines:
            console.print(Text(f"  {line.says} = {money(line.usd)}"))
        for model in cost.missing:
            console.print(Text(f"  {model}: no price here, so there is no total", style="yellow"))
        if cost.total is not None:
            console.print(
                Text(f"  {' + '.join(money(line.usd) for line in cost.lines)} = {money(cost.total)}")
            )
    console.print(Text("\nPrices, per million tokens", style="bold"))
    for price in used(costs):
        console.print(Text(f"  {price.provider} {price.model}: {_amount(price)}, {price.mark}"))
        note = f" ({price.note})" if price.note else ""
        console.print(Text(f"    {price.source}, read on {price.date}{note}"))


def as_json(scenario: Scenario, costs: Sequence[Cost]) -> dict[str, Any]:
    """Return the same as plain data. Amounts are decimals in strings: costs in cents, prices exact."""
    return {
        "scenario": scenario.name,
        "currency": "USD",
        "options": [
            {
                "option": cost.option,
                "title": cost.title,
                **{part: _bare(money(cost.part(part))) for part in PARTS},
                "total": None if cost.total is None else _bare(money(cost.total)),
                "missing": list(cost.missing),
                "lines": [
                    {"part": line.part, "says": line.says, "usd": _bare(money(line.usd))}
                    for line in cost.lines
                ],
            }
            for cost in costs
        ],
        "prices": [
            {
                "provider": price.provider,
                "model": price.model,
                "input": _bare(exact(price.input)),
                "output": _bare(exact(price.output)),
                "list": price.list,
                "source": price.source,
                "date": price.date,
                "published": price.published,
                "note": price.note,
            }
            for price in used(costs)
        ],
    }


def used(costs: Sequence[Cost]) -> list[Price]:
    """Return the prices that the costs rest on, each once."""
    return list(dict.fromkeys(line.price for cost in costs for line in cost.lines if line.price))


def saved(first: Cost, cost: Cost) -> str:
    """Return what an option saves against the first one, in per cent."""
    if first.total is None or cost.total is None or cost is first:
        return ""
    return f"{percent(first.total - cost.total, first.total)} %"


def _total(cost: Cost) -> str:
    return "no price" if cost.total is None else money(cost.total)


def _amount(price: Price) -> str:
    if price.single:
        return exact(price.input)
    return f"{exact(price.input)} input, {exact(price.output)} output"


def _bare(amount: str) -> str:
    return amount.replace("$", "").replace(",", "")
