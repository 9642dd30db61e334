"""Blocks of bytes on their way from an engine into an archive: few large ones, from one thread to another."""

import queue
from collections.abc import Iterable, Iterator

BLOCK_BYTES = 1 << 20
"""An engine sends 32 KiB at a time. Each block costs the same, however large it is."""
_HELD = 2


def gathered(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the same bytes in blocks of BLOCK_BYTES and more; the last one may be smaller."""
    held: list[bytes] = []
    size = 0
    for block in blocks:
        held.append(block)
        size += len(block)
        if size >= BLOCK_BYTES:
            yield b"".join(held)
            held, size = [], 0
    if size:
        yield b"".join(held)


class Handover:
    """What one thread writes and another one reads, in memory: a pipe copies twice, and holds 64 KiB.

    `write` raises BrokenPipeError once the reader has left, and waits while it is behind.
    """

    def __init__(self) -> None:
        self._queue: queue.Queue[bytes | None] = queue.Queue(maxsize=_HELD)
        self._pending: list[bytes] = []
        self._size = 0
        self._rest = memoryview(b"")
        self._ended = False
        self._left = False

    def write(self, data: bytes) -> int:
        """Take bytes. Raises BrokenPipeError."""
        if self._left:
            raise BrokenPipeError
        self._pending.append(bytes(data))
        self._size += len(data)
        if self._size >= BLOCK_BYTES:
            self.flush()
        return len(data)

    def flush(self) -> None:
        """Hand over what is held."""
        if self._size:
            self._queue.put(b"".join(self._pending))
            self._pending, self._size = [], 0

    def end(self) -> None:
        """Let the reader find the end. To be called once by the writer, in any case."""
        self.flush()
        self._queue.put(None)

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, at most `size`; none at the end."""
        while not self._rest and not self._ended:
            block = self._queue.get()
            self._ended = block is None
            self._rest = memoryview(block or b"")
        size = len(self._rest) if size < 0 else size
        found, self._rest = self._rest[:size], self._rest[size:]
        return bytes(found)

    def leave(self) -> None:
        """Take and drop the rest: the writer must not wait for a reader that has ended."""
        self._left = True
        while not self._ended:
            self._ended = self._queue.get() is None
