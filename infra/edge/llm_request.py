"""The members of a request body that the LLM proxy decides on, and the pattern by which nginx reads them.

The proxy decides by some members of the outermost object. An upstream parses the same bytes with another parser, so
each of those members has to occur once and in one spelling: parsers differ in which of two duplicates they use, in
whether they ignore case, and in how they treat escapes. njs/request.js refuses ambiguous bodies. The pattern here
matches most bodies as a whole, in a nanosecond per byte, and leaves the others to njs/request.js.
"""

from collections.abc import Mapping
from types import MappingProxyType

# The members that the proxy decides by, with the type of their value.
DECIDED: Mapping[str, str] = MappingProxyType(
    {
        "model": "model",
        "stream": "boolean",
        "stream_options": "options",
        "max_tokens": "count",
        "max_completion_tokens": "count",
        "n": "count",
        "best_of": "count",
    }
)
# Members by which some upstream (OpenRouter, LiteLLM, Azure) uses another model than `model`, or another server.
REFUSED = (
    "models",
    "fallbacks",
    "fallback_models",
    "context_window_fallbacks",
    "content_policy_fallbacks",
    "model_list",
    "router_settings_override",
    "engine",
    "deployment_id",
    "api_base",
    "api_key",
    "base_url",
    "custom_llm_provider",
)
# The only member of `stream_options` that the proxy decides by.
OPTION = "include_usage"
# Levels of nesting below the outermost object that the pattern supports; njs/request.js supports any number.
LEVELS = 16
# A longer number is not a count of tokens or responses.
COUNT_DIGITS = 9

_SPACE = r"[\x09\x0a\x0d\x20]*+"
_UTF8 = (
    r"[\xc2-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]|[\xe1-\xec\xee\xef][\x80-\xbf]{2}|\xed[\x80-\x9f][\x80-\xbf]"
    r"|\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf3][\x80-\xbf]{3}|\xf4[\x80-\x8f][\x80-\xbf]{2}"
)
# Quotes and backslashes are written as escapes, because nginx's configuration interprets them.
_STRING = (
    r"\x22(?:[\x20\x21\x23-\x5b\x5d-\x7f]++|\x5c(?:[\x22\x5c/bfnrt]|u[0-9a-fA-F]{4})|" + _UTF8 + r")*+\x22"
)
_NUMBER = r"-?+(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][+-]?+[0-9]++)?+"
_COUNT = f"(?:0|[1-9][0-9]{{0,{COUNT_DIGITS - 1}}})(?![0-9.eE])"


def pattern() -> str:
    """Return the pattern of an unambiguous body; PCRE, for bytes.

    Its named groups are the values of the members in `DECIDED` (`llm_j_<name>`), and the text after two of them
    (`llm_j_after_model`, `llm_j_after_stream_options`), whose length gives their position.
    """
    space = _SPACE
    colon = f"{space}:{space}"
    define = f"(?(DEFINE)({_STRING})((?1)|{_NUMBER}|true|false|null)({space})({colon}){_levels(5)})"
    members = [_member(name, sort, colon) for name, sort in DECIDED.items()]
    # A name that resembles one of them, or has other characters, is left to njs/request.js.
    members.append(rf"\x22(?!(?i:{alike()})\x22)[A-Za-z0-9]++(?:_[A-Za-z0-9]++)*+\x22{colon}(?5)")
    member = f"(?:{'|'.join(members)})"
    # A comma and another member, or the end, follows each member. A name can belong to one group only.
    return rf"^{define}{space}\{{{space}(?:{member}{space}(?:,{space}(?=\x22)|(?=\}})))++\}}{space}\z"


def strings() -> str:
    """Return the pattern of a body whose strings are all valid UTF-8, and which is ASCII elsewhere."""
    return rf"^(?:[\x09\x0a\x0d\x20\x21\x23-\x5b\x5d-\x7e]++|{_STRING})*+\z"


def alike() -> str:
    """Return the pattern of names that resemble one that the proxy decides by; to be matched without case."""
    return "|".join(name.replace("_", "_*") for name in (*DECIDED, *REFUSED))


def _levels(first: int) -> str:
    """Return one group for each level of nesting, whose values contain the next level; the outermost is number `first`.

    A recursive pattern would exhaust the stack of PCRE's compiled code at some depth, and nginx would log the whole
    body. Groups 1 to 4 are a string, a scalar, white space and a colon.
    """
    groups = []
    for number in range(first, first + LEVELS):
        inner = f"(?{number + 1 if number + 1 < first + LEVELS else 2})"
        pairs = rf"\{{(?3)(?:(?1)(?4){inner}(?3)(?:,(?3)(?=\x22)|(?=\}})))*+\}}"
        items = rf"\[(?3)(?:{inner}(?3)(?:,(?3)(?!\])|(?=\])))*+\]"
        groups.append(f"((?2)|{pairs}|{items})")
    return "".join(groups)


def _member(name: str, sort: str, colon: str) -> str:
    group = f"llm_j_{name}"
    value = {
        "model": rf"\x22(?<{group}>[A-Za-z0-9][A-Za-z0-9._:/@-]{{0,127}})\x22(?=(?<llm_j_after_model>(?s:.*)))",
        "boolean": f"(?<{group}>true|false|null)",
        "count": f"(?<{group}>{_COUNT}|null)",
        "options": (
            rf"(?<{group}>null|\{{{_SPACE}\x22{OPTION}\x22{colon}(?:true|false){_SPACE}\}})"
            r"(?=(?<llm_j_after_stream_options>(?s:.*)))"
        ),
    }[sort]
    return rf"\x22{name}\x22(?({group})(?!)){colon}{value}"
