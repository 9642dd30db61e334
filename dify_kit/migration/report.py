"""What a migration was asked for and what it found."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """Where clients go: base URL without a trailing slash, model, and the variable that holds the key."""

    base_url: str
    model: str
    key_variable: str


@dataclass(frozen=True)
class Undecided:
    """A place that was left as it was: its line, counted from 1, and why."""

    line: int
    reason: str


@dataclass(frozen=True)
class Result:
    """A file's bytes after the migration (those before it when nothing was decided), and what was found.

    `leftovers` are places that nothing needs any more: their line before the migration, and what they are.
    """

    source: bytes
    migrated: int
    undecided: tuple[Undecided, ...]
    leftovers: tuple[Undecided, ...] = ()
