"""Archives as `backup` writes them, with small parts, for tests of reading."""

import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyrage
import pytest

from dify_kit.backup.archive import FORMAT, About, Writer
from dify_kit.backup.sealing import sealed
from dify_kit.backup.stores import ROOT
from dify_kit.backup.trees import count

PASSPHRASE = "correct horse battery"
ABOUT = About(
    format=FORMAT,
    kit="0.2.0",
    stack="old",
    release="1.17.1",
    images="local",
    vector_store="pgvector",
    postgres="17.1",
    created="2026-11-30T07:00:00+00:00",
)


def tree(files: Mapping[str, bytes]) -> bytes:
    """Return a tar of a volume with these files."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        root = tarfile.TarInfo(ROOT)
        root.type, root.mode = tarfile.DIRTYPE, 0o750
        tar.addfile(root)
        for name, content in files.items():
            entry = tarfile.TarInfo(f"{ROOT}/{name}" if not name.startswith(("/", "..")) else name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return target.getvalue()


def blocks(content: bytes, size: int = 7000) -> Iterator[bytes]:
    """Yield a content in blocks that fit nothing."""
    for at in range(0, len(content), size):
        yield content[at : at + size]


def settings(**values: Any) -> bytes:
    """Return the part with these settings."""
    config = {f"dify:{key}": value for key, value in values.items()}
    return json.dumps({"config": config, "files": {}}).encode()


def archive(
    path: Path,
    parts: Mapping[str, bytes],
    *,
    about: About = ABOUT,
    uncounted: tuple[str, ...] = (),
    end: bool = True,
) -> Path:
    """Write an archive; `uncounted` parts are in no manifest, and without `end` there is none."""
    with path.open("wb") as raw, sealed(raw, PASSPHRASE) as stream:
        writer = Writer(stream, about, 0)
        for name, content in parts.items():
            part = writer.part(name, blocks(content))
            if name.startswith("volumes/") and name not in uncounted:
                census = count(blocks(content), root=ROOT)
                part = replace(part, files=census.files, bytes=census.bytes, digest=census.digest)
            if name not in uncounted:
                writer.add(part)
        if end:
            writer.close()
    return path


class QuickPassphrase:
    """Takes the place of `pyrage.passphrase`: the same files and errors, and keys that cost nothing."""

    def __init__(self) -> None:
        self._keys: dict[str, Any] = {}

    def _key(self, passphrase: str) -> Any:
        return self._keys.setdefault(passphrase, pyrage.x25519.Identity.generate())

    def encrypt(self, plain: bytes, passphrase: str, *, armored: bool) -> bytes:
        """Encrypt to the key of a passphrase."""
        found: bytes = pyrage.encrypt(plain, [self._key(passphrase).to_public()], armored=armored)
        return found

    def decrypt(self, sealed_text: bytes, passphrase: str) -> bytes:
        """Decrypt with the key of a passphrase. Raises pyrage.DecryptError."""
        found: bytes = pyrage.decrypt(sealed_text, [self._key(passphrase)])
        return found


@contextmanager
def quick() -> Iterator[None]:
    """Let passphrases cost no second of a core each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pyrage, "passphrase", QuickPassphrase())
        yield
