"""One thing that can be removed, and how it is shown."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """What it is, in the order in which things are shown."""

    IMAGE = "image"
    ARCHIVE = "archive"
    CACHE = "cache"


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """A thing that no stack needs. `size` in bytes; `why` says why it is not needed; `remove` raises KitError."""

    kind: Kind
    name: str
    size: int
    why: str
    remove: Callable[[], None] = field(repr=False, compare=False)

    def document(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {"kind": self.kind.value, "name": self.name, "bytes": self.size, "why": self.why}
