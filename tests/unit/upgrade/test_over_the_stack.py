"""A rollback restores over the stack that is there: what is deleted, what stays, and where it continues."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from dify_kit.backup import restoring
from dify_kit.engine.cli import Pulumi
from dify_kit.stack import unfinished
from dify_kit.upgrade import journal as journals
from dify_kit.upgrade import rollback
from dify_kit.upgrade.journal import State
from dify_kit.upgrade.running import Upgrade
from dify_kit.workspace import secrets
from tests.unit.backup.archives import ABOUT, PASSPHRASE, archive, quick, tree
from tests.unit.cli.conftest import Machine, machine
from tests.unit.upgrade.test_journal import journal

__all__ = ["machine"]
STORAGE = "dify-dev-app_storage"


class Killed(BaseException):
    """Ends the rollback where it is."""


@pytest.fixture(autouse=True)
def _quick() -> Iterator[None]:
    with quick():
        yield


@pytest.fixture
def begun(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Upgrade:
    """A protected stack of 1.17.1 that was upgraded; its rollback is killed as volumes are filled."""
    stored = machine.configure("dev", release="1.14.2", httpPort=18999, protect=True)
    config = yaml.safe_load(stored.read_text())["config"]
    plain = {
        key: {"dify-kit:secret": "x" * 64} if isinstance(value, dict) else value
        for key, value in config.items()
    }
    parts = {
        "stack/settings.json": json.dumps({"config": plain, "files": {}}).encode(),
        "volumes/app_storage.tar": tree({".dify-kit": b"release=1014002\nversion=1.14.2\n"}),
    }
    about = {**vars(ABOUT), "stack": "dev", "release": "1.14.2"}
    path = archive(tmp_path / "a.dify-backup", parts, about=type(ABOUT)(**about))
    (tmp_path / "passphrase").write_text(PASSPHRASE)
    machine.configure("dev", release="1.17.1", httpPort=18999, protect=True)
    machine.state("dev")
    machine.engine.existing_volumes = {STORAGE}
    upgrade = Upgrade(pulumi=Pulumi(files=machine.files()), engine=machine.engine, deadline=60)
    journal(
        archive=str(path),
        passphrase_file=str(tmp_path / "passphrase"),
        backed_up=ABOUT.created,
        state=State.DONE,
        settings="config:\n  docker:host: unix:///run/docker.sock\n",
    ).save(upgrade.files)

    def take_down(*_: object, **__: object) -> None:
        machine.engine.removed.append("down")

    def fill(*_: object) -> None:
        machine.engine.removed.append("fill")
        raise Killed

    monkeypatch.setattr(restoring, "take_down", take_down)
    monkeypatch.setattr(restoring, "_fill", fill)
    monkeypatch.setattr("dify_kit.checks.preflight.guard", lambda *_: None)
    monkeypatch.setattr("dify_kit.stack.settings.sound", lambda reading, **_: reading.settings)
    monkeypatch.setattr("dify_kit.backup.volumes.connect", io.BytesIO)
    monkeypatch.setattr(secrets, "passphrase_of", lambda _environment: "of this machine")
    return upgrade


def test_the_old_settings_are_written_and_journal_and_mark_outlive_the_deletion(
    begun: Upgrade, machine: Machine
) -> None:
    found = rollback.require(begun)

    with pytest.raises(Killed):
        rollback.restore(begun, found, None)

    files = begun.files
    assert machine.engine.removed == ["down", STORAGE, "fill"]
    config = files.config()
    assert (config["dify:release"], config["docker:host"]) == ("1.14.2", "unix:///run/docker.sock")
    assert json.loads(files.data.restoring("dev").read_text()) == {"archive": found.archive, "rollback": True}
    noted = journals.load(files)
    assert noted
    assert noted.state is State.ROLLING_BACK
    assert Path(found.archive).exists()


def test_begun_again_the_archive_is_restored_again_however_the_data_looks(
    begun: Upgrade, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Killed):
        rollback.restore(begun, rollback.require(begun), None)
    # Half-filled volumes may have the marker of before.
    monkeypatch.setattr("dify_kit.upgrade.data.written", lambda *_: rollback.require(begun).written)

    way = rollback.way(begun, rollback.require(begun))

    assert (way.restoring, way.lost) == (True, ABOUT.created)
    machine.engine.removed.clear()
    with pytest.raises(Killed):
        rollback.restore(begun, rollback.require(begun), None)
    assert machine.engine.removed == ["down", "fill"]
    unfinished.unmark(begun.files)
    assert not rollback.way(begun, rollback.require(begun)).restoring


def test_a_mark_that_is_set_before_anything_is_deleted(
    begun: Upgrade, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks: list[str] = []

    def remove(name: str) -> None:
        marks.append(unfinished.archive_of(begun.files))
        machine.engine.existing_volumes.discard(name)

    monkeypatch.setattr(machine.engine, "remove_volume", remove)
    found = rollback.require(begun)

    with pytest.raises(Killed):
        rollback.restore(begun, found, None)

    assert marks == [found.archive]
