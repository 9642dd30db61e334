"""Where an archive goes: a file or an object that appears complete or not at all, or standard output."""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import IO

from dify_kit.backup import buckets
from dify_kit.backup.buckets import Place
from dify_kit.backup.retention import Retention, expired, name_of
from dify_kit.errors import KitError, UsageError
from dify_kit.talk import say

STDOUT = "-"
PRIVATE_MODE = 0o600


def target_of(given: str, stack: str, now: datetime) -> Path | Place | None:
    """Return the file or the object to write; None for standard output. Raises KitError where it cannot be made."""
    if given == STDOUT:
        if sys.stdout.isatty():
            raise KitError("--to -: standard output is a terminal", "pipe it into a program or a file")
        return None
    if buckets.is_place(given):
        place = buckets.parse(given)
        place = place.object(name_of(stack, now)) if place.prefix else place
        if buckets.exists(place):
            raise KitError(f"{place} exists already", "name another object with --to, or delete it")
        return place
    path = Path(given).expanduser() if given else Path.cwd()
    if path.is_dir():
        path /= name_of(stack, now)
    if path.exists():
        raise KitError(f"{path} exists already", "name another file with --to, or move it away")
    if not path.parent.is_dir():
        raise KitError(f"{path} cannot be written: there is no directory {path.parent}", "make it first")
    return path


@contextlib.contextmanager
def written(target: Path | Place | None) -> Iterator[IO[bytes]]:
    """Yield a stream to an archive, which appears when the block is through. Raises KitError.

    An exception of the block, an interruption too, removes what was written.
    """
    if target is None:
        try:
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            # The interpreter would flush it once more.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise KitError(
                "the program that reads standard output has ended; what it took is no archive",
                "see its messages",
            ) from None
        return
    if isinstance(target, Place):
        with buckets.writing(target) as stream:
            yield stream
        return
    draft = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_MODE)
    except OSError as problem:
        raise KitError(
            f"{target} cannot be written: {problem.strerror}", "name another place with --to"
        ) from None
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        _name(draft, target)
    except FileExistsError:
        raise KitError(f"{target} appeared meanwhile; it stays as it is", "run the command again") from None
    except OSError as problem:
        if problem.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise KitError(
                f"{target} cannot be written: {problem.strerror}; what was written is removed",
                "make room, or name another place with --to",
            ) from None
        raise KitError(f"the backup failed: {problem}; what was written is removed", "run it again") from None
    finally:
        draft.unlink(missing_ok=True)


def _name(draft: Path, target: Path) -> None:
    """Give the archive its name. Raises FileExistsError for a file that appeared meanwhile."""
    try:
        # `rename` would replace it.
        os.link(draft, target)
    except OSError as problem:
        # A file system without links.
        if problem.errno not in {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS}:
            raise
        if target.exists():
            raise FileExistsError(target) from None
        draft.rename(target)


def size_of(target: Path | Place) -> int | None:
    """Return the bytes of an archive; None where its bucket does not say. Raises KitError."""
    return buckets.size(target) if isinstance(target, Place) else target.stat().st_size


def refuse_retention(given: str) -> None:
    """Raise UsageError where older archives cannot be found: beside a file or an object of a chosen name."""
    place = buckets.parse(given) if buckets.is_place(given) else None
    if place.prefix if place else given != STDOUT and Path(given or ".").expanduser().is_dir():
        return
    raise UsageError(
        f"--to {given}: --keep-daily, --keep-weekly and --keep-monthly need a directory of archives",
        "name a directory, or a prefix of a bucket that ends with a slash",
    )


def delete_expired(target: Path | Place, stack: str, wanted: Retention) -> None:
    """Delete older archives of a stack beside a new one. Raises KitError."""
    if isinstance(target, Place):
        beside = replace(target, key=target.key.removesuffix(target.key.rpartition("/")[2]))
        for name in expired(buckets.names(beside), stack, wanted):
            buckets.delete(beside.object(name))
            say(f"deleted {beside.object(name)}")
        return
    for name in expired((one.name for one in target.parent.iterdir()), stack, wanted):
        try:
            (target.parent / name).unlink(missing_ok=True)
        except OSError as problem:
            raise KitError(
                f"{target.parent / name} cannot be deleted: {problem.strerror}; the new archive is complete",
                "delete it by hand, and let the user of the backup delete files there",
            ) from None
        say(f"deleted {target.parent / name}")
