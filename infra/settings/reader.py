"""Reading settings with their types, and collecting everything that is wrong with them.

A `Section` reads one mapping: the stack's top-level settings, or one object among them. It never raises; what
it cannot read goes to `Problems`, and a harmless value takes its place so that reading continues.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from infra.catalogue import checks
from infra.catalogue.checks import shown


def snake(key: str) -> str:
    """Return a key of `Pulumi.yaml` as a Python name."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", key).lower()


@dataclass
class Problems:
    """Everything that is wrong, in the order it was found; `warnings` do not stop a deployment."""

    lines: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add(self, key: str, value: object, why: str, fix: str) -> None:
        """Add a problem of a setting that is not a secret."""
        self.lines.append(f"dify:{key}: {shown(value)}: {why}; {fix}")

    def add_secret(self, key: str, why: str, fix: str) -> None:
        """Add a problem of a secret, without its value."""
        self.lines.append(f"dify:{key}: {why}; {fix}")


@dataclass(frozen=True)
class Section:
    """Typed access to one mapping of settings, with `defaults` for what is absent."""

    problems: Problems
    values: Mapping[str, Any]
    defaults: Mapping[str, Any]
    prefix: str = ""

    def key(self, name: str) -> str:
        """Return the full key of a setting of this section."""
        return f"{self.prefix}{name}"

    def raw(self, name: str) -> Any:  # noqa: ANN401  # a setting may hold any JSON value
        """Return the value as given, or its default."""
        value = self.values.get(name)
        return self.defaults.get(name) if value is None else value

    def refuse_unknown(self) -> None:
        """Report the keys that no setting has."""
        for name in sorted(set(self.values) - set(self.defaults)):
            close = checks.closest(name, self.defaults)
            fix = (
                f"did you mean {self.key(close)}?" if close else f"known: {', '.join(sorted(self.defaults))}"
            )
            self.problems.add(self.key(name), self.values[name], "no such setting", fix)

    def text(self, name: str) -> str:
        """Read text."""
        value = self.raw(name)
        if isinstance(value, bool | int | float):
            value = str(value)
        if value is None:
            return ""
        if not isinstance(value, str):
            self.problems.add(self.key(name), value, "not text", "give one value")
            return ""
        if any(ord(character) < ord(" ") for character in value):
            self.problems.add(self.key(name), value, "contains a control character", "give one line of text")
            return ""
        return value

    def choice(self, name: str, options: Sequence[str]) -> str:
        """Read one of several words."""
        value = self.text(name)
        if value not in options:
            self.problems.add(
                self.key(name),
                value,
                "not a possible value",
                f"use one of {', '.join(option or 'nothing' for option in options)}",
            )
            return options[0]
        return value

    def integer(self, name: str, low: int, high: int) -> int:
        """Read a whole number from `low` to `high`."""
        value = self.raw(name)
        number = checks.whole_number(value, low, high)
        if number is None:
            self.problems.add(
                self.key(name), value, "not a whole number in range", f"use a number from {low} to {high}"
            )
        return low if number is None else number

    def number(self, name: str, low: float, high: float) -> float:
        """Read a number from `low` to `high`."""
        value = self.raw(name)
        number = checks.decimal_number(value, low, high)
        if number is None:
            self.problems.add(
                self.key(name), value, "not a number in range", f"use a number from {low} to {high}"
            )
        return low if number is None else number

    def boolean(self, name: str) -> bool:
        """Read true or false."""
        value = self.raw(name)
        found = checks.boolean(value)
        if found is None:
            self.problems.add(self.key(name), value, "neither true nor false", "use true or false")
        return bool(found)

    def texts(self, name: str) -> tuple[str, ...]:
        """Read a list of texts without duplicates."""
        value = self.raw(name)
        if (found := checks.texts(value)) is None:
            self.problems.add(
                self.key(name),
                value,
                "not a list of texts",
                f"use `pulumi config set --path 'dify:{self.key(name)}[0]' <value>`",
            )
            return ()
        for item in sorted({item for item in found if found.count(item) > 1}):
            self.problems.add(self.key(name), item, "listed twice", "list it once")
        return tuple(dict.fromkeys(found))

    def mapping(self, name: str) -> dict[str, Any]:
        """Read an object."""
        value = self.raw(name)
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.problems.add(
                self.key(name),
                value,
                "not an object",
                f"use `pulumi config set --path 'dify:{self.key(name)}.<part>' <value>`",
            )
            return {}
        return {str(key): item for key, item in value.items()}

    def section(self, name: str, defaults: Mapping[str, Any]) -> "Section":
        """Read an object whose parts are known; unknown parts are reported."""
        section = Section(self.problems, self.mapping(name), defaults, prefix=f"{self.key(name)}.")
        section.refuse_unknown()
        return section

    def part(self, name: str) -> "Section":
        """Read an object whose parts are those of its default."""
        return self.section(name, self.defaults[name])
