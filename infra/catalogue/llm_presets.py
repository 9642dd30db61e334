"""What is known about upstreams with OpenAI's schema, and what their models cost: data, overridable by settings."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from infra.catalogue import checks

MIN_KEY = 8
# Tokens of a model's longest answer where nothing is known about it.
LONGEST_ANSWER = 65_536


@dataclass(frozen=True, kw_only=True)
class Preset:
    """An upstream that is known by name.

    `base_url` is empty where each installation has its own. `variable` is the environment variable that its key
    is usually stored in, `prefixes` how its keys begin (empty: no rule), `register` where one gets a key. `models` and
    `embeddings` are what `dify-kit up --llm` serves: our names of them, and the upstream's.
    """

    base_url: str
    variable: str
    register: str = ""
    prefixes: tuple[str, ...] = ()
    min_key: int = MIN_KEY
    models: Mapping[str, str] = field(default_factory=dict)
    embeddings: Mapping[str, str] = field(default_factory=dict)


def _same(*models: str) -> Mapping[str, str]:
    """Return models that the upstream has under our names."""
    return MappingProxyType({model: model for model in models})


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "holysheep": Preset(
            base_url="https://api.holysheep.ai/v1",
            variable="HOLYSHEEP_API_KEY",
            register="https://www.holysheep.ai/register",
            min_key=20,
            models=_same("gpt-4.1", "claude-sonnet-4.5", "gemini-2.5-flash", "deepseek-v3.2"),
        ),
        "openai": Preset(
            base_url="https://api.openai.com/v1",
            variable="OPENAI_API_KEY",
            register="https://platform.openai.com/api-keys",
            prefixes=("sk-",),
            min_key=20,
            models=_same("gpt-4.1"),
            embeddings=_same("text-embedding-3-small"),
        ),
        # Its endpoint with OpenAI's schema.
        "anthropic": Preset(
            base_url="https://api.anthropic.com/v1",
            variable="ANTHROPIC_API_KEY",
            register="https://console.anthropic.com/settings/keys",
            prefixes=("sk-ant-",),
            min_key=20,
            models=MappingProxyType({"claude-sonnet-4.5": "claude-sonnet-4-5"}),
        ),
        "oneapi": Preset(base_url="", variable="ONEAPI_API_KEY"),
        "litellm": Preset(base_url="", variable="LITELLM_API_KEY"),
        "custom": Preset(base_url="", variable="LLM_API_KEY"),
    }
)
# The presets that `dify-kit up --llm` looks for in the environment, the first choice first.
OFFERED = ("holysheep", "openai", "anthropic")
# The longer one first: each is the beginning of a key of exactly one provider.
KEY_OWNERS: tuple[tuple[str, str], ...] = (
    ("sk-ant-", "anthropic"),
    ("sk-proj-", "openai"),
    ("sk-svcacct-", "openai"),
)


@dataclass(frozen=True, kw_only=True)
class Price:
    """US dollars for a million tokens, and the tokens of the longest answer, which are reserved from a budget."""

    input: float
    output: float
    longest: int = LONGEST_ANSWER


# Estimates: check them before you rely on them; `dify:llm.prices` overrides them. No vendor's own page with
# these models could be read (tried again on 2026-11-25). Each line names what its numbers were compared with, all read
# on that day; dify_kit/costs/prices.yaml has the addresses:
#   article     HolySheep's article that this kit started from (undated): one price a model, taken for output
#   tokenmath   tokenmath.io/openai-api-pricing-explained, which says "checked 2026-06-21"
#   bench       github.com/cuihuan/llm-gateway-bench data/prices.json, fetched there on 2026-07-11 from LiteLLM's
#               price map
#   copy        a third party's copy of the vendor's price page: OpenAI's of 2025-06-03, Anthropic's of 2025-11-15,
#               Google's of 2026-10-07
#   roo         Roo Code's table of DeepSeek's models, updated there on 2025-12-09
#   memory      written down from memory, compared with nothing
PRICES: Mapping[str, Price] = MappingProxyType(
    {
        "gpt-4.1": Price(input=2.0, output=8.0, longest=32_768),  # tokenmath; output: article too
        "claude-sonnet-4.5": Price(
            input=3.0, output=15.0, longest=64_000
        ),  # bench, copy; output: article too
        "gemini-2.5-flash": Price(input=0.3, output=2.5),  # bench; input: copy too
        "deepseek-v3.2": Price(input=0.28, output=0.42),  # roo; output: article too
        "text-embedding-3-small": Price(input=0.02, output=0.0),  # tokenmath
        "text-embedding-3-large": Price(input=0.13, output=0.0),  # memory
    }
)


def foreign_owner(preset: str, key: str) -> str:
    """Return the provider whose key this plainly is when it is not the preset's, else nothing."""
    owner = next((name for prefix, name in KEY_OWNERS if key.startswith(prefix)), "")
    return owner if owner and preset in {"holysheep", "openai", "anthropic"} and owner != preset else ""


def key_problem(preset: str, key: str) -> str:
    """Return what keeps `key` from being a key of this preset, without the key, or nothing."""
    known = PRESETS[preset]
    if not key.isascii() or not key.isprintable() or " " in key:
        return "contains characters that no key has"
    if len(key) < known.min_key:
        return f"has {checks.length(key)}, and a key of {preset} has {known.min_key} or more"
    if owner := foreign_owner(preset, key):
        return f"begins like a key of {owner}"
    if known.prefixes and not key.startswith(known.prefixes):
        return f"does not begin with {' or '.join(known.prefixes)}, as keys of {preset} do"
    return ""
