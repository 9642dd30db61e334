"""The content of an archive: a tar whose first entry says what it is, and whose last one is the manifest.

::

    about.json                          format, kit, stack, release, time; readable before the rest
    <part>/00000001, /00000002, ...     one stream of bytes, cut into pieces, because a tar states sizes in advance
    manifest.json                       about.json, and each part with size, SHA-256, and rows or files

Parts are `stack/<file>`, `databases/<service>/<database>.sql` and `volumes/<volume>.tar`. Writing and reading go
through pieces of 4 MiB: memory does not grow with the archive.
"""

import hashlib
import json
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

from dify_kit.backup.sealing import opened
from dify_kit.errors import KitError

FORMAT = 1
ABOUT, MANIFEST = "about.json", "manifest.json"
PIECE_BYTES = 4 << 20
_DOCUMENT_BYTES = 64 << 20
_NAME = re.compile(r"(?:stack|databases|volumes)(?:/[A-Za-z0-9_][A-Za-z0-9_.-]*){1,3}")
_DIGITS = 8


@dataclass(frozen=True, kw_only=True)
class Part:
    """One stream of the archive. `rows` are a database's by table; `files` and `bytes` count a volume's files.

    `digest` is the sum of the SHA-256 of all files with their names, the same in any order of the files.
    """

    name: str
    size: int
    sha256: str
    rows: Mapping[str, int] = field(default_factory=dict)
    files: int = 0
    bytes: int = 0
    digest: str = ""


@dataclass(frozen=True, kw_only=True)
class About:
    """What an archive is of. `left_out` says what it does not hold, and what follows from that."""

    format: int
    kit: str
    stack: str
    release: str
    images: str
    vector_store: str
    postgres: str
    created: str
    left_out: tuple[str, ...] = ()

    @classmethod
    def read(cls, document: Mapping[str, Any], path: Path) -> "About":
        """Return what a document says. Raises KitError for a format that this kit does not know."""
        if document.get("format") != FORMAT:
            raise KitError(
                f"{path} has format {document.get('format')!r}, this kit reads {FORMAT}; nothing was changed",
                f"use dify-kit {document.get('kit', 'of the archive')} or newer",
            )
        names = cls.__dataclass_fields__
        values = {key: value for key, value in document.items() if key in names}
        return cls(**{**values, "left_out": tuple(document.get("left_out") or ())})


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """About an archive, and its parts by name, in their order."""

    about: About
    parts: Mapping[str, Part]

    def document(self) -> dict[str, Any]:
        """Return the manifest as JSON has it."""
        return {**asdict(self.about), "parts": [asdict(one) for one in self.parts.values()]}


class Target(Protocol):
    """Where an archive is written."""

    def write(self, data: bytes, /) -> int:
        """Take all of the bytes."""


class Writer:
    """Writes an archive into a stream, in one pass."""

    def __init__(self, stream: Target, about: About, mtime: int) -> None:
        self._stream = stream
        self._size = 0
        self._mtime = mtime
        self._about = about
        self.parts: dict[str, Part] = {}
        self._entry(ABOUT, json.dumps(asdict(about), indent=1).encode())

    def _entry(self, name: str, content: bytes) -> None:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode, entry.mtime = len(content), 0o600, self._mtime
        # The header is that of tarfile, which copies a content four times on its way into a stream.
        self._write(entry.tobuf(tarfile.PAX_FORMAT), content, bytes(-len(content) % tarfile.BLOCKSIZE))

    def _write(self, *blocks: bytes) -> None:
        for block in blocks:
            self._stream.write(block)
            self._size += len(block)

    def part(self, name: str, content: Iterable[bytes]) -> Part:
        """Write a stream as a part, and return its size and hash. It counts once `add` was called with it."""
        size, digest, pending, number = 0, hashlib.sha256(), bytearray(), 0
        for block in content:
            pending += block
            while len(pending) >= PIECE_BYTES:
                piece = bytes(pending[:PIECE_BYTES])
                del pending[:PIECE_BYTES]
                number += 1
                digest.update(piece)
                size += len(piece)
                self._entry(f"{name}/{number:0{_DIGITS}}", piece)
        if pending or not number:
            digest.update(pending)
            size += len(pending)
            self._entry(f"{name}/{number + 1:0{_DIGITS}}", bytes(pending))
        return Part(name=name, size=size, sha256=digest.hexdigest())

    def add(self, part: Part) -> None:
        """Count a part as one of the archive's. A part that was written and is not counted is left unread."""
        self.parts[part.name] = part

    def close(self) -> Manifest:
        """Write the manifest, and with it the end of the archive."""
        manifest = Manifest(about=self._about, parts=self.parts)
        self._entry(MANIFEST, json.dumps(manifest.document(), indent=1).encode())
        end = 2 * tarfile.BLOCKSIZE
        self._write(bytes(end + -(self._size + end) % tarfile.RECORDSIZE))
        return manifest


def look(path: Path, passphrase: str) -> About:
    """Return what an archive is of, from its first entry. Raises KitError."""
    stop = _Stop()
    try:
        with opened(path, passphrase) as stream:
            for entry, content in _entries(stream, path):
                about = _about(path, entry, content)
                raise stop
    except _Stop:
        return about
    raise _broken(path, "it is empty")


def check(
    path: Path, passphrase: str, inspect: Callable[[str, Iterator[bytes]], None] | None = None
) -> Manifest:
    """Read a whole archive, compare every hash, and return its manifest. Raises KitError; writes nothing.

    `inspect` sees each part, with its content, as it passes.
    """
    seen: dict[str, Part] = {}
    manifest: Manifest | None = None
    with opened(path, passphrase) as stream:
        entries = _Entries(path, stream)
        about = _about(path, *entries.next())
        while (one := entries.peek()) is not None:
            if one == MANIFEST:
                manifest = _manifest(path, about, entries.next()[1])
                continue
            if manifest:
                raise _broken(path, f"{one} comes after the manifest")
            name, content = entries.part()
            measured = _Measured(content)
            if inspect:
                inspect(name, iter(measured))
            for _ in measured:
                pass
            seen[name] = measured.part(name)
        entries.drain()
    if manifest is None:
        raise _broken(path, "it has no manifest at its end: the backup was interrupted")
    for name, part in manifest.parts.items():
        found = seen.get(name)
        if found is None:
            raise _broken(path, f"{name} is missing")
        if (found.size, found.sha256) != (part.size, part.sha256):
            raise _broken(path, f"{name} has another hash than the manifest says")
    return manifest


def parts(path: Path, passphrase: str, manifest: Manifest) -> Iterator[tuple[Part, Iterator[bytes]]]:
    """Yield the parts of an archive that was checked, each with its content. Raises KitError for another content.

    A content that the caller leaves unread is skipped.
    """
    with opened(path, passphrase) as stream:
        entries = _Entries(path, stream)
        entries.next()
        while (one := entries.peek()) is not None:
            if one == MANIFEST:
                entries.next()
                continue
            name, content = entries.part()
            measured = _Measured(content)
            if part := manifest.parts.get(name):
                yield part, measured.verified(path, part)
            for _ in measured:
                pass
        entries.drain()


class _Stop(Exception):  # noqa: N818  # no error
    """Ends the reading of an archive before its end."""


class _Measured:
    """A content with its size and hash so far. Iterating again continues where it stopped."""

    def __init__(self, content: Iterator[bytes]) -> None:
        self._content = content
        self._size = 0
        self._hash = hashlib.sha256()

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._content:
            self._size += len(piece)
            self._hash.update(piece)
            yield piece

    def part(self, name: str) -> Part:
        return Part(name=name, size=self._size, sha256=self._hash.hexdigest())

    def verified(self, path: Path, part: Part) -> Iterator[bytes]:
        """Yield the content; the last piece comes only when all of it is what the manifest says."""
        held: bytes | None = None
        for piece in self:
            if held is not None:
                yield held
            held = piece
        if (self._size, self._hash.hexdigest()) != (part.size, part.sha256):
            raise _broken(path, f"{part.name} has another hash than the manifest says")
        if held is not None:
            yield held


class _Entries:
    """The entries of an archive, one after the other, with a look at the name of the next."""

    def __init__(self, path: Path, stream: IO[bytes]) -> None:
        self._path = path
        self._stream = stream
        self._source = _entries(stream, path)
        self._ahead: tuple[str, bytes] | None = next(self._source, None)

    def peek(self) -> str | None:
        return self._ahead[0] if self._ahead else None

    def next(self) -> tuple[str, bytes]:
        if self._ahead is None:
            raise _broken(self._path, "it ends too early")
        found, self._ahead = self._ahead, next(self._source, None)
        return found

    def part(self) -> tuple[str, Iterator[bytes]]:
        """Return the name of the next part, and its pieces, which must be read before anything else is."""
        name = str(self.peek()).rpartition("/")[0]
        if not _NAME.fullmatch(name) or ".." in name:
            raise _broken(self._path, f"{self.peek()!r} is no name of a part")
        return name, self._pieces(name)

    def _pieces(self, name: str) -> Iterator[bytes]:
        number = 1
        while (self.peek() or "").rpartition("/")[0] == name:
            found, content = self.next()
            if found != f"{name}/{number:0{_DIGITS}}":
                raise _broken(self._path, f"{found} comes where piece {number} of {name} is due")
            number += 1
            yield content

    def drain(self) -> None:
        """Read what pads the tar: the end of the encryption comes after it."""
        while self._stream.read(PIECE_BYTES):
            pass


def _entries(stream: IO[bytes], path: Path) -> Iterator[tuple[str, bytes]]:
    try:
        tar: Any
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            while (entry := tar.next()) is not None:
                limit = PIECE_BYTES if "/" in entry.name else _DOCUMENT_BYTES
                file = tar.extractfile(entry) if entry.type == tarfile.REGTYPE else None
                if file is None or entry.size > limit:
                    raise _broken(path, f"{entry.name!r} is no entry of an archive of `backup`")
                content = file.read()
                if len(content) != entry.size:
                    raise _broken(path, f"{entry.name} is cut off")
                yield entry.name, content
                tar.members = []
    except tarfile.TarError as problem:
        raise _broken(path, f"{problem}, where the backup was interrupted or the archive cut off") from None


def _about(path: Path, entry: str, content: bytes) -> About:
    if entry != ABOUT:
        raise _broken(path, f"it begins with {entry!r} instead of {ABOUT}")
    return About.read(_json(path, entry, content), path)


def _manifest(path: Path, about: About, content: bytes) -> Manifest:
    document = _json(path, MANIFEST, content)
    if About.read(document, path) != about:
        raise _broken(path, f"{ABOUT} and {MANIFEST} differ")
    try:
        found = [Part(**one) for one in document["parts"]]
    except (KeyError, TypeError) as problem:
        raise _broken(path, f"{MANIFEST}: {problem}") from None
    return Manifest(about=about, parts={one.name: one for one in found})


def _json(path: Path, entry: str, content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise _broken(path, f"{entry} is no JSON object")
    return found


def _broken(path: Path, why: str) -> KitError:
    return KitError(
        f"{path} is damaged: {why}; nothing was taken from there on", "use another copy of the archive"
    )
