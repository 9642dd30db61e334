"""Where an archive comes from: a file, or an object of a bucket that is copied to this machine first."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from dify_kit.backup import buckets
from dify_kit.errors import UsageError
from dify_kit.talk import step


@contextlib.contextmanager
def local(given: str) -> Iterator[Path]:
    """Yield the path of an archive on this machine; a copy lasts as long as the block. Raises KitError."""
    if not buckets.is_place(given):
        yield Path(given).expanduser().absolute()
        return
    place = buckets.parse(given)
    if place.prefix:
        raise UsageError(
            f"{given} names no archive", "name one object: s3://BUCKET/PREFIX/dify-STACK-TIME.dify-backup"
        )
    step(f"copying {place} to this machine")
    with buckets.downloaded(place) as path:
        yield path
