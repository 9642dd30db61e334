"""How Dify's services say that they do not start: in pydantic's words those in Python, in Go's those in Go."""

import re
from collections.abc import Mapping
from typing import Any

from pydantic_core import ValidationError

from dify_standin.dialect import dialect
from infra.catalogue.variables import Variable

Refused = Mapping[str, tuple[Variable, str]]

# The classes of settings that name themselves in the message.
MODELS = {"api": "DifyConfig", "agent-backend": "ServerSettings"}
GO_ROLES = frozenset({"plugin-daemon", "sandbox"})
_GO_KINDS = {
    "integer": ("int", "ParseInt"),
    "number": ("float64", "ParseFloat"),
    "boolean": ("bool", "ParseBool"),
}
# The bound, pydantic's name of breaking it, and what pydantic calls the bound.
_BOUNDS = (
    ("minimum", "greater_than_equal", "ge"),
    ("above", "greater_than", "gt"),
    ("maximum", "less_than_equal", "le"),
    ("below", "less_than", "lt"),
)
_PARSING = {"integer": "int_parsing", "number": "float_parsing", "boolean": "bool_parsing"}
_LINK = re.compile(r"(errors\.pydantic\.dev/)[0-9.]+/")


def text(role: str, refused: Refused) -> str:
    """Return what a service prints when it refuses these variables."""
    if role in MODELS:
        lines: list[Any] = [
            {"loc": (name,), "input": value, **_error(variable, value)}
            for name, (variable, value) in refused.items()
        ]
        problem = ValidationError.from_exception_data(MODELS[role], lines)
        return f"pydantic_core._pydantic_core.ValidationError: {pydantic_text(problem)}"
    say = _go if role in GO_ROLES else _plain
    return "\n".join(say(variable, value) for variable, value in refused.values())


def pydantic_text(problem: Exception) -> str:
    """Return pydantic's message as the release words it: its links name the version of pydantic."""
    return _LINK.sub(rf"\g<1>{dialect().pydantic}/", str(problem))


def pydantic_json(problem: ValidationError) -> str:
    """Return pydantic's list of errors as JSON, as the release words it."""
    return _LINK.sub(rf"\g<1>{dialect().pydantic}/", problem.json())


def _error(variable: Variable, value: str) -> dict[str, Any]:
    """Return pydantic's type of the error, with what its sentence names."""
    if variable.values:
        *most, last = (f"'{one}'" for one in variable.values)
        expected = f"{', '.join(most)} or {last}" if most else last
        return {"type": "literal_error", "ctx": {"expected": expected}}
    if variable.type in {"integer", "number"}:
        try:
            number = float(value)
        except ValueError:
            return {"type": _PARSING[variable.type]}
        for bound, kind, named in _BOUNDS:
            limit = getattr(variable, bound)
            if limit is not None and _breaks(bound, number, limit):
                return {"type": kind, "ctx": {named: limit}}
    if variable.type == "url":
        return {"type": "url_parsing", "ctx": {"error": "relative URL without a base"}}
    return {"type": _PARSING.get(variable.type, "dict_type")}


def _breaks(bound: str, number: float, limit: float) -> bool:
    return {
        "minimum": number < limit,
        "above": number <= limit,
        "maximum": number > limit,
        "below": number >= limit,
    }[bound]


def _go(variable: Variable, value: str) -> str:
    if variable.values:
        return (
            f"Key: 'Config.{variable.name}' Error:Field validation for '{variable.name}' failed on the 'oneof' tag: "
            f"{value!r} is not one of {' '.join(variable.values)}"
        )
    kind, parser = _GO_KINDS.get(variable.type, ("time.Duration", "ParseDuration"))
    return (
        f"envconfig.Process: assigning {variable.name}: converting '{value}' to type {kind}. "
        f'details: strconv.{parser}: parsing "{value}": invalid syntax'
    )


def _plain(variable: Variable, value: str) -> str:
    return f"{variable.name}: {value!r}: {variable.problem(value)}"
