"""A strict reader of JSON files: every error names the file, the entry, the key and the fix, never a secret."""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn


class FileError(ValueError):
    """A file of the configuration is invalid."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A JSON object of a file, and its path in the file."""

    file: str
    where: str
    values: Mapping[str, Any]

    def fail(self, key: str, problem: str) -> NoReturn:
        """Raise FileError about a key."""
        raise FileError(f"{self.file}: {self.place(key)} {problem}")

    def place(self, key: str = "") -> str:
        """Return the path of this object, or of one of its keys."""
        return ".".join(part for part in (self.where, key) if part)

    def only(self, known: Collection[str]) -> None:
        """Refuse unknown keys: a misspelled key must not silently mean the default. Raises FileError."""
        unknown = [key for key in self.values if key not in known]
        if unknown:
            self.fail(
                unknown[0], f"is not a known key: remove it, or write one of {', '.join(sorted(known))}"
            )

    def text(self, key: str, pattern: re.Pattern[str], fix: str, default: str | None = None) -> str:
        """Return a text that matches a pattern completely. Raises FileError with `fix`."""
        value = self.values.get(key, default)
        if not isinstance(value, str) or not pattern.fullmatch(value):
            self.fail(key, f"must be {fix}")
        return value

    def whole(self, key: str, low: int, high: int, default: int | None = None) -> int:
        """Return a whole number between limits, both included. Raises FileError."""
        value = self.values.get(key, default)
        if type(value) is not int or not low <= value <= high:
            self.fail(key, f"must be a whole number from {low} to {high}")
        return value

    def flag(self, key: str, *, default: bool) -> bool:
        """Return a boolean. Raises FileError."""
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            self.fail(key, "must be true or false")
        return value

    def texts(
        self, key: str, allowed: Collection[str], default: tuple[str, ...] | None = None
    ) -> tuple[str, ...]:
        """Return a non-empty list of distinct texts of a set, in the file's order. Raises FileError."""
        value = self.values.get(key, default)
        names = ", ".join(sorted(allowed))
        if not isinstance(value, list | tuple) or not value:
            self.fail(key, f"must be a list with at least one of {names}")
        for each in value:
            if not isinstance(each, str) or each not in allowed:
                self.fail(key, f"may contain only {names}")
        if len(set(value)) != len(value):
            self.fail(key, "contains an item twice: remove one of them")
        return tuple(value)

    def inner(self, key: str, default: Mapping[str, Any] | None = None) -> "Entry":
        """Return the object of a key. Raises FileError."""
        value = self.values.get(key, default)
        if not isinstance(value, Mapping):
            self.fail(key, "must be an object")
        return Entry(self.file, self.place(key), value)

    def children(self, key: str, names: re.Pattern[str], fix: str) -> Iterator[tuple[str, "Entry"]]:
        """Yield name and object of each member. Raises FileError."""
        for name, value in self.inner(key).values.items():
            if not names.fullmatch(name):
                self.fail(key, f"contains an entry whose name is not {fix}")
            if not isinstance(value, Mapping):
                self.fail(f"{key}.{name}", "must be an object")
            yield name, Entry(self.file, f"{self.place(key)}.{name}", value)


def read(directory: Path, file: str) -> Entry:
    """Return the JSON object of a file. Raises FileError."""
    try:
        text = (directory / file).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise FileError(f"{file}: is missing: `dify-kit up` writes it") from None
    except (OSError, UnicodeDecodeError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "not UTF-8"
        raise FileError(f"{file}: cannot be read ({reason})") from None
    try:
        value = json.loads(text, object_pairs_hook=_unique)
    except RecursionError:
        raise FileError(f"{file}: is nested too deeply") from None
    except json.JSONDecodeError as problem:
        raise FileError(
            f"{file}: is not JSON (line {problem.lineno}, column {problem.colno}: {problem.msg})"
        ) from None
    except _RepeatedKeyError as problem:
        raise FileError(f"{file}: the key {problem} occurs twice in one object: remove one of them") from None
    if not isinstance(value, dict):
        raise FileError(f"{file}: must contain a JSON object")
    return Entry(file, "", value)


class _RepeatedKeyError(Exception):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _RepeatedKeyError(name)
            seen.add(name)
    return members
