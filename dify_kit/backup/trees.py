"""Counts the files of a tar while it passes, and refuses one that is cut off or leaves its directory."""

import hashlib
import posixpath
import queue
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from dify_kit.errors import KitError

_READ_BYTES = 256 << 10
_BLOCK = 512
# A tar ends with two blocks of zeros; without them it was cut off, which a reader of streams does not notice.
_END = bytes(2 * _BLOCK)
_MODULUS = 1 << 256


@dataclass(frozen=True, kw_only=True)
class Census:
    """Regular files of a tar and the sum of their sizes; `digest` depends on names and contents, not on the order."""

    files: int
    bytes: int
    digest: str


class BrokenTreeError(Exception):
    """A tar that is cut off or damaged, in the words of a message."""


class _Passing:
    """A file that pulls from an iterator and keeps the end of what came."""

    def __init__(self, content: Iterator[bytes]) -> None:
        self._content = content
        # A slice of it copies nothing.
        self._rest = memoryview(b"")
        self.tail = b""

    def read(self, size: int = -1) -> bytes:
        while not self._rest:
            block = next(self._content, None)
            if block is None:
                return b""
            self.tail = (self.tail + block)[-len(_END) :] if len(block) < len(_END) else block[-len(_END) :]
            self._rest = memoryview(block)
        size = len(self._rest) if size < 0 else size
        found, self._rest = self._rest[:size], self._rest[size:]
        return bytes(found)


def count(content: Iterator[bytes], *, root: str) -> Census:
    """Count a tar whose entries are all below the directory `root`, and read it to its end.

    Raises BrokenTreeError for a tar that was cut off, KitError for a name that leaves `root`.
    """
    passing = _Passing(content)
    files = total = sums = 0
    try:
        with tarfile.open(fileobj=passing, mode="r|", bufsize=_READ_BYTES) as tar:  # type: ignore[call-overload]
            while (entry := tar.next()) is not None:
                tar.members = []
                check_name(entry, root)
                if not entry.isreg():
                    continue
                inner = hashlib.sha256()
                file = tar.extractfile(entry)
                while file and (block := file.read(_READ_BYTES)):
                    inner.update(block)
                named = hashlib.sha256(f"{entry.name}\0{entry.size}\0{inner.hexdigest()}".encode())
                files, total = files + 1, total + entry.size
                sums = (sums + int.from_bytes(named.digest())) % _MODULUS
        while passing.read():
            pass
    except (tarfile.TarError, UnicodeDecodeError) as problem:
        raise BrokenTreeError(str(problem)) from None
    if passing.tail != _END:
        raise BrokenTreeError("its end is missing")
    return Census(files=files, bytes=total, digest=f"{sums:064x}")


class Counted:
    """Passes the blocks of a tar on, and counts its files in a thread of its own. To be iterated once."""

    def __init__(self, blocks: Iterator[bytes], *, root: str) -> None:
        self._blocks = blocks
        self._root = root
        self._queue: queue.Queue[bytes | None] = queue.Queue(maxsize=2)
        self._found: Census | None = None
        self._problem: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        blocks = iter(self._queue.get, None)
        try:
            self._found = count(blocks, root=self._root)
        except BaseException as problem:  # noqa: BLE001  # raised in the caller's thread
            self._problem = problem
            # The caller continues: what it passes must be taken. An iterator that ended stays ended.
            for _ in blocks:
                pass

    def __iter__(self) -> Iterator[bytes]:
        """Yield the blocks as they come."""
        self._thread.start()
        try:
            for block in self._blocks:
                self._queue.put(block)
                yield block
        finally:
            self._queue.put(None)
            self._thread.join()

    def census(self) -> Census:
        """Return what was counted, after the last block. Raises as `count` does."""
        if self._problem or self._found is None:
            raise self._problem or BrokenTreeError("it was not read to its end")
        return self._found


def check_name(entry: tarfile.TarInfo, root: str) -> None:
    """Raise KitError for an entry that is not below `root`, or a hard link to something that is not.

    Symbolic links may point anywhere: nothing here or in the engine follows them.
    """
    names = [entry.name, *([entry.linkname] if entry.islnk() else [])]
    for name in names:
        parts = name.rstrip("/").split("/")
        if parts[0] != root or ".." in parts or posixpath.isabs(name) or "\0" in name:
            raise KitError(
                f"the archive has an entry {name!r}, which leads out of its volume; nothing was changed",
                "do not use this archive: `backup` writes no such entry",
            )
    if entry.ischr() or entry.isblk():
        raise KitError(
            f"the archive has a device {entry.name!r}; nothing was changed",
            "do not use this archive: `backup` writes no such entry",
        )
