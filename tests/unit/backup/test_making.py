"""What a backup does when a volume changes under it, and with a vector store that has to stand still."""

import io
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from dify_kit.backup import making
from dify_kit.backup.archive import Writer
from dify_kit.backup.stores import VolumeError, Volumes
from dify_kit.backup.trees import Census
from dify_kit.containers.docker_host import Container
from dify_kit.errors import KitError
from dify_kit.stack import cut_off_backup
from tests.unit.backup.archives import ABOUT, blocks, tree

WHOLE = tree({"a": b"content"})
CUT = WHOLE[:1200]


class Engine:
    """An engine that notes what is stopped and started."""

    def __init__(self, *, starts: bool = True) -> None:
        self.done: list[str] = []
        self._starts = starts

    def volumes(self, names: list[str]) -> list[str]:
        return names

    def pause(self, container: Container) -> None:
        self.done.append(f"stop {container.id}")

    def resume(self, container: Container) -> None:
        self.done.append(f"start {container.id}")
        if not self._starts:
            raise KitError("no such network")


class Copies(Volumes):
    """Shows these contents of a volume, one after the other; notes the volumes that were read."""

    def __init__(self, *contents: bytes | Exception) -> None:
        self._left = list(contents)
        self.read: list[str] = []

    @contextmanager
    def reading(self, volume: str) -> Iterator[Iterator[bytes]]:
        self.read.append(volume)
        content = self._left.pop(0)
        if isinstance(content, Exception):
            raise content
        yield blocks(content)

    def fill(self, volume: str, labels: Mapping[str, str], content: Iterator[bytes], size: int) -> Census:
        del volume, labels, content, size
        raise AssertionError("a backup fills nothing")


def source(
    store: str,
    engine: Engine,
    state: str = "running",
    copies: Copies | None = None,
    outside: object | None = None,
) -> making.Source:
    container = Container(id="v1", name=f"dify-dev-{store}", service=store, job=False, state=state)
    pulumi: Any = SimpleNamespace(files=SimpleNamespace(stack="dev"))
    settings: Any = SimpleNamespace(
        vector_store=store,
        own_vector_store="" if outside else store,
        vector_server=outside,
        redis=None,
        storage=SimpleNamespace(type="fs"),
    )
    return making.Source(
        pulumi=pulumi,
        engine=engine,  # type: ignore[arg-type]
        volumes=copies or Copies(),
        settings=settings,
        containers={store: container},
    )


@pytest.fixture(autouse=True)
def notes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is noted as stopped, one after the other."""
    found: list[str] = []
    monkeypatch.setattr(cut_off_backup, "note_stopped", lambda _files, service: found.append(service))
    return found


def test_a_volume_that_changed_while_it_was_read_is_copied_again(capsys: pytest.CaptureFixture[str]) -> None:
    copies = Copies(CUT, WHOLE)
    target = io.BytesIO()
    writer = Writer(target, ABOUT, 0)

    making._volume(source("pgvector", Engine(), copies=copies), "redis", writer)
    writer.close()

    assert copies.read == ["dify-dev-redis"] * 2
    [part] = writer.parts.values()
    assert (part.name, part.files, part.bytes) == ("volumes/redis.1.tar", 1, 7)
    with tarfile.open(fileobj=io.BytesIO(target.getvalue())) as tar:
        names = tar.getnames()
    assert names == [
        "about.json",
        "volumes/redis.tar/00000001",
        "volumes/redis.1.tar/00000001",
        "manifest.json",
    ]
    assert "copying it again" in capsys.readouterr().err


def test_a_volume_that_never_holds_still_ends_the_backup() -> None:
    copies = Copies(CUT, CUT, CUT)
    writer = Writer(io.BytesIO(), ABOUT, 0)

    with pytest.raises(KitError, match="dify-dev-redis changed in each of 3 copies"):
        making._volume(source("pgvector", Engine(), copies=copies), "redis", writer)
    assert writer.parts == {}


def test_an_engine_that_breaks_off_is_named() -> None:
    copies = Copies(VolumeError("gone"))
    writer = Writer(io.BytesIO(), ABOUT, 0)

    with pytest.raises(KitError, match="volume dify-dev-redis cannot be read: gone"):
        making._volume(source("pgvector", Engine(), copies=copies), "redis", writer)


@pytest.mark.parametrize("store", ["weaviate", "qdrant"])
def test_a_vector_store_stands_still_for_its_copy_and_starts_again_whatever_happens(
    store: str, notes: list[str]
) -> None:
    for problem in (KitError("full"), KeyboardInterrupt()):
        engine = Engine()
        notes.clear()
        with pytest.raises(type(problem)):
            copied(source(store, engine), problem)
        assert engine.done == ["stop v1", "copied", "start v1"]
        assert notes == [store, ""]


def copied(found: making.Source, problem: BaseException) -> None:
    """Copy the vectors, until a problem ends that."""
    with making._still(found, "vector"):
        found.engine.done.append("copied")  # type: ignore[attr-defined]
        raise problem


def test_a_vector_store_that_does_not_start_again_is_a_warning(
    capsys: pytest.CaptureFixture[str], notes: list[str]
) -> None:
    with making._still(source("weaviate", Engine(starts=False)), "vector"):
        pass

    shown = capsys.readouterr().err
    assert "weaviate was stopped and does not start again: no such network" in shown
    assert "up --stack dev" in shown
    # Noted still: the next command starts it.
    assert notes == ["weaviate"]


def test_what_is_stopped_already_and_other_volumes_are_left_alone() -> None:
    engine = Engine()
    with making._still(source("weaviate", engine, "exited"), "vector"):
        pass
    with making._still(source("weaviate", engine), "app_storage"):
        pass

    assert engine.done == []


def test_vectors_come_as_a_dump_as_files_or_not_at_all() -> None:
    engine = Engine()

    assert "vector" not in making._volumes(source("pgvector", engine), vectors=True)
    assert "vector" in making._volumes(source("weaviate", engine), vectors=True)
    assert "vector" not in making._volumes(source("weaviate", engine), vectors=False)
    names = making._volumes(source("weaviate", engine), vectors=True)
    assert {"app_storage", "plugin_storage", "redis", "gateway_redis", "llm_usage", "acme"} <= set(names)
    assert not {"postgres", "edge", "certificates"} & set(names)


def test_a_volume_of_before_is_not_copied_when_the_vectors_are_outside() -> None:
    engine = Engine()
    found = source("weaviate", engine, outside=object())

    assert "vector" not in making._volumes(found, vectors=True)
    with making._still(found, "vector"):
        pass
    assert engine.done == []


def test_what_is_left_out_is_said_with_what_follows() -> None:
    found = source("weaviate", Engine())
    assert making.left_out(found.settings, vectors=True) == ()
    [vectors] = making.left_out(found.settings, vectors=False)
    assert "indexed again" in vectors
    elsewhere: Any = SimpleNamespace(
        vector_store="weaviate", vector_server=object(), redis=object(), storage=SimpleNamespace(type="s3")
    )
    files, sessions, vectors = making.left_out(elsewhere, vectors=True)
    assert "dify:vectorServer" in vectors
    assert "its own tools" in vectors
    assert "bucket" in files
    assert "sign in again" in sessions
