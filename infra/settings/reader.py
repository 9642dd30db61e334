"""Reading settings with their types, and collecting everything that is wrong with them.

A `Section` reads one mapping: the stack's top-level settings, or one object among them. It never raises; what
it cannot read goes to `Problems`, and a harmless value takes its place so that reading continues.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from infra import hints
from infra.catalogue import checks
from infra.catalogue.checks import shown

# Of more possible values than these, the nearest ones are named.
LISTED = 6
# As much of an unknown name has to be like a secret's for its value to be hidden.
_ALIKE = 0.8
_ROOT = re.compile(r"[.\[]")


def snake(key: str) -> str:
    """Return a key of `Pulumi.yaml` as a Python name."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", key).lower()


@dataclass
class Problems:
    """Everything that is wrong, in the order it was found; `warnings` do not stop a deployment.

    Commands in the messages name `stack`. `hidden` are the top-level settings whose values no message shows.
    """

    stack: str = ""
    hidden: Collection[str] = ()
    lines: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add(self, key: str, value: object, why: str, fix: str) -> None:
        """Add a problem of a setting, with its value unless that is hidden."""
        if _ROOT.split(key, maxsplit=1)[0] in self.hidden:
            self.add_secret(key, why, fix)
        else:
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
            known = hints.nearest(self.key(name), map(self.key, self.defaults))
            # A misspelled secret is not among the hidden ones.
            if checks.names_secret(name) or checks.closest(name, self.problems.hidden, _ALIKE):
                self.problems.add_secret(self.key(name), "no such setting", known)
            else:
                self.problems.add(self.key(name), self.values[name], "no such setting", known)

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
            every = f"use one of {', '.join(option or 'nothing' for option in options)}"
            fix = every if len(options) <= LISTED else hints.nearest(value, options)
            self.problems.add(self.key(name), value, "not a possible value", fix)
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
                f"use `{self._assign(f'{self.key(name)}[0]')}`",
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
                f"use `{self._assign(self.key(name))}`, with an object in JSON",
            )
            return {}
        return {str(key): item for key, item in value.items()}

    def _assign(self, key: str) -> str:
        return hints.assign(key, stack=self.problems.stack)

    def section(self, name: str, defaults: Mapping[str, Any]) -> "Section":
        """Read an object whose parts are known; unknown parts are reported."""
        section = Section(self.problems, self.mapping(name), defaults, prefix=f"{self.key(name)}.")
        section.refuse_unknown()
        return section

    def part(self, name: str) -> "Section":
        """Read an object whose parts are those of its default."""
        return self.section(name, self.defaults[name])
