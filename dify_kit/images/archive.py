"""One archive of images: an ordinary `docker save` archive with one more member, the list of everything in it.

`docker load` reads it, too. The list holds references, image ids, and a SHA-256 of every member; it is the last
member, since members are hashed as they pass by. Nothing is held in memory but a block and the names.
"""

import contextlib
import datetime as dt
import hashlib
import io
import json
import os
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

import requests
from docker.errors import DockerException

from dify_kit.errors import KitError
from dify_kit.images.ticks import Ticks
from dify_kit.images.wanted import WORK_SECONDS, ImageStore, Present, Wanted
from infra import engine as endpoint

LIST = "dify-kit-images.json"
FORMAT = 1
BLOCK = 1024 * 1024
# tarfile copies its buffer at each read and write: a larger one takes longer.
PIECE = 64 * 1024
# Docker's own list of the images of an archive, and older or newer ones that would contradict the names in it.
_MANIFEST = "manifest.json"
_DROPPED = frozenset({"repositories", "index.json", "oci-layout"})
_MAX_LIST = 64 * BLOCK


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An image in an archive. `id` is the SHA-256 of its configuration, `digest` the catalogue's, `size` in bytes."""

    reference: str
    id: str
    roles: tuple[str, ...]
    digest: str | None
    platform: str
    size: int
    layers: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What an archive says is in it. `members` maps a name to its SHA-256; `sha256` is the whole archive's."""

    release: str
    made: str
    images: tuple[Entry, ...]
    members: Mapping[str, str]
    sha256: str = ""


class ArchiveError(KitError):
    """An archive that is damaged, incomplete or something else. Nothing of it was loaded."""


class Readable(Protocol):
    """What bytes can be read from."""

    def read(self, size: int = -1, /) -> bytes:
        """Return at most `size` bytes; none at the end."""


class _Chunks(io.RawIOBase):
    """The chunks of an HTTP answer as a file."""

    def __init__(self, chunks: Iterator[bytes], ticks: Ticks) -> None:
        self._chunks = chunks
        self._ticks = ticks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401  # any writable buffer
        while not self._rest:
            try:
                self._rest = memoryview(next(self._chunks))
            except StopIteration:
                return 0
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._ticks.add(count)
        self._rest = self._rest[count:]
        return count


class _Hashing:
    """Writes to a file or reads from one, and hashes and counts what passes."""

    def __init__(self, file: Any, ticks: Ticks | None = None) -> None:  # noqa: ANN401  # a reader or a writer
        self._file = file
        self._ticks = ticks
        self._digest = hashlib.sha256()
        self.count = 0

    def _passed(self, data: bytes) -> None:
        self._digest.update(data)
        self.count += len(data)
        if self._ticks:
            self._ticks.add(len(data))

    def write(self, data: bytes) -> int:
        self._file.write(data)
        self._passed(data)
        return len(data)

    def read(self, size: int = -1, /) -> bytes:
        data: bytes = self._file.read(size)
        self._passed(data)
        return data

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


@dataclass
class _Writer:
    """Puts the archives of single images together into one."""

    out: tarfile.TarFile
    members: dict[str, str] = field(default_factory=dict)
    described: list[dict[str, Any]] = field(default_factory=list)

    def take(self, image: tarfile.TarFile, names: Sequence[str]) -> str:
        """Copy one image's members and return the SHA-256 of its configuration."""
        described: list[dict[str, Any]] = []
        for member in image:
            if member.name == _MANIFEST:
                described = json.loads(_content(image, member).read())
            elif member.name not in _DROPPED:
                self._copy(image, member)
        if len(described) != 1:
            raise KitError(f"the engine saved {len(described)} images where one was asked for", "try again")
        self.described.append({**described[0], "RepoTags": list(names)})
        return self.members[described[0]["Config"]]

    def add(self, name: str, content: bytes, *, listed: bool = True) -> None:
        """Write a member of our own."""
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = len(content), 0o644, int(dt.datetime.now(tz=dt.UTC).timestamp())
        self.out.addfile(info, io.BytesIO(content))
        if listed:
            self.members[name] = hashlib.sha256(content).hexdigest()

    def _copy(self, image: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        known = self.members.get(member.name)
        if not member.isfile():
            digest = _linked(member)
            if known is None:
                self.out.addfile(member)
        else:
            content = _Hashing(_content(image, member))
            if known is None:
                self.out.addfile(member, content)
            else:
                # A layer that two images share is in the archive already; it is compared.
                while content.read(BLOCK):
                    pass
            digest = content.hexdigest()
        if known not in {None, digest}:
            raise KitError(f"two images have different content as {member.name}", "try again")
        self.members[member.name] = digest


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    found = archive.extractfile(member)
    if found is None:
        raise ArchiveError(f"{member.name} is no file", "make the archive again")
    return found


def _linked(member: tarfile.TarInfo) -> str:
    """Return what takes the place of a hash for directories and links: their kind and where they lead."""
    kind = "directory" if member.isdir() else "link" if member.issym() or member.islnk() else "other"
    return f"{kind}:{member.linkname}"


def save(
    images: Sequence[tuple[Wanted, Present]], release: str, store: ImageStore, out: IO[bytes]
) -> Contents:
    """Write the archive of images that are in the engine; return its contents with its own SHA-256."""
    with Ticks("saving", sum(present.size for _, present in images)) as ticks:
        hashing = _Hashing(out)
        with tarfile.open(
            fileobj=hashing, mode="w|", bufsize=PIECE, format=tarfile.PAX_FORMAT, copybufsize=PIECE
        ) as tar:  # type: ignore[call-overload]  # all that it does is write
            writer = _Writer(tar)
            entries = []
            for number, (one, present) in enumerate(images, 1):
                ticks.note(f"{number}/{len(images)} {one.name}")
                # Layers that are in the archive already are read, too: what is counted is what the engine sends.
                with _saved(store, present.id, ticks) as image:
                    config = writer.take(image, [one.name])
                entries.append(
                    Entry(
                        reference=one.name,
                        id=f"sha256:{config}",
                        roles=one.roles,
                        digest=one.digest,
                        platform=present.platform,
                        size=present.size,
                        layers=present.layers,
                    )
                )
            writer.add(_MANIFEST, json.dumps(writer.described).encode())
            contents = Contents(
                release=release,
                made=dt.datetime.now(tz=dt.UTC).isoformat(timespec="seconds"),
                images=tuple(entries),
                members=writer.members,
            )
            document = {"format": FORMAT, **{k: v for k, v in asdict(contents).items() if k != "sha256"}}
            writer.add(LIST, json.dumps(document, indent=1).encode(), listed=False)
        out.flush()
        return Contents(**{**vars(contents), "sha256": hashing.hexdigest()})


@contextmanager
def _saved(store: ImageStore, image_id: str, ticks: Ticks) -> Iterator[tarfile.TarFile]:
    """Open the engine's archive of one image as a stream."""
    api = store.client.api
    try:
        # By id: names are written from our list. The SDK's own call takes one name only and reads in small pieces.
        answer = api.get(
            f"{api.base_url}/v{api.api_version}/images/get",
            params={"names": image_id},
            stream=True,
            timeout=WORK_SECONDS,
        )
        answer.raise_for_status()
        with contextlib.closing(answer):
            chunks = io.BufferedReader(_Chunks(answer.iter_content(BLOCK), ticks), BLOCK)
            with tarfile.open(fileobj=chunks, mode="r|", bufsize=PIECE) as tar:
                yield tar
    except (requests.RequestException, DockerException, tarfile.TarError) as problem:
        raise KitError(
            f"the engine does not save {image_id[:19]}: {problem}", "has it enough disk? See `docker info`"
        ) from None


@contextmanager
def opened(path: str) -> Iterator[IO[bytes]]:
    """Open an archive to be read twice; `-` is stdin, which is kept in a temporary file first."""
    if path != "-":
        try:
            with Path(path).open("rb") as file:
                yield file
        except OSError as problem:
            raise KitError(
                f"cannot read {path}: {problem.strerror}", "name an archive of `images save`"
            ) from None
        return
    # What is checked and what is loaded have to be the same bytes.
    with tempfile.TemporaryFile(prefix="dify-kit-images-") as spool:
        with Ticks("reading stdin") as ticks:
            while block := sys.stdin.buffer.read(BLOCK):
                spool.write(block)
                ticks.add(len(block))
        spool.seek(0)
        yield spool


def verify(file: IO[bytes]) -> Contents:
    """Read the whole archive and compare every member with its checksum. Raises ArchiveError."""
    size = os.fstat(file.fileno()).st_size
    found: dict[str, str] = {}
    listed: bytes | None = None
    again = "copy the archive again, or make a new one with the command `images save`"
    with Ticks("checking checksums", size) as ticks:
        whole = _Hashing(file, ticks)
        try:
            with tarfile.open(fileobj=whole, mode="r|", bufsize=PIECE) as tar:  # type: ignore[call-overload]  # all that it does is read
                for member in tar:
                    if listed is not None or member.name in found:
                        raise ArchiveError(f"{member.name} is where nothing or something else belongs", again)
                    if member.name == LIST:
                        if member.size > _MAX_LIST:
                            raise ArchiveError(f"{LIST} is {member.size} bytes long", again)
                        listed = _content(tar, member).read()
                    elif member.isfile():
                        found[member.name] = _hash_of(_content(tar, member))
                    else:
                        found[member.name] = _linked(member)
        except (tarfile.TarError, EOFError) as problem:
            raise ArchiveError(f"the archive is cut off or damaged: {problem}", again) from None
        while whole.read(BLOCK):
            pass
    if listed is None:
        raise ArchiveError(
            f"there is no {LIST} in it: it is cut off, or `docker save` made it",
            "`docker load` loads archives without checksums",
        )
    contents = _parsed(listed, again)
    wrong = sorted(
        name
        for name in contents.members.keys() | found.keys()
        if contents.members.get(name) != found.get(name)
    )
    if wrong:
        raise ArchiveError(f"{len(wrong)} member(s) differ from their checksums, first {wrong[0]}", again)
    return Contents(**{**vars(contents), "sha256": whole.hexdigest()})


def _hash_of(file: IO[bytes]) -> str:
    hashing = _Hashing(file)
    while hashing.read(BLOCK):
        pass
    return hashing.hexdigest()


def _parsed(text: bytes, again: str) -> Contents:
    try:
        document = json.loads(text)
        if document["format"] != FORMAT:
            raise ArchiveError(
                f"its format is {document['format']}, and this kit reads {FORMAT}", "use the kit that made it"
            )
        return Contents(
            release=str(document["release"]),
            made=str(document["made"]),
            members={str(name): str(digest) for name, digest in document["members"].items()},
            images=tuple(
                Entry(**{**one, "roles": tuple(one["roles"]), "layers": tuple(one["layers"])})
                for one in document["images"]
            ),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise ArchiveError(f"{LIST} cannot be read: {problem}", again) from None


class _Body:
    """The archive as the body of a request, in blocks."""

    def __init__(self, file: IO[bytes], ticks: Ticks) -> None:
        self._file = file
        self._ticks = ticks

    def __iter__(self) -> Iterator[bytes]:
        while block := self._file.read(BLOCK):
            self._ticks.add(len(block))
            yield block


def load(file: IO[bytes], contents: Contents, store: ImageStore) -> list[Entry]:
    """Load a verified archive and compare ids; return the entries whose name was another image's until now."""
    before = {one.reference: store.find(one.reference) for one in contents.images}
    size = os.fstat(file.fileno()).st_size
    file.seek(0)
    try:
        with Ticks("loading", size) as ticks:
            api = endpoint.client(WORK_SECONDS).api
            for line in api.load_image(iter(_Body(file, ticks)), quiet=True):  # type: ignore[no-untyped-call]
                if "error" in line:
                    raise KitError(f"the engine does not load it: {line['error']}", "has it enough disk?")
    except (DockerException, requests.RequestException) as problem:
        raise KitError(
            f"the engine does not load it: {problem}", "has it enough disk? See `docker info`"
        ) from None
    wrong = [one.reference for one in contents.images if not same(store.find(one.reference), one, store)]
    if wrong:
        raise KitError(
            f"after loading, {', '.join(wrong)} is not the image of the archive",
            "does something else pull or tag images on this engine? Load it again",
        )
    return [one for one in contents.images if (old := before[one.reference]) and not same(old, one, store)]


def same(present: Present | None, entry: Entry, store: ImageStore) -> bool:
    """Tell whether the engine's image is the archive's: by id, or by layers where ids are made in another way."""
    if present is None:
        return False
    return present.id == entry.id or (store.keeps_manifests and present.layers == entry.layers)
