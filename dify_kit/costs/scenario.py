"""What is asked: tokens of each model, and for each option its hosting and the hours it takes."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType

from dify_kit.costs import reading
from dify_kit.costs.prices import DIRECT
from dify_kit.errors import UsageError

# Option -> its title, and where its tokens are bought by default.
OPTIONS: Mapping[str, tuple[str, tuple[str, ...]]] = MappingProxyType(
    {
        "dify": ("Dify self-hosted + provider", DIRECT),
        "holysheep": ("HolySheep", ("holysheep",)),
        "openai": ("OpenAI", ("openai",)),
        "anthropic": ("Anthropic", ("anthropic",)),
        "oneapi": ("OneAPI self-hosted + provider", DIRECT),
    }
)
# What is shown when nothing is given.
EXAMPLE = Path(__file__).with_name("example.yaml")
# Options whose provider can be chosen.
GATEWAYS = ("dify", "oneapi")
ZERO = Decimal(0)
_KEYS = ("name", "prefer", "rate", "input_share", "setup_months", "tokens", "options")
_OPTION_KEYS = ("provider", "hosting", "hours", "setup_hours")


@dataclass(frozen=True)
class Tokens:
    """Tokens of a month. `output` is None when only their sum is known, which then is `input`."""

    input: Decimal
    output: Decimal | None = None

    @property
    def total(self) -> Decimal:
        """Return input and output together."""
        return self.input + (self.output or ZERO)


@dataclass(frozen=True)
class Option:
    """Hosting in dollars a month, engineering in hours a month, and hours to set it up once."""

    providers: tuple[str, ...]
    hosting: Decimal | None = None
    hours: Decimal | None = None
    setup_hours: Decimal = ZERO


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One month. `rate` is in dollars an hour; setting up is spread over `setup_months`."""

    name: str = "options"
    prefer: str = "makers"
    rate: Decimal | None = None
    input_share: Decimal | None = None
    setup_months: Decimal = Decimal(12)
    tokens: Mapping[str, Tokens] = field(default_factory=dict)
    options: Mapping[str, Option] = field(default_factory=dict)


def load(path: Path) -> Scenario:
    """Return the scenario of a YAML file. Raises UsageError."""
    if not path.exists():
        raise UsageError(
            f"--scenario {path}: no such file", "name a YAML file, such as docs/examples/article-costs.yaml"
        )
    given = reading.load(path)
    reading.only(path.name, given, _KEYS)
    options = reading.mapping("options", given.get("options", dict.fromkeys(OPTIONS)))
    if not options:
        raise UsageError("options: none given", f"one or more of {', '.join(OPTIONS)}, or leave the key out")
    return Scenario(
        name=reading.text("name", given.get("name", path.stem)),
        prefer=reading.text("prefer", given.get("prefer", "makers")),
        rate=reading.number("rate", given["rate"]) if "rate" in given else None,
        input_share=share("input_share", given["input_share"]) if "input_share" in given else None,
        setup_months=months("setup_months", given.get("setup_months", 12)),
        tokens={
            model: _tokens(f"tokens.{model}", value)
            for model, value in reading.mapping("tokens", given.get("tokens", {})).items()
        },
        options={known_option("options", name): _option(name, value) for name, value in options.items()},
    )


def all_options() -> dict[str, Option]:
    """Return every option, with nothing known but where its tokens come from."""
    return {name: Option(providers) for name, (_, providers) in OPTIONS.items()}


def known_option(key: str, name: str) -> str:
    """Return the name of an option. Raises UsageError."""
    if name not in OPTIONS:
        raise UsageError(f"{key}: {name}: no such option", f"one of {', '.join(OPTIONS)}")
    return name


def share(key: str, value: object) -> Decimal:
    """Return a share from 0 to 1. Raises UsageError."""
    fix = "the part of all tokens that is input, from 0 to 1, for example 0.75"
    found = reading.number(key, value, fix=fix)
    if found > 1:
        raise UsageError(f"{key}: {value} is more than 1", fix)
    return found


def months(key: str, value: object) -> Decimal:
    """Return a number of months, 1 or more. Raises UsageError."""
    found = reading.number(key, value, fix="1 or more, for example 12")
    if found < 1:
        raise UsageError(f"{key}: {value} is less than a month", "1 or more, for example 12")
    return found


def with_provider(key: str, name: str, option: Option, provider: str) -> Option:
    """Return an option that buys its tokens elsewhere; only gateways can. Raises UsageError."""
    if name not in GATEWAYS and provider not in option.providers:
        raise UsageError(
            f"{key}: {provider}: {name} sells its own tokens",
            f"leave it out, or set it for {', '.join(GATEWAYS)}",
        )
    return replace(option, providers=(provider,))


def _tokens(key: str, value: object) -> Tokens:
    if not isinstance(value, dict):
        return Tokens(reading.tokens(key, value))
    reading.only(key, value, ("input", "output"))
    return Tokens(*(reading.tokens(f"{key}.{part}", value.get(part, 0)) for part in ("input", "output")))


def _option(name: str, value: object) -> Option:
    key = f"options.{name}"
    given = reading.mapping(key, {} if value is None else value)
    reading.only(key, given, _OPTION_KEYS)
    hosting, hours = (
        reading.number(f"{key}.{part}", given[part]) if part in given else None
        for part in ("hosting", "hours")
    )
    setup_hours = reading.number(f"{key}.setup_hours", given.get("setup_hours", 0))
    option = Option(OPTIONS[name][1], hosting, hours, setup_hours)
    if "provider" not in given:
        return option
    provider = reading.text(f"{key}.provider", given["provider"])
    return with_provider(f"{key}.provider", name, option, provider)
