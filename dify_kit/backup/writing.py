"""Where an archive goes: a file that appears complete or not at all, or standard output."""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import IO

from dify_kit.errors import KitError

STDOUT = "-"
SUFFIX = ".dify-backup"
PRIVATE_MODE = 0o600


def target_of(given: str, stack: str, now: datetime) -> Path | None:
    """Return the file to write; None for standard output. Raises KitError where it cannot be made."""
    if given == STDOUT:
        if sys.stdout.isatty():
            raise KitError("--to -: standard output is a terminal", "pipe it into a program or a file")
        return None
    path = Path(given).expanduser() if given else Path.cwd()
    if path.is_dir():
        path /= f"dify-{stack}-{now:%Y%m%d-%H%M%S}{SUFFIX}"
    if path.exists():
        raise KitError(f"{path} exists already", "name another file with --to, or move it away")
    if not path.parent.is_dir():
        raise KitError(f"{path} cannot be written: there is no directory {path.parent}", "make it first")
    return path


@contextlib.contextmanager
def written(target: Path | None) -> Iterator[IO[bytes]]:
    """Yield a stream to an archive; the file gets its name when the block is through. Raises KitError.

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
