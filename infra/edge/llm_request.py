"""What the LLM proxy decides on in the body of a request: the names, and the pattern by which nginx reads them.

A request is decided on by some members of its outermost object. An upstream reads the same bytes with a parser of its
own, so each of those members has to be there once and in one spelling: parsers differ in which of two they take, in
whether they tell upper from lower case, and in what they do with an escape. njs/request.js refuses whatever may be read
in two ways; the pattern here matches most bodies as a whole, at a nanosecond a byte, and leaves the rest to it.
"""

from collections.abc import Mapping
from types import MappingProxyType

# Members that the proxy decides on, by the sort of their value.
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
# Members by which some upstream (OpenRouter, LiteLLM, Azure) takes another model than `model`, or asks elsewhere.
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
# The only one in `stream_options` that the proxy decides on.
OPTION = "include_usage"
# Of nesting, below the outermost object, that the pattern knows; njs/request.js knows any.
LEVELS = 16
# What is longer is no count of tokens or answers.
COUNT_DIGITS = 9

_SPACE = r"[\x09\x0a\x0d\x20]*+"
_UTF8 = (
    r"[\xc2-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]|[\xe1-\xec\xee\xef][\x80-\xbf]{2}|\xed[\x80-\x9f][\x80-\xbf]"
    r"|\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf3][\x80-\xbf]{3}|\xf4[\x80-\x8f][\x80-\xbf]{2}"
)
# No quote and no backslash is written as such: nginx's configuration has its own idea of them.
_STRING = (
    r"\x22(?:[\x20\x21\x23-\x5b\x5d-\x7f]++|\x5c(?:[\x22\x5c/bfnrt]|u[0-9a-fA-F]{4})|" + _UTF8 + r")*+\x22"
)
_NUMBER = r"-?+(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][+-]?+[0-9]++)?+"
_COUNT = f"(?:0|[1-9][0-9]{{0,{COUNT_DIGITS - 1}}})(?![0-9.eE])"


def pattern() -> str:
    """Return the pattern of a body that can be read in one way only; PCRE, for bytes.

    Its named groups are the values of the decided members (`llm_j_<name>`), and what follows two of them
    (`llm_j_after_model`, `llm_j_after_stream_options`), which tells where they stand.
    """
    space = _SPACE
    colon = f"{space}:{space}"
    define = f"(?(DEFINE)({_STRING})((?1)|{_NUMBER}|true|false|null)({space})({colon}){_levels(5)})"
    members = [_member(name, sort, colon) for name, sort in DECIDED.items()]
    # Whatever may be taken for one of them, and every name of other characters, is left to njs/request.js.
    members.append(rf"\x22(?!(?i:{alike()})\x22)[A-Za-z0-9]++(?:_[A-Za-z0-9]++)*+\x22{colon}(?5)")
    member = f"(?:{'|'.join(members)})"
    # Each member is followed by a comma and another one, or by the end. A group can have its name only once.
    return rf"^{define}{space}\{{{space}(?:{member}{space}(?:,{space}(?=\x22)|(?=\}})))++\}}{space}\z"


def strings() -> str:
    """Return the pattern of a body whose every string is well-formed, and which is ASCII elsewhere."""
    return rf"^(?:[\x09\x0a\x0d\x20\x21\x23-\x5b\x5d-\x7e]++|{_STRING})*+\z"


def alike() -> str:
    """Return the pattern of names that can be taken for one that the proxy decides on, upper and lower case alike."""
    return "|".join(name.replace("_", "_*") for name in (*DECIDED, *REFUSED))


def _levels(first: int) -> str:
    """Return a group for each level of nesting, the outermost one numbered `first`, of values that hold the next one.

    A pattern that calls itself would use up the stack of PCRE's compiled code at some depth, and nginx logs the whole
    subject then. Groups 1 to 4 are a string, a scalar, white space and a colon.
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
