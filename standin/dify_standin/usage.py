"""The tokens of a run and what they cost, in the form of Dify's answers."""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

Json = dict[str, Any]

_SEVEN_PLACES = Decimal("0.0000001")


def _number(value: object) -> Decimal:
    return Decimal(str(value or 0))


def _plain(value: Decimal) -> str:
    """Return a price without trailing zeros and without an exponent."""
    return f"{value.normalize():f}" if value else "0"


@dataclass(kw_only=True)
class Usage:
    """The usage of one call, or of all calls of a run."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    pricing: Json = field(default_factory=dict)
    latency: float = 0.0
    first_token: float = 0.0

    @classmethod
    def of(cls, counted: Json, pricing: Json | None, latency: float, first_token: float) -> "Usage":
        """Read what an endpoint counted."""
        return cls(
            prompt_tokens=int(counted.get("prompt_tokens") or 0),
            completion_tokens=int(counted.get("completion_tokens") or 0),
            pricing=pricing or {},
            latency=latency,
            first_token=first_token,
        )

    def plus(self, other: "Usage") -> "Usage":
        """Return the usage of both; prices are those of the later call."""
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            pricing=other.pricing,
            latency=self.latency + other.latency,
            first_token=self.first_token or other.first_token,
        )

    @property
    def total_tokens(self) -> int:
        """Return all tokens."""
        return self.prompt_tokens + self.completion_tokens

    def json(self) -> Json:
        """Return the usage as events and answers show it."""
        prompt, completion = (
            self._price("input", self.prompt_tokens),
            self._price("output", self.completion_tokens),
        )
        unit = _plain(_number(self.pricing.get("unit")))
        return {
            "prompt_tokens": self.prompt_tokens,
            "prompt_unit_price": _plain(_number(self.pricing.get("input"))),
            "prompt_price_unit": unit,
            "prompt_price": _plain(prompt),
            "completion_tokens": self.completion_tokens,
            "completion_unit_price": _plain(_number(self.pricing.get("output"))),
            "completion_price_unit": unit,
            "completion_price": _plain(completion),
            "total_tokens": self.total_tokens,
            "total_price": _plain(prompt + completion),
            "currency": self.pricing.get("currency") or "USD",
            "latency": round(self.latency, 3),
            "time_to_first_token": round(self.first_token, 3),
            "time_to_generate": round(self.latency - self.first_token, 3),
        }

    def metadata(self) -> Json:
        """Return what a node's event says of it."""
        whole = self.json()
        return {name: whole[name] for name in ("total_tokens", "total_price", "currency")}

    def _price(self, kind: str, tokens: int) -> Decimal:
        price = tokens * _number(self.pricing.get(kind)) * _number(self.pricing.get("unit"))
        return price.quantize(_SEVEN_PLACES)
