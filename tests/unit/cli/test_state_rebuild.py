"""`dify-kit state rebuild`: what takes the place of a state that is missing, damaged or old, and what is left alone."""

import gzip
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from dify_kit.__main__ import app
from dify_kit.commands import state as command
from dify_kit.engine import snapshots
from dify_kit.engine.cli import Outcome, Pulumi
from dify_kit.engine.progress import Progress
from dify_kit.engine.state import FileBackend
from dify_kit.errors import KitError
from dify_kit.stack import rebuild
from dify_kit.stack.rebuild import Fault
from infra.resources.console_client import KEEP_KEYS
from tests.unit.cli.conftest import Machine
from tests.unit.cli.test_recovery import container

KNOWN = ("api-id", "web-id", "nginx-id")


def resources(*ids: str) -> list[dict[str, Any]]:
    return [{"urn": f"urn:pulumi:dev::dify::t::{one}", "type": "t", "id": one} for one in ids]


def document(*ids: str) -> bytes:
    content = {"version": 3, "checkpoint": {"stack": "dev", "latest": {"resources": resources(*ids)}}}
    return json.dumps(content).encode()


def copy(machine: Machine, name: str, *ids: str, age: int = 0, place: str = "backups/dify/dev") -> Path:
    """Write one of Pulumi's copies; `age` in seconds."""
    path = machine.home / "state" / ".pulumi" / place / name
    path.parent.mkdir(parents=True, exist_ok=True)
    content = document(*ids)
    path.write_bytes(gzip.compress(content) if ".gz" in name else content)
    os.utime(path, (1_700_000_000 - age, 1_700_000_000 - age))
    return path


def backend(machine: Machine) -> FileBackend:
    return FileBackend(root=machine.home / "state", stack="dev")


@pytest.fixture
def running(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A configured stack with three containers; its deployment is noted and does nothing."""
    machine.configure()
    machine.engine.stack_containers = [container(one.removesuffix("-id")) for one in KNOWN]

    def deployed(pulumi: Pulumi, *_: object, **__: object) -> Outcome:
        (machine.fake / "deployed").write_text(json.dumps(pulumi.environment.get(KEEP_KEYS)))
        return Outcome(code=0, progress=Progress(show=print), log=machine.fake / "log")

    monkeypatch.setattr(command, "DockerEngine", lambda: machine.engine)
    monkeypatch.setattr(command, "bring_up", deployed)
    return machine


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["state", "rebuild", *arguments])


def state_of(machine: Machine) -> frozenset[str]:
    return backend(machine).read().ids


def deployed(machine: Machine) -> bool:
    return (machine.fake / "deployed").exists()


# Which copy is chosen.


def test_every_place_of_pulumis_copies_is_read_and_what_is_no_copy_is_left_out(machine: Machine) -> None:
    copy(machine, "dev.1700000001.json", "a", age=30)
    copy(machine, "dev.1700000002.json.gz", "b", age=20)
    copy(machine, "dev-17.checkpoint.json", "c", age=10, place="history/dify/dev")
    copy(machine, "dev.json.bak", "d", place="stacks/dify")
    copy(machine, "dev.json.gz.bak", "e", age=40, place="stacks/dify")
    # No resources, cut off, of another stack, not a checkpoint, no object.
    copy(machine, "dev.1700000003.json")
    cut = copy(machine, "dev.1700000004.json.gz", "x")
    cut.write_bytes(cut.read_bytes()[:20])
    copy(machine, "develop.json.bak", "x", place="stacks/dify")
    copy(machine, "dev-17.history.json", "x", place="history/dify/dev")
    copy(machine, "dev.1700000005.json").write_text("[1]")
    copy(machine, "dev.1700000006.json").write_text("")

    found = snapshots.snapshots(backend(machine))

    assert [sorted(one.state.ids) for one in found] == [["d"], ["c"], ["b"], ["a"], ["e"]]


@pytest.mark.parametrize(
    ("copies", "chosen"),
    [
        ([(("api-id",), 10), (KNOWN, 20)], KNOWN),
        ([(KNOWN, 10), ((*KNOWN, "older-net"), 20)], KNOWN),
        ([(("gone",), 10), (("also-gone",), 20)], ("gone",)),
    ],
    ids=["most of what runs", "the newest of those", "the newest where nothing of it runs"],
)
def test_the_copy_that_knows_most_of_what_runs_is_the_best(
    machine: Machine, copies: list[tuple[tuple[str, ...], int]], chosen: tuple[str, ...]
) -> None:
    for number, (ids, age) in enumerate(copies):
        copy(machine, f"dev.{number}.json", *ids, age=age)

    found = snapshots.best(snapshots.snapshots(backend(machine)), KNOWN)

    assert found is not None
    assert found.state.ids == set(chosen)


def test_without_a_copy_there_is_no_best() -> None:
    assert snapshots.best([], KNOWN) is None


# What is wrong.


def test_a_state_that_knows_all_that_runs_has_no_fault(machine: Machine) -> None:
    machine.state(resources=resources(*KNOWN, "volume"))

    assert rebuild.examine(backend(machine), KNOWN).fault is Fault.NONE


@pytest.mark.parametrize("content", [b"", b"{", b'{"version": 3, "checkp', b"[]", b"\x00\x01"])
def test_a_damaged_state_is_unreadable(machine: Machine, content: bytes) -> None:
    machine.state().write_bytes(content)

    found = rebuild.examine(backend(machine), KNOWN)

    assert (found.fault, found.copy) == (Fault.UNREADABLE, None)
    with pytest.raises(KitError, match="cannot be read") as told:
        backend(machine).read()
    assert "state rebuild --stack dev" in told.value.hint


def test_a_packed_state_that_was_cut_off_is_unreadable(machine: Machine) -> None:
    path = machine.state()
    path.with_suffix(".json.gz").write_bytes(gzip.compress(document(*KNOWN))[:40])
    path.unlink()

    assert rebuild.examine(backend(machine), KNOWN).fault is Fault.UNREADABLE


@pytest.mark.parametrize(
    ("in_copy", "better"), [(KNOWN, True), (("api-id",), False), (("web-id",), False), ((), False)]
)
def test_an_old_state_gives_way_only_to_a_copy_that_knows_more(
    machine: Machine, in_copy: tuple[str, ...], better: bool
) -> None:
    machine.state(resources=resources("api-id"))
    copy(machine, "dev.1.json", *in_copy)

    found = rebuild.examine(backend(machine), KNOWN)

    assert (found.fault, found.unknown, found.copy is not None) == (Fault.BEHIND, 2, better)


# The command.


def test_a_state_in_order_is_left_alone(running: Machine) -> None:
    path = running.state(resources=resources(*KNOWN))
    copy(running, "dev.1.json", *KNOWN, "more")
    before = path.read_bytes()

    done = run()

    assert done.exit_code == 0, done.output
    assert "nothing to rebuild" in done.output
    assert path.read_bytes() == before
    assert not deployed(running)


def test_a_damaged_state_is_kept_aside_and_the_copy_takes_its_place(running: Machine) -> None:
    path = running.state()
    path.write_bytes(b'{"cut')
    copy(running, "dev.1.json", *KNOWN)

    done = run("--yes")

    assert done.exit_code == 0, done.output
    assert state_of(running) == set(KNOWN)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    [aside] = path.parent.glob("dev.json.replaced-*")
    assert aside.read_bytes() == b'{"cut'
    assert str(aside) in done.output
    assert json.loads((running.fake / "deployed").read_text()) == "1"


def test_a_packed_copy_stays_packed_and_a_plain_state_does_not_hide_it(running: Machine) -> None:
    path = running.state()
    path.write_bytes(b"{")
    copy(running, "dev.1.json.gz", *KNOWN)

    assert run("--yes").exit_code == 0

    assert state_of(running) == set(KNOWN)
    assert not path.exists()
    assert path.with_suffix(".json.gz").exists()


def test_without_state_and_copies_an_empty_state_is_made(running: Machine) -> None:
    done = run("--yes")

    assert done.exit_code == 0, done.output
    assert "3 container(s) are made again" in done.output
    assert len(running.calls("stack", "init")) == 1
    assert deployed(running)


def test_an_old_state_without_a_better_copy_is_deployed_as_it_is(running: Machine) -> None:
    path = running.state(resources=resources("api-id"))
    before = path.read_bytes()

    done = run("--yes")

    assert done.exit_code == 0, done.output
    assert "lacks 2 of 3" in done.output
    assert "2 container(s) are made again" in done.output
    assert path.read_bytes() == before
    assert deployed(running)


def test_a_copy_that_pulumi_refuses_leaves_everything_as_it_was(running: Machine) -> None:
    path = running.state()
    path.write_bytes(b"{")
    copy(running, "dev.1.json", *KNOWN)
    running.play(stack={"code": 1, "stderr": "error: incorrect passphrase"})

    done = run("--yes")

    assert done.exit_code == 1
    assert path.read_bytes() == b"{"
    assert list(path.parent.glob("*.replaced-*")) == []
    assert not deployed(running)


def test_a_named_copy_is_taken_also_in_place_of_a_state_in_order(running: Machine, tmp_path: Path) -> None:
    running.state(resources=resources(*KNOWN))
    own = tmp_path / "own.json"
    own.write_bytes(document("api-id"))

    assert run("--yes", "--from", str(own)).exit_code == 0

    assert state_of(running) == {"api-id"}


@pytest.mark.parametrize("content", [None, b"", b'{"deployment": {"resources": []}}'])
def test_a_named_file_that_is_no_copy_is_refused(
    running: Machine, tmp_path: Path, content: bytes | None
) -> None:
    path = running.state()
    path.write_bytes(b"{")
    own = tmp_path / "own.json"
    if content is not None:
        own.write_bytes(content)

    done = run("--yes", "--from", str(own))

    assert done.exit_code == 1
    assert f"--from {own}" in " ".join(done.output.split())
    assert path.read_bytes() == b"{"


def test_without_a_terminal_it_needs_a_yes(running: Machine) -> None:
    path = running.state()
    path.write_bytes(b"{")

    done = run()

    assert done.exit_code == 2
    assert "state rebuild --yes --stack dev" in " ".join(done.output.split())
    assert path.read_bytes() == b"{"


@pytest.mark.parametrize(
    ("settings", "environment", "told"),
    [
        ({"platform": "kubernetes", "kubernetes": {"context": "c"}}, {}, "is on a cluster"),
        ({}, {"PULUMI_BACKEND_URL": "s3://bucket"}, "PULUMI_BACKEND_URL is s3://bucket"),
    ],
)
def test_what_it_cannot_rebuild_is_refused(
    running: Machine,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    environment: dict[str, str],
    told: str,
) -> None:
    running.configure(**settings)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    done = run("--yes")

    assert done.exit_code == 1
    assert told in " ".join(done.output.split())
    assert not deployed(running)


def test_a_stack_without_settings_is_refused(machine: Machine) -> None:
    done = run("--yes")

    assert done.exit_code == 1
    assert "does not exist on this machine" in " ".join(done.output.split())
    assert machine.calls() == []
