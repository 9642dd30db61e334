"""Read YAML into exact numbers. Errors name the key, the value and the fix."""

from collections.abc import Collection, Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import yaml

from dify_kit.errors import UsageError

# Larger numbers are mistakes, and printing 1e999999 would take for ever.
LARGEST = Decimal(10) ** 15
PLACES = 9


class _Loader(yaml.SafeLoader):
    """Decimals stay exact, and a key that is there twice is an error instead of a silent loss."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:  # noqa: ANN401
        keys = [key.value for key, _ in node.value]
        if twice := sorted({str(key) for key in keys if keys.count(key) > 1}):
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {twice[0]} is there twice", node.start_mark
            )
        return dict(super().construct_mapping(node, deep))


_Loader.add_constructor("tag:yaml.org,2002:float", lambda _, node: str(node.value))


def load(path: Path) -> Mapping[str, Any]:
    """Return the mapping of a YAML file. Raises UsageError."""
    try:
        found = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506  # a SafeLoader
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", "name a YAML file that can be read") from error
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not YAML: {error}", "correct it there") from error
    return mapping(str(path), found)


def mapping(key: str, value: object) -> Mapping[str, Any]:
    """Return a mapping with names as keys. Raises UsageError."""
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise UsageError(f"{key}: {_short(value)} is not a mapping of names", "write `name: value` lines")
    return value


def only(key: str, given: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuse keys that mean nothing here. Raises UsageError."""
    for name in given:
        if name not in known:
            raise UsageError(
                f"{key}.{name}: {_short(given[name])}: no such key", f"one of {', '.join(known)}"
            )


def text(key: str, value: object) -> str:
    """Return a text that is not empty. Raises UsageError."""
    if value is None or isinstance(value, (dict, list, bool)) or not str(value).strip():
        raise UsageError(f"{key}: {_short(value)} is not a text", "write a name or a sentence")
    return str(value).strip()


def number(key: str, value: object, *, fix: str = "a number of at least 0, for example 12.50") -> Decimal:
    """Return an exact number from 0 to LARGEST with at most PLACES decimals. Raises UsageError."""
    try:
        found = Decimal(str(value).replace("_", "")) if not isinstance(value, bool) else Decimal("NaN")
    except InvalidOperation:
        found = Decimal("NaN")
    if not found.is_finite() or not 0 <= found <= LARGEST:
        raise UsageError(f"{key}: {_short(value)} is not a number from 0 to {LARGEST:,f}", fix)
    if found != round(found, PLACES):
        raise UsageError(f"{key}: {_short(value)} has more than {PLACES} decimals", fix)
    return abs(found)


def tokens(key: str, value: object) -> Decimal:
    """Return a whole number of tokens; `10M`, `500k` and `1B` are understood. Raises UsageError."""
    fix = "a whole number of tokens, for example 10000000, 10M or 500k"
    scale = Decimal(1)
    if isinstance(value, str) and value[-1:].lower() in {"k", "m", "b"}:
        scale = Decimal({"k": 1_000, "m": 1_000_000, "b": 1_000_000_000}[value[-1].lower()])
        found = number(key, value[:-1], fix=fix) * scale
    else:
        found = number(key, value, fix=fix)
    if found != found.to_integral_value() or found > LARGEST:
        raise UsageError(f"{key}: {_short(value)} is not a whole number of tokens", fix)
    return found


def _short(value: object) -> str:
    return (
        repr(value)[:60]
        if isinstance(value, (dict, list)) or value is None or not str(value)
        else str(value)[:60]
    )
