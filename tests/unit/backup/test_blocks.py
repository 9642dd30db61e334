"""Blocks on their way into an archive: gathered, and handed from one thread to another without a loss."""

import os
import random
import threading

import pytest

from dify_kit.backup.blocks import BLOCK_BYTES, Handover, gathered


def test_small_blocks_become_large_ones_with_the_same_bytes() -> None:
    pieces = [os.urandom(32 << 10) for _ in range(70)]

    found = list(gathered(pieces))

    assert b"".join(found) == b"".join(pieces)
    assert [len(one) >= BLOCK_BYTES for one in found] == [True, True, False]
    assert list(gathered([])) == []
    assert list(gathered([b"", b"x"])) == [b"x"]


def test_what_is_written_in_one_thread_is_read_in_another() -> None:
    drawn = random.Random(7)  # noqa: S311  # sizes
    pieces = [os.urandom(drawn.choice((1, 512, 4096, BLOCK_BYTES, 3 * BLOCK_BYTES))) for _ in range(40)]
    stream, read = Handover(), bytearray()

    def work() -> None:
        while block := stream.read(8192):
            assert len(block) <= 8192
            read.extend(block)
        assert stream.read() == b""

    reader = threading.Thread(target=work, daemon=True)
    reader.start()
    for piece in pieces:
        assert stream.write(piece) == len(piece)
    stream.end()
    reader.join(60)

    assert not reader.is_alive()
    assert bytes(read) == b"".join(pieces)


def test_a_reader_that_has_left_breaks_the_pipe_and_stops_nobody() -> None:
    stream = Handover()
    reader = threading.Thread(target=stream.leave, daemon=True)
    reader.start()

    def write() -> None:
        for _ in range(100):
            stream.write(bytes(BLOCK_BYTES))

    with pytest.raises(BrokenPipeError):
        write()
    stream.end()
    reader.join(60)
    assert not reader.is_alive()
