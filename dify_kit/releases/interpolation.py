"""Variables in texts of compose and .env files, by the rules of the Compose specification.

`$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME-default}`, `${NAME:?message}`, `${NAME?message}`,
`${NAME:+other}`, `${NAME+other}`, `$$` for a dollar; what stands behind an operator may hold variables again.
"""

import re
from collections.abc import Callable

Lookup = Callable[[str], str | None]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATOR = re.compile(r":?[-?+]")


class InterpolationError(ValueError):
    """A text that Compose would refuse. The message quotes it."""


def interpolate(text: str, lookup: Lookup) -> str:
    """Return `text` with every variable replaced; one that `lookup` does not know (None) is empty.

    Raises InterpolationError for a form that Compose does not know, and where `?` demands a variable.
    """
    parts: list[str] = []
    position = 0
    while (dollar := text.find("$", position)) >= 0:
        parts.append(text[position:dollar])
        value, position = _variable(text, dollar, lookup)
        parts.append(value)
    return "".join(parts) + text[position:]


def _variable(text: str, dollar: int, lookup: Lookup) -> tuple[str, int]:
    """Return the value of the variable that begins at `dollar`, and where the text continues."""
    start = dollar + 1
    if text.startswith("$", start):
        return "$", start + 1
    if text.startswith("{", start):
        end = _closing(text, start)
        return _braced(text[start + 1 : end], text, lookup), end + 1
    name = _NAME.match(text, start)
    if not name:
        raise InterpolationError(f"{text!r}: `$` before something that is no name; `$$` is a dollar")
    return lookup(name[0]) or "", name.end()


def _closing(text: str, opening: int) -> int:
    """Return where the brace that opens at `opening` closes. Any brace counts: `${URL:-http://x/{id}}` is one."""
    depth = 0
    for position in range(opening, len(text)):
        if text[position] == "{":
            depth += 1
        elif text[position] == "}":
            depth -= 1
            if depth == 0:
                return position
    raise InterpolationError(f"{text!r}: `${{` is never closed")


def _braced(body: str, text: str, lookup: Lookup) -> str:
    name = _NAME.match(body)
    if not name:
        raise InterpolationError(f"{text!r}: `${{{body}}}` has no name")
    value, rest = lookup(name[0]), body[name.end() :]
    if not rest:
        return value or ""
    operator = _OPERATOR.match(rest)
    if not operator:
        raise InterpolationError(f"{text!r}: `${{{body}}}` is no form that Compose knows")
    # With the colon, an empty variable counts as one that is not set.
    there = bool(value) if operator[0].startswith(":") else value is not None
    other = rest[operator.end() :]
    match operator[0][-1]:
        case "-":
            return (value or "") if there else interpolate(other, lookup)
        case "+":
            return interpolate(other, lookup) if there else ""
        case _:
            if not there:
                raise InterpolationError(f"{name[0]} has to be set: {interpolate(other, lookup)}")
            return value or ""
