"""The prices: which there are, where they come from, and which one counts."""

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from dify_kit.costs import reading
from dify_kit.errors import UsageError

FILE = Path(__file__).with_name("prices.yaml")
# Who runs models and sells their tokens, in the order in which a self-hosted gateway asks them for a model.
DIRECT = ("openai", "anthropic", "google", "deepseek")
_KEYS = ("list", "provider", "model", "price", "input", "output", "source", "date", "published", "note")


@dataclass(frozen=True, kw_only=True)
class Price:
    """US dollars for a million tokens of a model at a provider. `input` equals `output` when there is one price."""

    list: str
    provider: str
    model: str
    input: Decimal
    output: Decimal
    single: bool
    source: str
    date: str
    published: bool
    note: str = ""

    @property
    def mark(self) -> str:
        """Who says so."""
        if self.published:
            return "published by the vendor"
        return "claimed by the article" if self.list == "article" else "not verified with the vendor"


@dataclass(frozen=True)
class Prices:
    """Every price, those of the operator's own file first."""

    own: tuple[Price, ...]
    kit: tuple[Price, ...]

    def find(self, providers: Sequence[str], model: str, prefer: str) -> Price | None:
        """Return the price that counts: the own file's, then the preferred list's, then any; or nothing."""
        for some in (self.own, self.kit):
            for price in sorted(some, key=lambda one: one.list != prefer):  # stable: the file's order stays
                if price.provider in providers and price.model == model:
                    return price
        return None

    @property
    def all(self) -> tuple[Price, ...]:
        """Return all of them."""
        return self.own + self.kit

    @property
    def models(self) -> list[str]:
        """Return the names of the models that have a price."""
        return sorted({price.model for price in self.all})


def load(own: Path | None = None) -> Prices:
    """Return the kit's prices with those of an own file before them. Raises UsageError."""
    return Prices(tuple(_read(own)) if own else (), tuple(_read(FILE)))


def _read(path: Path) -> Iterable[Price]:
    content = reading.load(path)
    reading.only(path.name, content, ("prices",))
    entries = content.get("prices")
    if not isinstance(entries, list) or not entries:
        raise UsageError(f"{path}: prices: {entries!r} is not a list of prices", f"see {FILE}")
    seen: set[tuple[str, str, str]] = set()
    for index, entry in enumerate(entries):
        price = _price(f"{path.name}: prices[{index}]", reading.mapping(f"prices[{index}]", entry))
        key = (price.list, price.provider, price.model)
        if key in seen:
            raise UsageError(
                f"{path.name}: prices[{index}]: {' '.join(key)} is there twice", "remove one of the two"
            )
        seen.add(key)
        yield price


def _price(key: str, entry: Mapping[str, Any]) -> Price:
    reading.only(key, entry, _KEYS)
    single = "price" in entry
    if single == ("input" in entry or "output" in entry) or (
        not single and not {"input", "output"} <= set(entry)
    ):
        raise UsageError(
            f"{key}: {', '.join(entry)}: a price is missing or given twice",
            "give either `price`, or `input` and `output`",
        )
    published = entry.get("published")
    if not isinstance(published, bool):
        raise UsageError(
            f"{key}.published: {published} is neither true nor false", "true if the vendor itself says so"
        )
    date = entry.get("date")
    if not isinstance(date, dt.date):
        raise UsageError(f"{key}.date: {date} is not a day", "the day it was read, for example 2026-11-25")
    return Price(
        list=reading.text(f"{key}.list", entry.get("list", "own")),
        provider=reading.text(f"{key}.provider", entry.get("provider")),
        model=reading.text(f"{key}.model", entry.get("model")),
        input=reading.number(
            f"{key}.{'price' if single else 'input'}", entry["price" if single else "input"]
        ),
        output=reading.number(
            f"{key}.{'price' if single else 'output'}", entry["price" if single else "output"]
        ),
        single=single,
        source=reading.text(f"{key}.source", entry.get("source")),
        date=date.isoformat(),
        published=published,
        note=str(entry.get("note") or ""),
    )
