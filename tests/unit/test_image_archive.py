"""The archive of images: what is written is what `docker load` reads, and nothing that was changed is loaded."""

import hashlib
import io
import json
import tarfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dify_kit.errors import KitError
from dify_kit.images import archive
from dify_kit.images.archive import ArchiveError
from dify_kit.images.ticks import Ticks, size_text
from dify_kit.images.wanted import Present, Wanted

SHARED = b"a layer of both " * 1000


def member(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def saved_by_docker(config: bytes, layers: dict[str, bytes]) -> bytes:
    """Return what the engine answers for one image: with members that the kit does not want."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        name = f"{hashlib.sha256(config).hexdigest()}.json"
        for layer, content in layers.items():
            folder = tarfile.TarInfo(layer.partition("/")[0])
            folder.type = tarfile.DIRTYPE
            tar.addfile(folder)
            member(tar, layer, content)
        member(tar, name, config)
        listed = [{"Config": name, "RepoTags": None, "Layers": list(layers)}]
        member(tar, "manifest.json", json.dumps(listed).encode())
        member(tar, "index.json", b"{}")
    return out.getvalue()


class Answer:
    """What the engine's HTTP client returns."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks

    def raise_for_status(self) -> None:
        pass

    def iter_content(self, _size: int) -> Iterator[bytes]:
        return self._chunks

    def close(self) -> None:
        pass


class Store:
    """An engine that saves and loads. `taken` is what it was given to load."""

    base_url, api_version = "http+docker://localhost", "1.41"
    keeps_manifests = False

    def __init__(self, images: dict[str, bytes]) -> None:
        self._images = images
        self.taken = b""
        self.there: dict[str, Present] = {}
        self.client = self
        self.api = self

    def get(self, url: str, *, params: dict[str, str], stream: bool, timeout: int) -> Answer:
        assert url.endswith("/v1.41/images/get")
        assert stream
        assert timeout > 60
        return Answer(iter([self._images[params["names"]]]))

    def find(self, reference: str) -> Present | None:
        return self.there.get(reference)

    def load_image(self, data: Iterator[bytes], *, quiet: bool) -> Iterator[dict[str, str]]:
        assert quiet
        self.taken = b"".join(data)
        return iter([{"stream": "Loaded"}])


CONFIG_A, CONFIG_B = b'{"a": 1}', b'{"b": 2}'
ID_A = f"sha256:{hashlib.sha256(CONFIG_A).hexdigest()}"
ID_B = f"sha256:{hashlib.sha256(CONFIG_B).hexdigest()}"


def present(image_id: str) -> Present:
    return Present(id=image_id, size=1000, platform="linux/amd64", layers=("sha256:l",))


def wanted(name: str, role: str) -> Wanted:
    return Wanted(roles=(role,), reference=f"{name}@sha256:{'d' * 64}", name=name, origin="docker.io")


@pytest.fixture
def store() -> Store:
    return Store(
        {
            ID_A: saved_by_docker(CONFIG_A, {"one/layer.tar": SHARED, "two/layer.tar": b"a"}),
            ID_B: saved_by_docker(CONFIG_B, {"one/layer.tar": SHARED, "three/layer.tar": b"b"}),
        }
    )


@pytest.fixture
def made(store: Store, tmp_path: Path) -> Path:
    file = tmp_path / "images.tar"
    rows = [
        (wanted("langgenius/dify-api:1.17.1", "api"), present(ID_A)),
        (wanted("postgres:15-alpine", "postgres"), present(ID_B)),
    ]
    with file.open("wb") as out:
        contents = archive.save(rows, "1.17.1", store, out)  # type: ignore[arg-type]  # as much of one as is needed
    assert contents.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    return file


def verified(file: Path) -> archive.Contents:
    with archive.opened(str(file)) as opened:
        return archive.verify(opened)


def test_docker_load_finds_the_images_under_their_names(made: Path) -> None:
    with tarfile.open(made) as tar:
        names = tar.getnames()
        manifest = tar.extractfile("manifest.json")
        assert manifest
        listed = json.loads(manifest.read())

    # A layer that two images share is there once; lists that would name images otherwise are not.
    assert len(names) == len(set(names))
    assert {"one/layer.tar", "two/layer.tar", "three/layer.tar"} <= set(names)
    assert "index.json" not in names
    assert {tuple(one["RepoTags"]): one["Config"] for one in listed} == {
        ("langgenius/dify-api:1.17.1",): f"{ID_A.removeprefix('sha256:')}.json",
        ("postgres:15-alpine",): f"{ID_B.removeprefix('sha256:')}.json",
    }


def test_what_was_saved_is_what_is_read(made: Path) -> None:
    contents = verified(made)

    assert [(one.reference, one.id, one.roles) for one in contents.images] == [
        ("langgenius/dify-api:1.17.1", ID_A, ("api",)),
        ("postgres:15-alpine", ID_B, ("postgres",)),
    ]
    assert contents.sha256 == hashlib.sha256(made.read_bytes()).hexdigest()
    assert contents.release == "1.17.1"


def test_a_changed_byte_is_found_wherever_it_is(made: Path) -> None:
    content = made.read_bytes()
    place = content.index(SHARED[:64])
    made.write_bytes(content[:place] + b"X" + content[place + 1 :])

    with pytest.raises(ArchiveError, match=r"1 member\(s\) differ from their checksums, first one/layer.tar"):
        verified(made)


@pytest.mark.parametrize("part", [0.2, 0.6, 0.9])
def test_an_archive_that_is_cut_off_is_refused(made: Path, part: float) -> None:
    # Without the padding at the end, which says nothing.
    content = made.read_bytes().rstrip(b"\0")
    made.write_bytes(content[: int(len(content) * part)])

    with pytest.raises(ArchiveError):
        verified(made)


def rewritten(file: Path, change: dict[str, bytes], *, drop: str = "", add: str = "") -> None:
    """Write an archive again with changed members, one less or one more; the list stays last."""
    with tarfile.open(file) as tar:
        parts = [(one, tar.extractfile(one)) for one in tar.getmembers()]
        contents = [(one, content.read() if content else b"") for one, content in parts]
    with tarfile.open(file, "w") as tar:
        for one, content in contents:
            if one.name == archive.LIST and add:
                member(tar, add, b"more")
            if one.name != drop:
                text = change.get(one.name, content)
                one.size = len(text)
                tar.addfile(one, io.BytesIO(text))


@pytest.mark.parametrize(
    ("change", "drop", "add", "first"),
    [
        ({"manifest.json": b"[]"}, "", "", "manifest.json"),
        ({}, "two/layer.tar", "", "two/layer.tar"),
        ({}, "", "four/layer.tar", "four/layer.tar"),
    ],
)
def test_other_members_than_listed_are_refused(
    made: Path, change: dict[str, bytes], drop: str, add: str, first: str
) -> None:
    rewritten(made, change, drop=drop, add=add)

    with pytest.raises(ArchiveError, match=first):
        verified(made)


def test_an_archive_of_docker_save_is_named_as_such(tmp_path: Path) -> None:
    file = tmp_path / "docker.tar"
    file.write_bytes(saved_by_docker(CONFIG_A, {"one/layer.tar": b"x"}))

    with pytest.raises(ArchiveError, match="`docker save` made it"):
        verified(file)


def test_a_newer_format_is_refused(made: Path) -> None:
    with tarfile.open(made) as tar:
        listed = tar.extractfile(archive.LIST)
        assert listed
        document = json.loads(listed.read())
    rewritten(made, {archive.LIST: json.dumps({**document, "format": 2}).encode()})

    with pytest.raises(ArchiveError, match="its format is 2"):
        verified(made)


def test_the_engine_is_given_the_whole_archive_and_its_ids_are_compared(
    made: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.engine.client", lambda _timeout: store)
    store.there = {"langgenius/dify-api:1.17.1": present(ID_A), "postgres:15-alpine": present(ID_B)}

    with archive.opened(str(made)) as opened:
        replaced = archive.load(opened, archive.verify(opened), store)  # type: ignore[arg-type]  # as above

    assert store.taken == made.read_bytes()
    assert replaced == []


def test_an_engine_with_another_image_of_that_name_afterwards_is_an_error(
    made: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.engine.client", lambda _timeout: store)
    store.there = {"langgenius/dify-api:1.17.1": present(ID_A), "postgres:15-alpine": present(ID_A)}

    with (
        archive.opened(str(made)) as opened,
        pytest.raises(KitError, match="postgres:15-alpine is not"),
    ):
        archive.load(opened, archive.verify(opened), store)  # type: ignore[arg-type]  # as above


@pytest.mark.parametrize(("containerd", "same"), [(False, False), (True, True)])
def test_layers_count_where_ids_are_made_of_manifests(
    made: Path, store: Store, containerd: bool, same: bool
) -> None:
    store.keeps_manifests = containerd
    entry = verified(made).images[0]

    assert archive.same(present("sha256:manifest"), entry, store) is same  # type: ignore[arg-type]  # as above


def test_memory_does_not_grow_with_the_images(tmp_path: Path) -> None:
    size, block = 96 * 1024 * 1024, bytes(1024 * 1024)
    config = CONFIG_A
    info = tarfile.TarInfo("big/layer.tar")
    info.size = size
    listed = json.dumps([{"Config": "c.json", "RepoTags": None, "Layers": ["big/layer.tar"]}]).encode()
    tail = io.BytesIO()
    with tarfile.open(fileobj=tail, mode="w") as tar:
        member(tar, "c.json", config)
        member(tar, "manifest.json", listed)

    class Big(Store):
        def get(self, _url: str, **_: Any) -> Answer:  # type: ignore[override]  # the same call
            blocks = (block for _ in range(size // len(block)))
            return Answer(_joined(info, blocks, tail))

    tracemalloc.start()
    with (tmp_path / "big.tar").open("wb") as out:
        archive.save([(wanted("big:1", "api"), present(ID_A))], "1.17.1", Big({}), out)  # type: ignore[arg-type]  # as above
    verified(tmp_path / "big.tar")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 24 * 1024 * 1024


def _joined(info: tarfile.TarInfo, blocks: Iterator[bytes], tail: io.BytesIO) -> Iterator[bytes]:
    yield info.tobuf()
    yield from blocks
    yield tail.getvalue()


def test_progress_begins_after_a_while_and_says_how_far(capsys: pytest.CaptureFixture[str]) -> None:
    with Ticks("saving", 2048, after=60) as silent:
        silent.add(1024)
    assert capsys.readouterr().err == ""

    ticks = Ticks("saving", 2048)
    ticks.add(1024)
    ticks.note("1/2 postgres:15-alpine")
    assert ticks.line().startswith("saving: 1/2 postgres:15-alpine, 1.0 KiB of about 2.0 KiB, ")


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 * 1024**3, "5.0 GiB")]
)
def test_sizes_are_for_people(count: int, text: str) -> None:
    assert size_text(count) == text
