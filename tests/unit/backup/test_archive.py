"""The archive: what is written is read again, and nothing else is."""

import errno
import io
import os
import re
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyrage
import pytest

from dify_kit.backup import archive as archives
from dify_kit.backup.archive import PIECE_BYTES, Part, Target, Writer, check, look, parts
from dify_kit.backup.restoring import examine, release_of
from dify_kit.backup.sealing import check_passphrase, sealed
from dify_kit.backup.stores import ROOT
from dify_kit.backup.trees import BrokenTreeError, Counted, count
from dify_kit.errors import KitError
from infra.catalogue.project import ROOT as ROOT_DIRECTORY
from tests.unit.backup.archives import ABOUT, PASSPHRASE, archive, blocks, quick, settings, tree

REAL = pyrage.passphrase
BIG = os.urandom(PIECE_BYTES * 2 + 17)
FILES = {"upload_files/a": b"hello", "upload_files/b": BIG}
PARTS = {
    "stack/settings.json": settings(release="1.17.1"),
    "databases/db-postgres/dify.sql": b"-- a dump\n" * 1000,
    "volumes/app_storage.tar": tree(FILES),
    "volumes/llm_usage.tar": tree({}),
}


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    with quick():
        yield


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write an archive once: the passphrase's key takes a second of a core."""
    return archive(tmp_path_factory.mktemp("written") / "a.dify-backup", PARTS)


@pytest.fixture
def whole(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(written, tmp_path))


def test_what_was_written_is_read(whole: Path) -> None:
    manifest = check(whole, PASSPHRASE)

    assert manifest.about == ABOUT == look(whole, PASSPHRASE)
    assert list(manifest.parts) == list(PARTS)
    assert (
        manifest.parts["volumes/app_storage.tar"].files,
        manifest.parts["volumes/llm_usage.tar"].files,
    ) == (2, 0)
    assert {part.name: b"".join(content) for part, content in parts(whole, PASSPHRASE, manifest)} == PARTS
    # A part that nobody wants is skipped, also after some of it was read.
    names = []
    for part, content in parts(whole, PASSPHRASE, manifest):
        names.append(part.name)
        next(content)
    assert names == list(PARTS)


def test_plain_age_opens_both_halves(tmp_path: Path) -> None:
    """As docs/guides/backup.md does it by hand: the first half is the key, by passphrase, of the second."""
    guide = (ROOT_DIRECTORY / "docs" / "guides" / "backup.md").read_text(encoding="utf-8")
    [(named, script)] = re.findall(r"^archive=(\S+)\n((?:LC_ALL=C sed .*\n)+)", guide, re.MULTILINE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pyrage, "passphrase", REAL)
        archive(tmp_path / named, PARTS)
    subprocess.run(["sh", "-c", f"archive={named}\n{script}"], cwd=tmp_path, check=True, timeout=60)

    with pytest.raises(pyrage.DecryptError):
        REAL.decrypt((tmp_path / "key.age").read_bytes(), "another passphrase")
    key = REAL.decrypt((tmp_path / "key.age").read_bytes(), PASSPHRASE).decode()
    plain = pyrage.decrypt(
        (tmp_path / "data.age").read_bytes(), [pyrage.x25519.Identity.from_str(key.strip())]
    )

    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        names = tar.getnames()
        dump = tar.extractfile("databases/db-postgres/dify.sql/00000001")
        assert dump
        assert dump.read() == PARTS["databases/db-postgres/dify.sql"]
    assert (names[0], names[-1]) == ("about.json", "manifest.json")
    assert [name for name in names if name.startswith("volumes/app_storage.tar/")] == [
        f"volumes/app_storage.tar/{number:08}" for number in (1, 2, 3)
    ]


def test_another_passphrase_opens_nothing(whole: Path) -> None:
    with pytest.raises(KitError, match="the passphrase does not open") as caught:
        check(whole, "another passphrase")
    assert "nothing was changed" in caught.value.message
    assert "--passphrase-file" in caught.value.hint


@pytest.mark.parametrize("kept", [0, 200, 500, PIECE_BYTES + 70_000, -20])
def test_an_archive_that_is_cut_off_is_refused(whole: Path, kept: int) -> None:
    content = whole.read_bytes()
    whole.write_bytes(content[:kept])

    with pytest.raises(KitError, match=r"cut off|is no archive|damaged"):
        check(whole, PASSPHRASE)


def test_a_changed_byte_is_found(whole: Path) -> None:
    content = bytearray(whole.read_bytes())
    content[len(content) // 2] ^= 1
    whole.write_bytes(content)

    with pytest.raises(KitError, match="damaged or cut off"):
        check(whole, PASSPHRASE)


def test_a_backup_that_was_interrupted_has_no_end(tmp_path: Path) -> None:
    path = archive(tmp_path / "a", PARTS, end=False)

    with pytest.raises(KitError, match="the backup was interrupted"):
        check(path, PASSPHRASE)


class Lying(Writer):
    """States another hash than that of what it wrote, or leaves a part out of the tar."""

    def add(self, part: Part) -> None:
        super().add(replace(part, sha256="0" * 64) if part.name.startswith("databases/") else part)
        if part.name.startswith("volumes/"):
            super().add(replace(part, name="volumes/missing.tar"))


def test_a_wrong_hash_and_a_missing_part_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.unit.backup.archives.Writer", Lying)
    for kind, message in (("databases", "has another hash"), ("volumes", r"missing\.tar is missing")):
        some = {name: content for name, content in PARTS.items() if name.startswith(kind)}
        path = archive(tmp_path / kind, some)
        with pytest.raises(KitError, match=message):
            check(path, PASSPHRASE)


def test_a_content_that_changed_after_the_check_comes_without_its_last_piece(whole: Path) -> None:
    manifest = check(whole, PASSPHRASE)
    name = "volumes/app_storage.tar"
    wrong = {**manifest.parts, name: replace(manifest.parts[name], sha256="0" * 64)}

    taken: list[bytes] = []
    with pytest.raises(KitError, match="another hash"):  # noqa: PT012
        for part, content in parts(whole, PASSPHRASE, replace(manifest, parts=wrong)):
            if part.name == name:
                taken.extend(content)
    assert 0 < len(b"".join(taken)) < len(PARTS[name])


@pytest.mark.parametrize(
    "name",
    [
        "../evil/00000001",
        "/etc/x/00000001",
        "volumes/../x/00000001",
        "other/x/00000001",
        "volumes/a/00000002",
    ],
)
def test_names_that_backup_does_not_write_are_refused(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Writer._entry
    monkeypatch.setattr(
        Writer, "_entry", lambda self, entry, content: real(self, name if "/" in entry else entry, content)
    )
    path = archive(tmp_path / "a", {"volumes/x.tar": tree({})})

    with pytest.raises(KitError, match=r"no name of a part|is due"):
        check(path, PASSPHRASE)


def test_links_and_devices_are_no_entries_of_an_archive(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with (
        path.open("wb") as raw,
        sealed(raw, PASSPHRASE) as stream,
        tarfile.open(fileobj=stream, mode="w|") as tar,  # type: ignore[call-overload]  # it needs `write` alone
    ):
        entry = tarfile.TarInfo("about.json")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(entry)

    with pytest.raises(KitError, match="is no entry of an archive"):
        check(path, PASSPHRASE)


def test_a_newer_format_names_the_kit_that_reads_it(tmp_path: Path) -> None:
    path = archive(tmp_path / "a", PARTS, about=replace(ABOUT, format=2, kit="9.9"))

    with pytest.raises(KitError, match="format 2") as caught:
        check(path, PASSPHRASE)
    assert "9.9" in caught.value.hint


def test_a_file_that_is_no_archive_is_told(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(os.urandom(100_000))
    with pytest.raises(KitError, match="is no archive"):
        check(path, PASSPHRASE)
    with pytest.raises(KitError, match="cannot be read"):
        check(tmp_path / "missing", PASSPHRASE)


def test_a_short_passphrase_is_refused() -> None:
    with pytest.raises(KitError, match="has 5 character"):
        check_passphrase("short")


# volumes in it


def test_a_tar_that_leaves_its_volume_is_refused_before_anything_is_changed(tmp_path: Path) -> None:
    for number, name in enumerate(("../outside", "/etc/cron.d/x", "../volume/x")):
        evil = io.BytesIO()
        with tarfile.open(fileobj=evil, mode="w") as tar:
            tar.addfile(tarfile.TarInfo(name))
        path = archive(
            tmp_path / str(number), {"volumes/x.tar": evil.getvalue()}, uncounted=("volumes/x.tar",)
        )
        with pytest.raises(KitError, match="leads out of its volume; nothing was changed"):
            examine(path, PASSPHRASE)


def test_a_hard_link_that_leaves_its_volume_and_a_device_are_refused() -> None:
    for kind, target in ((tarfile.LNKTYPE, "/etc/shadow"), (tarfile.CHRTYPE, "")):
        evil = io.BytesIO()
        with tarfile.open(fileobj=evil, mode="w") as tar:
            entry = tarfile.TarInfo(f"{ROOT}/x")
            entry.type, entry.linkname = kind, target
            tar.addfile(entry)
        with pytest.raises(KitError, match=r"leads out|device"):
            count(blocks(evil.getvalue()), root=ROOT)


def test_symbolic_links_stay_as_they_are() -> None:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        entry = tarfile.TarInfo(f"{ROOT}/python")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/usr/bin/python3"
        tar.addfile(entry)
    assert count(blocks(target.getvalue()), root=ROOT).files == 0


def test_the_census_depends_on_names_and_contents_and_not_on_the_order() -> None:
    one = count(blocks(tree({"a": b"1", "b": b"22"})), root=ROOT)

    assert (one.files, one.bytes) == (2, 3)
    assert count(blocks(tree({"b": b"22", "a": b"1"}), 511), root=ROOT) == one
    assert count(blocks(tree({"a": b"1", "b": b"23"})), root=ROOT) != one
    assert count(blocks(tree({"a": b"1", "c": b"22"})), root=ROOT) != one


@pytest.mark.parametrize("cut", [512, 1024, 5000, 11_000])
def test_a_tar_that_the_engine_cut_off_is_noticed(cut: int) -> None:
    """Also at the border of an entry, where a reader of streams sees a good end."""
    # Without the padding to 10 KiB that tarfile writes.
    content = tree({"a": b"x" * 600, "b": b"y" * 9000}).rstrip(b"\0")
    whole = content + bytes(-len(content) % 512) + bytes(1024)
    assert count(blocks(whole), root=ROOT).files == 2

    counted = Counted(blocks(whole[:cut]), root=ROOT)
    assert b"".join(counted) == whole[:cut]
    with pytest.raises(BrokenTreeError):
        counted.census()


def test_only_the_copy_that_the_manifest_counts_is_compared(tmp_path: Path) -> None:
    """A volume that changed while it was read is in the archive twice: the first time cut off."""
    broken = tree({"a": b"x" * 9000})[:5000]
    some = {
        "stack/settings.json": settings(),
        "volumes/redis.tar": broken,
        "volumes/redis.1.tar": tree({"a": b"x"}),
    }
    path = archive(tmp_path / "a", some, uncounted=("volumes/redis.tar",))

    found = examine(path, PASSPHRASE)

    assert list(found.manifest.parts) == ["stack/settings.json", "volumes/redis.1.tar"]


@pytest.mark.parametrize("name", ["volumes/postgres.tar", "volumes/edge.tar", "databases/mysql/dify.sql"])
def test_parts_that_no_stack_has_are_refused(tmp_path: Path, name: str) -> None:
    path = archive(tmp_path / "a", {"stack/settings.json": settings(), name: tree({})})

    with pytest.raises(KitError, match=f"has {name}, which this version of the kit does not know"):
        examine(path, PASSPHRASE)


# memory and disk


def test_a_full_disk_ends_the_backup() -> None:
    with (
        pytest.raises(OSError, match=os.strerror(errno.ENOSPC)),
        Path("/dev/full").open("wb") as full,
        sealed(full, PASSPHRASE) as stream,
    ):
        fill(stream)


def fill(stream: Target) -> None:
    """Write more than any disk of these tests takes."""
    writer = Writer(stream, ABOUT, 0)
    for number in range(50):
        writer.part(f"volumes/v{number}.tar", [BIG])


class Failing(io.RawIOBase):
    """A disk that is full after some bytes."""

    def __init__(self, room: int) -> None:
        self.room = room

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return len(data)


def test_a_disk_that_fills_up_ends_the_backup_with_its_own_error() -> None:
    with (
        pytest.raises(OSError, match=os.strerror(errno.ENOSPC)) as caught,
        sealed(Failing(PIECE_BYTES), PASSPHRASE) as stream,  # type: ignore[arg-type]
    ):
        fill(stream)
    assert caught.value.errno == errno.ENOSPC
    assert threading.active_count() < 20


def test_an_error_while_writing_is_raised_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError), sealed(io.BytesIO(), PASSPHRASE) as stream:
        stream.write(bytes([1 // len(b"")]))


def test_one_piece_is_held_at_a_time(tmp_path: Path) -> None:
    """Of a part of many pieces, no more than two are alive when the third is asked for."""
    alive: list[int] = []
    size = 12

    def source() -> "object":
        for _ in range(size):
            alive.append(1)
            yield bytes(PIECE_BYTES)

    seen = 0
    path = tmp_path / "a"
    with path.open("wb") as raw, sealed(raw, PASSPHRASE) as stream:
        writer = Writer(stream, ABOUT, 0)
        part = writer.part("volumes/x.tar", source())  # type: ignore[arg-type]
        writer.add(part)
        writer.close()
    assert part.size == size * PIECE_BYTES
    for _, content in parts(path, PASSPHRASE, check(path, PASSPHRASE)):
        for piece in content:
            seen = max(seen, len(piece))
    assert seen == PIECE_BYTES
    assert archives.PIECE_BYTES == PIECE_BYTES


@pytest.mark.parametrize(("wanted", "runs"), [("", "1.17.1"), ("1.17.1", "1.17.1"), ("1.18.0", "1.18.0")])
def test_the_same_release_and_a_newer_one_are_restored(wanted: str, runs: str) -> None:
    assert release_of(ABOUT, wanted) == runs


def test_an_older_release_is_refused() -> None:
    with pytest.raises(KitError, match=r"--release 1\.14\.2: the archive is of Dify 1\.17\.1") as caught:
        release_of(ABOUT, "1.14.2")
    assert "nothing was changed" in caught.value.message
