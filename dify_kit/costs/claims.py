"""Sums that somebody states, computed again: which of them follow from the inputs, and which do not."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import Any

from dify_kit.costs import reading
from dify_kit.costs.prices import Price, Prices
from dify_kit.costs.scenario import ZERO, Scenario, known_option
from dify_kit.costs.sums import EXACT, MILLION, Cost, money, plain
from dify_kit.errors import UsageError

HUNDRED = Decimal(100)
_PARTS = ("hosting", "tokens", "engineering", "total")
_YEAR = Decimal(12)


@dataclass(frozen=True)
class Finding:
    """A claim, what the computation says to it, and whether it holds; None where the inputs do not tell."""

    claim: str
    computed: str
    holds: bool | None


@dataclass(frozen=True)
class _Audit:
    scenario: Scenario
    prices: Prices
    costs: Mapping[str, Cost]

    def cost(self, key: str, name: object) -> Cost:
        """Return the cost of an option that has a total."""
        option = known_option(key, reading.text(key, name))
        if option not in self.costs or self.costs[option].missing:
            raise UsageError(
                f"{key}: {option} has no total here", "add it to `options`, with models it offers"
            )
        return self.costs[option]

    @property
    def million_tokens(self) -> Decimal:
        return sum((tokens.total for tokens in self.scenario.tokens.values()), ZERO) / MILLION

    @property
    def dearest(self) -> Price:
        """The highest price in the list that the scenario prefers, whatever the model."""
        some = [price for price in self.prices.all if price.list == self.scenario.prefer]
        return max(some or self.prices.all, key=_highest)


def audit(scenario: Scenario, prices: Prices, costs: Sequence[Cost]) -> list[Finding]:
    """Return a finding for every claim of the scenario. Raises UsageError for a claim that is not understood."""
    reading.only("claims", scenario.claims, tuple(_CHECKS))
    state = _Audit(scenario, prices, {cost.option: cost for cost in costs})
    with localcontext(EXACT):
        found = [
            finding
            for name, check in _CHECKS.items()
            if name in scenario.claims
            for finding in check(state, reading.mapping(f"claims.{name}", scenario.claims[name]))
        ]
        return [*found, *_assumptions(state)] if scenario.claims else []


def percent(part: Decimal, whole: Decimal) -> Decimal:
    """Return how many per cent, with three decimals; of nothing it is 0."""
    with localcontext(EXACT):
        return round(part / whole * HUNDRED, 3) if whole else ZERO


def _table(audit: _Audit, claim: Mapping[str, Any]) -> Iterator[Finding]:
    for name, parts in claim.items():
        key = f"claims.table.{name}"
        cost = audit.cost(key, name)
        reading.only(key, reading.mapping(key, parts), _PARTS)
        for part, value in parts.items():
            stated = reading.number(f"{key}.{part}", value)
            usd = cost.total if part == "total" else cost.part(part)
            total = " + ".join(money(cost.part(one)) for one in _PARTS[:3])
            says = f"{total} = {money(usd or ZERO)}" if part == "total" else money(usd or ZERO)
            yield Finding(f"{cost.title}, {part}: {money(stated)}", says, usd == stated)


def _saving(audit: _Audit, claim: Mapping[str, Any]) -> Iterator[Finding]:
    _need("saving", claim, ("from", "to", "percent"))
    before, after = (audit.cost(f"claims.saving.{end}", claim[end]) for end in ("from", "to"))
    stated = reading.number("claims.saving.percent", claim["percent"])
    old, new = before.total or ZERO, after.total or ZERO
    found = percent(old - new, old)
    yield Finding(
        f"the table's saving: {plain(stated)} %",
        f"({money(old)} - {money(new)}) / {money(old)} = {found} %",
        _rounds(found, stated),
    )
    parts = {part: before.part(part) - after.part(part) for part in _PARTS[:3]}
    yield Finding(
        "cheaper tokens are a part of that saving",
        ", ".join(f"{part} save {money(usd)}" for part, usd in parts.items())
        + f"; tokens are {percent(parts['tokens'], old - new)} % of the saving",
        parts["tokens"] > 0,
    )


def _spend(audit: _Audit, claim: Mapping[str, Any]) -> Iterator[Finding]:
    _need("spend", claim, ("from", "to", "usd_from", "usd_to", "percent"))
    stated = reading.number("claims.spend.percent", claim["percent"])
    spent = {end: reading.number(f"claims.spend.usd_{end}", claim[f"usd_{end}"]) for end in ("from", "to")}
    found = percent(spent["from"] - spent["to"], spent["from"])
    yield Finding(
        f"the prose's reduction: {plain(stated)} %",
        f"({money(spent['from'])} - {money(spent['to'])}) / {money(spent['from'])} = {found} %",
        _rounds(found, stated),
    )
    for end, usd in spent.items():
        cost = audit.cost(f"claims.spend.{end}", claim[end])
        total = cost.total or ZERO
        without = total - cost.part("engineering")
        yield Finding(
            f"the prose's total of {cost.title}: {money(usd)}",
            f"the inputs give {money(total)}, and {money(without)} without engineering",
            usd in {total, without},
        )
        left = usd - cost.part("hosting")
        if not audit.million_tokens:
            continue
        each = left / audit.million_tokens
        yield Finding(
            f"{money(usd)} less {money(cost.part('hosting'))} of hosting was spent on tokens",
            f"{money(left)} / {plain(audit.million_tokens)} M tokens = {_cents(each)} per M; these tokens cost "
            f"{money(cost.part('tokens'))}, and the dearest price listed is {_named(audit.dearest)}",
            each <= _highest(audit.dearest),
        )


def _exchange(audit: _Audit, claim: Mapping[str, Any]) -> Iterator[Finding]:
    del audit
    _need("exchange", claim, ("market", "own", "percent"))
    market, own, stated = (
        reading.number(f"claims.exchange.{key}", claim[key]) for key in ("market", "own", "percent")
    )
    found = percent(market - own, market)
    yield Finding(
        f"the exchange rate saves {plain(stated)} % or more",
        f"({plain(market)} - {plain(own)}) / {plain(market)} = {found} %",
        found >= stated,
    )


def _yearly(audit: _Audit, claim: Mapping[str, Any]) -> Iterator[Finding]:
    _need("yearly", claim, ("tokens", "usd"))
    tokens = reading.tokens("claims.yearly.tokens", claim["tokens"])
    usd = reading.number("claims.yearly.usd", claim["usd"])
    if not tokens:
        raise UsageError("claims.yearly.tokens: 0: saves nothing", "the tokens of a month, 1 or more")
    each = usd / _YEAR / (tokens / MILLION)
    yield Finding(
        f"{plain(tokens)} tokens a month save {money(usd)} a year",
        f"{money(usd)} / 12 / {plain(tokens / MILLION)} M = {_cents(each)} saved per M; the dearest price listed "
        f"is {_named(audit.dearest)}, and nobody saves more than the whole price",
        each <= _highest(audit.dearest),
    )


def _assumptions(audit: _Audit) -> Iterator[Finding]:
    """Yield what the sums take for granted: that setting up recurs, and that one price fits all tokens."""
    months = audit.scenario.setup_months
    for cost in audit.costs.values():
        option = audit.scenario.options[cost.option]
        if option.hours and not option.setup_hours and cost.total is not None:
            monthly = cost.part("engineering")
            once = cost.total - monthly + round(monthly / months, 2)
            yield Finding(
                f"{cost.title}: all {plain(option.hours)} hours, setting up included, come again each month",
                f"were all of them for setting up, and spread over {plain(months)} months, the total would be "
                f"{money(once)} and not {money(cost.total)}",
                None,
            )
    for model, tokens in audit.scenario.tokens.items():
        singles = {line.price for cost in audit.costs.values() for line in cost.lines if line.price}
        if not any(price.single and price.model == model for price in singles):
            continue
        for price in audit.prices.all:
            if price.model == model and not price.single:
                low, high = sorted(usd * tokens.total / MILLION for usd in (price.input, price.output))
                yield Finding(
                    f"{model} has one price for input and output",
                    f"{price.provider} ({price.mark}): {money(price.input)} and {money(price.output)}; "
                    f"{plain(tokens.total)} tokens cost {money(low)} to {money(high)} by their mix",
                    None,
                )


_CHECKS: Mapping[str, Callable[[_Audit, Mapping[str, Any]], Iterator[Finding]]] = {
    "table": _table,
    "saving": _saving,
    "spend": _spend,
    "exchange": _exchange,
    "yearly": _yearly,
}


def _need(name: str, claim: Mapping[str, Any], keys: Sequence[str]) -> None:
    reading.only(f"claims.{name}", claim, keys)
    if missing := [key for key in keys if key not in claim]:
        raise UsageError(f"claims.{name}.{missing[0]}: missing", f"a claim `{name}` has {', '.join(keys)}")


def _rounds(found: Decimal, stated: Decimal) -> bool:
    """Tell whether a stated percentage is the found one, cut or rounded."""
    return abs(found - stated) < 1


def _highest(price: Price) -> Decimal:
    return max(price.input, price.output)


def _named(price: Price) -> str:
    return f"{money(_highest(price))} ({price.model})"


def _cents(usd: Decimal) -> str:
    return money(round(usd, 2))
