"""Checks of single values, for every reader of settings, catalogue files and environments.

They report nothing: each reader has words of its own. Imports nothing of Pulumi, as the stand-in's image has it too.
"""

import difflib
import re
from collections.abc import Iterable
from urllib.parse import urlsplit

MAX_SHOWN = 60
# The name of an environment variable.
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
EMAIL = re.compile(r"[^@\s,;<>\"]+@[a-zA-Z0-9.-]+\.[a-zA-Z]{2,}")
# Python also reads digits of other scripts, `1_000` and ` 1 `, which a reader of the file takes for something else.
_WHOLE = re.compile(r"[+-]?[0-9]{1,20}", re.ASCII)
_DECIMAL = re.compile(r"[+-]?[0-9]{1,20}(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?", re.ASCII)
# User name and password of a URL. A password may hold an unencoded slash.
_USERINFO = re.compile(r"(?<=//)[^\s'\"]*@")
# Words in the name of a field that holds a secret, in any place and as the last one: api_key, not key_type.
_SECRET_WORDS = frozenset(
    {
        "authorization",
        "credential",
        "credentials",
        "passphrase",
        "passwd",
        "password",
        "pwd",
        "secret",
        "secrets",
    }
)
_LAST_SECRET_WORDS = frozenset({"accesskey", "apikey", "key", "keys", "privatekey", "secretkey", "token"})
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def shown(value: object) -> str:
    """Return a value for an error message: quoted, cut after 60 characters, without user name and password of a URL."""
    text = _USERINFO.sub("***@", value if isinstance(value, str) else repr(value))
    return repr(text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}...")


def names_secret(name: str) -> bool:
    """Whether a field of this name holds a secret, as api_key, clientSecret and SMTP_PASSWORD do."""
    words = [word.lower() for word in _WORD.findall(name)]
    return bool(words) and (words[-1] in _LAST_SECRET_WORDS or not _SECRET_WORDS.isdisjoint(words))


def length(text: str) -> str:
    """Return how long a text is, for a message that must not show it."""
    return "1 character" if len(text) == 1 else f"{len(text)} characters"


def whole_number(value: object, low: float, high: float) -> int | None:
    """Return a whole number from `low` to `high`, given as a number or in plain digits; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    if isinstance(value, str) and not _WHOLE.fullmatch(value):
        return None
    return number if low <= (number := int(value)) <= high else None


def decimal_number(value: object, low: float, high: float) -> float | None:
    """Return a number from `low` to `high`, given as a number or in plain digits; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and not _DECIMAL.fullmatch(value):
        return None
    return number if low <= (number := float(value)) <= high else None


def boolean(value: object) -> bool | None:
    """Return true or false, given as such or as text; None for anything else."""
    if isinstance(value, bool):
        return value
    return {"true": True, "false": False}.get(value) if isinstance(value, str) else None


def texts(value: object) -> list[str] | None:
    """Return a list of texts; None for anything else."""
    return value if isinstance(value, list) and all(isinstance(one, str) for one in value) else None


def matches(value: object, pattern: re.Pattern[str]) -> bool:
    """Whether a value is text that a pattern matches as a whole."""
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def http_url(value: str, *, plain: bool = False) -> bool:
    """Whether text is a URL with http or https and a host; `plain` ones have no white space and no quotes."""
    try:
        parts = urlsplit(value)
    except ValueError:
        return False
    if plain and re.search(r"[\s\"']", value):
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname)


def closest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the known name that is most like a wrong one, if any is."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return found[0] if found else None


def nearest(name: str, known: Iterable[str], count: int) -> list[str]:
    """Return the known names that are most like a wrong one, the best first; upper and lower case are alike."""
    listed = list(known)

    def likeness(one: str) -> float:
        return difflib.SequenceMatcher(None, name.lower(), one.lower()).ratio()

    return sorted(listed, key=likeness, reverse=True)[:count]
