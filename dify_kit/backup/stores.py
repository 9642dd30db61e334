"""The volumes of one stack, to copy their content: those of an engine, or the claims of a cluster."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from dify_kit.backup.trees import BrokenTreeError, Census, count
from dify_kit.errors import KitError

# The directory that every entry of a volume's tar is in.
ROOT = "volume"


class VolumeError(Exception):
    """A volume cannot be read or filled: why, in a few words."""


class Volumes(Protocol):
    """The volumes of a stack, by the names that they have on an engine (`dify-<stack>-<volume>`)."""

    def reading(self, volume: str) -> AbstractContextManager[Iterator[bytes]]:
        """Yield a volume's content as a tar in blocks, while others use it. Raises VolumeError."""

    def fill(self, volume: str, labels: Mapping[str, str], content: Iterator[bytes], size: int) -> Census:
        """Make a volume with these labels, fill it from a tar of `size` bytes, and count what is in it then.

        Raises VolumeError.
        """


def filled(
    store: Volumes, volume: str, labels: Mapping[str, str], content: Iterator[bytes], size: int
) -> Census:
    """Make and fill a volume; return what is in it then. Raises KitError."""
    try:
        return store.fill(volume, labels, content, size)
    except VolumeError as problem:
        raise KitError(
            f"volume {volume} cannot be filled: {problem}",
            "see whether its disk has room, then run the same command again: it starts over",
        ) from None


def counted(blocks: Iterator[bytes]) -> Census:
    """Count the files of a volume that is read. Raises VolumeError."""
    try:
        return count(blocks, root=ROOT)
    except BrokenTreeError as problem:
        raise VolumeError(str(problem)) from None
