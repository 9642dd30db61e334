"""The arithmetic: every amount with the line that it comes from, and totals that are the sum of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Context, Decimal, localcontext

from dify_kit.costs.prices import Price, Prices
from dify_kit.costs.scenario import OPTIONS, ZERO, Option, Scenario, Tokens
from dify_kit.errors import UsageError

MILLION = Decimal(1_000_000)
# Products of the largest numbers that are let in stay exact.
EXACT = Context(prec=80)
CENT = Decimal("0.01")
PARTS = ("tokens", "hosting", "engineering")


@dataclass(frozen=True)
class Line:
    """One amount in dollars a month, in whole cents, how it comes about, and the price it rests on."""

    part: str  # tokens, hosting or engineering
    says: str
    usd: Decimal
    price: Price | None = None


@dataclass(frozen=True)
class Cost:
    """What one option costs a month. `missing` are models without a price here: then there is no total."""

    option: str
    lines: tuple[Line, ...]
    missing: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Return the name for people."""
        return OPTIONS[self.option][0]

    def part(self, name: str) -> Decimal:
        """Return the sum of one part."""
        with localcontext(EXACT):
            return sum((line.usd for line in self.lines if line.part == name), ZERO)

    @property
    def total(self) -> Decimal | None:
        """Return the sum of all lines, or nothing when a model is missing."""
        with localcontext(EXACT):
            return None if self.missing else sum((line.usd for line in self.lines), ZERO)


def costs(scenario: Scenario, prices: Prices) -> list[Cost]:
    """Return the costs of every option. Raises UsageError when something needed is not given."""
    if not scenario.tokens:
        raise UsageError("tokens: none given", "--tokens gpt-4.1=10M, or `tokens` in the scenario")
    for model in scenario.tokens:
        if model not in prices.models:
            raise UsageError(
                f"tokens.{model}: no price is known for {model}",
                f"one of {', '.join(prices.models)}; or add it with --prices FILE",
            )
    with localcontext(EXACT):
        return [_cost(name, option, scenario, prices) for name, option in scenario.options.items()]


def cents(usd: Decimal) -> Decimal:
    """Return dollars rounded to cents, half a cent up. Each line is rounded, so that printed lines add up."""
    with localcontext(EXACT):
        return usd.quantize(CENT, rounding=ROUND_HALF_UP)


def money(usd: Decimal) -> str:
    """Return dollars with cents."""
    return f"${cents(usd):,.2f}"


def exact(usd: Decimal) -> str:
    """Return a price in dollars exactly, with two decimals or as many as it has: $0.075 a million tokens."""
    with localcontext(EXACT):
        places = -int(usd.normalize().as_tuple().exponent)
    return f"${usd:,.{max(2, places)}f}"


def _cost(name: str, option: Option, scenario: Scenario, prices: Prices) -> Cost:
    lines: list[Line] = []
    missing = []
    for model, tokens in scenario.tokens.items():
        price = prices.find(option.providers, model, scenario.prefer)
        if price is None:
            missing.append(model)
        else:
            lines += _token_lines(tokens, price, scenario.input_share)
    return Cost(name, (*lines, _hosting(option), *_engineering(name, option, scenario)), tuple(missing))


def _token_lines(tokens: Tokens, price: Price, share: Decimal | None) -> Iterator[Line]:
    if price.single:
        yield _token_line("tokens", tokens.total, price.input, price)
        return
    if tokens.output is None:
        if share is None:
            raise UsageError(
                f"tokens.{price.model}: {tokens.input:,f} does not tell input and output apart, and the "
                f"price of {price.provider} does",
                f"--tokens {price.model}=INPUT:OUTPUT, or --input-share 0.75",
            )
        tokens = Tokens(tokens.input * share, tokens.input * (1 - share))
    yield _token_line("input tokens", tokens.input, price.input, price)
    yield _token_line("output tokens", tokens.output or ZERO, price.output, price)


def _token_line(what: str, count: Decimal, usd: Decimal, price: Price) -> Line:
    says = f"{plain(count)} {price.model} {what} / 1,000,000 * {exact(usd)} ({price.provider})"
    return Line("tokens", says, cents(count / MILLION * usd), price)


def _hosting(option: Option) -> Line:
    if option.hosting is None:
        return Line("hosting", "hosting: not given, counted as nothing", ZERO)
    return Line("hosting", "hosting", cents(option.hosting))


def _engineering(name: str, option: Option, scenario: Scenario) -> Iterator[Line]:
    if option.hours is None and not option.setup_hours:
        yield Line("engineering", "engineering: not given, counted as nothing", ZERO)
        return
    if scenario.rate is None:
        if not option.hours and not option.setup_hours:
            yield Line("engineering", "0 hours a month", ZERO)
            return
        hours = plain((option.hours or ZERO) + option.setup_hours)
        raise UsageError(f"rate: not given, but {name} takes {hours} hours", "--rate 100, dollars an hour")
    if option.hours is not None:
        says = f"{plain(option.hours)} hours a month * {exact(scenario.rate)}"
        yield Line("engineering", says, cents(option.hours * scenario.rate))
    if option.setup_hours:
        says = (
            f"{plain(option.setup_hours)} hours once * {exact(scenario.rate)}"
            f" / {plain(scenario.setup_months)} months"
        )
        yield Line("engineering", says, cents(option.setup_hours * scenario.rate / scenario.setup_months))


def plain(value: Decimal) -> str:
    """Return a number without trailing zeros and with thousands apart."""
    with localcontext(EXACT):
        return f"{value.normalize():,f}"


def percent(part: Decimal, whole: Decimal) -> Decimal:
    """Return the percentage that `part` is of `whole`, with three decimals; 0 of nothing."""
    with localcontext(EXACT):
        return round(part / whole * 100, 3) if whole else ZERO
