"""What a command that is killed leaves, and what puts it in order: settings, drafts, and a backup's changes."""

import json
from pathlib import Path

import pytest
import yaml

from dify_kit.containers.docker_host import Container
from dify_kit.engine.cli import Pulumi
from dify_kit.errors import KitError
from dify_kit.stack import changing, cut_off_backup, redis_files
from dify_kit.stack.changing import Change
from tests.unit.cli.conftest import Machine

# Pulumi opens the file that it writes with O_TRUNC; killed before the write, it leaves nothing in it.
TRUNCATING = """#!/bin/sh
while [ $# -gt 0 ]; do [ "$1" = --config-file ] && file="$2"; shift; done
: > "${file:-Pulumi.dev.yaml}"
kill -9 $$
"""


def container(service: str, state: str = "running", name: str = "") -> Container:
    return Container(
        id=f"id-{service}", name=name or f"dify-dev-{service}", service=service, job=False, state=state
    )


@pytest.fixture
def rewrites(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Each Redis whose rewrites are turned on."""
    found: list[str] = []
    monkeypatch.setattr(redis_files, "with_rewrites", found.append)
    return found


def truncating(machine: Machine) -> None:
    launcher = machine.fake.parent / "bin" / "pulumi"
    launcher.write_text(TRUNCATING)


def test_settings_stay_whole_where_pulumi_is_killed_while_it_writes_them(machine: Machine) -> None:
    stored = machine.configure()
    before = stored.read_text()
    pulumi = machine.pulumi()
    truncating(machine)

    with pytest.raises(KitError, match="pulumi config set"):
        pulumi.run("config", "set", "dify:httpPort", "8081")

    assert stored.read_text() == before
    assert machine.files().linked.resolve() == stored
    assert [path.name for path in stored.parent.iterdir()] == [stored.name]


def test_a_change_of_several_settings_is_written_in_one_move(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = machine.configure(httpPort=8080, corsOrigin=None, bindAddress="127.0.0.1")
    pulumi, seen = machine.pulumi(), list[str]()
    run = Pulumi.run

    def watched(self: Pulumi, *arguments: str, **more: object) -> object:
        done = run(self, *arguments, **more)  # type: ignore[arg-type]
        seen.append(stored.read_text())
        return done

    monkeypatch.setattr(Pulumi, "run", watched)
    before = stored.read_text()
    changing.apply(pulumi, [Change(path=("httpPort",), value=8081), Change(path=("bindAddress",))])

    # After each of the commands nothing had changed yet.
    assert len(seen) >= 2
    assert set(seen) == {before}
    after = yaml.safe_load(stored.read_text())["config"]
    assert after["dify:httpPort"] == 8081
    assert "dify:bindAddress" not in after


def test_settings_of_the_operators_own_stay_a_file_of_their_own(machine: Machine) -> None:
    stored = machine.configure()
    files = machine.files()
    files.linked.unlink()
    stored.rename(files.linked)
    inode = files.linked.stat().st_ino

    changing.apply(machine.pulumi(), [Change(path=("httpPort",), value=8081)])

    assert yaml.safe_load(files.linked.read_text())["config"]["dify:httpPort"] == 8081
    assert files.linked.stat().st_ino == inode
    assert not stored.exists()


def test_what_a_killed_command_left_half_written_is_removed_by_the_next(machine: Machine) -> None:
    machine.configure()
    machine.configure("dev2")
    files = machine.files()
    data = files.data
    mine = [
        data.runs / ".dev.upgrade.123",
        data.runs / ".dev.json.4",
        data.stacks / ".Pulumi.dev.yaml.77",
        data.stacks / ".clients.dev.json.5",
        data.stacks / ".proxy-keys.dev.json.5",
        data.stacks / ".new-dev.yaml",
        data.stacks / "..new-dev.yaml.9",
        data.stacks / ".edit-dev.12.yaml",
        data.stacks / "..edit-dev.12.yaml.12",
    ]
    others = [
        data.runs / ".dev2.upgrade.123",
        data.stacks / ".Pulumi.dev2.yaml.77",
        data.stacks / ".new-dev2.yaml",
    ]
    kept = [data.stacks / "Pulumi.dev.yaml", data.stacks / "Pulumi.dev2.yaml", *others]
    for path in (*mine, *others):
        path.write_text("half")

    with files.lock():
        assert [path for path in mine if path.exists()] == []
    assert [path for path in kept if not path.exists()] == []


def test_a_backup_that_was_cut_off_is_put_in_order_once(
    machine: Machine, rewrites: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.configure()
    files = machine.files()
    target = tmp_path / "a.dify-backup"
    part, other = tmp_path / ".a.dify-backup.71.part", tmp_path / ".b.dify-backup.71.part"
    for path in (part, other):
        path.write_text("half")
    holder = container("backup-1a2b3c")
    machine.engine.stack_containers = [
        holder,
        container("redis"),
        container("gateway-redis", "exited"),
        container("weaviate", "exited"),
    ]
    with cut_off_backup.noted(files, target):
        cut_off_backup.note_stopped(files, "weaviate")
        note = files.data.backing_up("dev").read_bytes()
    # One that ends by itself leaves no note.
    assert not cut_off_backup.found(files)
    files.data.backing_up("dev").write_bytes(note)

    cut_off_backup.mend(files, machine.engine)
    cut_off_backup.mend(files, machine.engine)

    assert machine.engine.removed == [holder.id]
    assert rewrites == ["id-redis"]
    assert machine.engine.restarted == ["id-weaviate"]
    assert not part.exists()
    assert other.exists()
    assert not cut_off_backup.found(files)
    assert capsys.readouterr().err.count("was cut off") == 1


def test_what_cannot_be_put_in_order_stays_noted_and_is_a_warning(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.configure()
    files = machine.files()

    def refuse(_container: str) -> None:
        raise KitError("Redis cannot be asked: gone")

    monkeypatch.setattr(redis_files, "with_rewrites", refuse)
    machine.engine.stack_containers = [container("redis")]
    files.data.backing_up("dev").write_text(json.dumps({"target": "", "stopped": ""}))

    cut_off_backup.mend(files, machine.engine)

    assert cut_off_backup.found(files)
    said = capsys.readouterr().err
    assert "Redis cannot be asked: gone" in said
    assert "up --stack dev" in said


def test_a_note_that_is_damaged_is_put_in_order_all_the_same(machine: Machine, rewrites: list[str]) -> None:
    machine.configure()
    files = machine.files()
    machine.engine.stack_containers = [container("redis")]
    files.data.backing_up("dev").write_bytes(b"[")

    cut_off_backup.mend(files, machine.engine)

    assert rewrites == ["id-redis"]
    assert not cut_off_backup.found(files)
    assert list(files.data.runs.iterdir()) == []
