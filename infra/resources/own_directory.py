"""A directory on a volume that a service's user may write to, as a tar for the engine, which unpacks it as root."""

import io
import tarfile
import time

MODE = 0o700


def directory_archive(name: str, owner: int) -> bytes:
    """Return a tar that holds a directory of `owner` (a uid), closed to others."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, MODE, owner, owner
        entry.mtime = int(time.time())
        tar.addfile(entry)
    return buffer.getvalue()
