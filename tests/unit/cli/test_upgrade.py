"""`upgrade` and `rollback`: plan, refusals, order, interruption at every step, and the way back, without an engine."""

import json
import stat
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from dify_kit.__main__ import app
from dify_kit.backup import making, restoring, settings_part
from dify_kit.containers.docker_host import Container
from dify_kit.engine.cli import Pulumi
from dify_kit.errors import CancelledError, KitError
from dify_kit.images import wanted
from dify_kit.smoke.run import Ended
from dify_kit.stack import unfinished
from dify_kit.upgrade import data, rollback, running
from dify_kit.upgrade import journal as journals
from dify_kit.upgrade.journal import State
from dify_kit.upgrade.path import Written
from infra.catalogue.releases import RELEASES
from infra.platforms import image_needs
from tests.unit.cli.conftest import Machine

LADDER = RELEASES["1.17.1"].weaviate_ladder


class Killed(BaseException):
    """Ends a command where it is, as SIGKILL does: no handler of the command runs on it."""


@dataclass
class World:
    """What an upgrade works on: `done` has what was done, in order; `kill_at` ends the command there."""

    machine: Machine
    written: Written | None = field(default_factory=lambda: Written(release="1.12.1"))
    size: int = 1 << 20
    done: list[str] = field(default_factory=list)
    kill_at: str = ""
    fail: KitError | None = None
    smoke: int = 0
    archives: dict[str, Written] = field(default_factory=dict)

    def note(self, what: str) -> None:
        self.done.append(what)
        if what == self.kill_at:
            self.kill_at = ""
            raise Killed
        if what.startswith("up") and self.fail:
            problem, self.fail = self.fail, None
            raise problem

    def config(self) -> dict[str, Any]:
        found: dict[str, Any] = yaml.safe_load(self.machine.files().stored.read_text())["config"]
        return found

    def up(self, *_: object, **__: object) -> None:
        config = self.config()
        release, weaviate = config["dify:release"], config.get("dify:weaviateVersion", "")
        self.note(f"up {release} {weaviate}".strip())
        tag = weaviate or RELEASES[release].images["weaviate"].tag
        own = tag if config.get("dify:vectorStore") == "weaviate" else ""
        self.written = Written(release=release, weaviate=own)
        self.note(f"deployed {release} {weaviate}".strip())

    def back_up(self, _found: object, target: Path, passphrase: str, **_: object) -> None:
        self.note("backup")
        assert len(passphrase) >= 12
        assert self.written
        self.archives[str(target)] = self.written
        target.write_text(self.machine.files().stored.read_text())
        self.note("archive")

    def examine(self, archive: Path, _passphrase: str) -> Any:
        self.note("examine")
        written = self.archives[str(archive)]
        about = SimpleNamespace(stack="dev", release=written.release, created="2026-11-30T07:00:00+00:00")
        return SimpleNamespace(about=about)

    def restore(self, wish: restoring.Wish, *_: object, **__: object) -> None:
        files = self.machine.files()
        unfinished.mark(files, str(wish.archive), rollback=wish.rollback)
        self.note("restore")
        files.stored.write_text(wish.archive.read_text())
        self.written = self.archives[str(wish.archive)]
        unfinished.unmark(files)
        self.up()

    def run_smoke(self, *_: object, **__: object) -> Ended:
        self.note("smoke")
        return Ended(code=self.smoke, results={"summary": "1 failed"} if self.smoke else {})

    def journal(self) -> journals.Journal | None:
        return journals.load(self.machine.files())


@pytest.fixture
def world(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> World:
    """A stack of Dify 1.12.1 that runs."""
    one = World(machine=machine)
    machine.configure(release="1.12.1")
    machine.engine.stack_containers = [
        Container(id=name, name=f"dify-dev-{name}", service=name, job=False, state="running")
        for name in ("api", "db-postgres", "pgvector")
    ]
    for module in ("upgrade", "rollback"):
        monkeypatch.setattr(f"dify_kit.commands.{module}.DockerEngine", lambda: machine.engine)
    monkeypatch.setattr(data, "written", lambda _stack, _client=None: one.written)
    monkeypatch.setattr(data, "size", lambda _stack, _client=None: one.size)
    monkeypatch.setattr(making, "source", lambda *_: SimpleNamespace())
    monkeypatch.setattr(making, "write", one.back_up)
    monkeypatch.setattr(restoring, "examine", one.examine)
    monkeypatch.setattr(restoring, "restore", one.restore)
    monkeypatch.setattr(settings_part, "plain_settings", lambda *_: {})
    monkeypatch.setattr(running, "bring_up", one.up)
    monkeypatch.setattr(rollback, "bring_up", one.up)
    monkeypatch.setattr(running, "run_smoke", one.run_smoke)
    monkeypatch.setattr(Pulumi, "state", lambda _self: None)
    return one


def upgrade(release: str, *options: str) -> Result:
    return CliRunner().invoke(app, ["upgrade", release, "--stack", "dev", *options])


def back(*options: str) -> Result:
    return CliRunner().invoke(app, ["rollback", "--stack", "dev", *options])


def plan_of(release: str, *options: str) -> dict[str, Any]:
    done = upgrade(release, "--plan", "--json", *options)
    assert done.exit_code == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


# The plan


def test_a_plan_has_every_step_and_what_changes_and_changes_nothing(world: World) -> None:
    before = world.machine.files().stored.read_bytes()

    found = plan_of("1.17.1")

    assert [one["kind"] for one in found["steps"]] == ["backup", "move", "smoke"]
    assert (found["from"], found["to"], found["steps"][1]["release"]) == ("1.12.1", "1.17.1", "1.17.1")
    noted = [(one["release"], one["text"]) for one in found["hands"]]
    assert noted == [
        (version, line) for version in ("1.14.2", "1.17.0", "1.17.1") for line in RELEASES[version].upgrade
    ]
    assert set(found["services"]["come"]) == RELEASES["1.17.1"].services - RELEASES["1.12.1"].services
    assert found["services"]["go"] == []
    assert set(found["advisories"]["closed"]) == {one.id for one in RELEASES["1.12.1"].advisories}
    assert found["away"]["restarts"] == 1
    assert found["backup"]["folder"] == str(world.machine.home / "backups")
    assert world.done == []
    assert world.machine.files().stored.read_bytes() == before
    assert world.journal() is None
    assert not (world.machine.home / "backups").exists()


def test_a_plan_in_words_names_the_steps_the_notes_and_the_way_back(world: World) -> None:
    del world
    done = upgrade("1.17.1", "--plan")

    assert done.exit_code == 0, done.stderr
    assert "stack dev: Dify 1.12.1 -> 1.17.1" in done.stderr
    assert "   1. back the stack up into" in done.stderr
    assert "   2. deploy Dify 1.17.1" in done.stderr
    assert "1.17.0: Browsers reach the console's collaboration" in done.stderr
    assert "rollback --stack dev" in done.stderr
    assert "nothing was changed" in done.stderr
    assert done.stdout == ""


def test_a_plan_climbs_the_ladder_of_weaviate_and_gets_its_images_first(world: World) -> None:
    world.machine.configure(release="1.14.2", images="registry", vectorStore="weaviate")
    world.written = Written(release="1.14.2", weaviate="1.27.0")

    found = plan_of("1.17.1")

    kinds = [one["kind"] for one in found["steps"]]
    assert kinds == ["fetch", "backup", *["move"] * len(LADDER), "smoke"]
    assert [one["weaviate"] for one in found["steps"] if one["kind"] == "move"] == [*LADDER[:-1], ""]
    tags = {one.rpartition(":")[2] for one in found["images"]["pull"] if "weaviate" in one}
    assert tags == set(LADDER)
    assert found["away"] == {**found["away"], "restarts": 1, "seconds": 45, "streams": 60}


def test_renamed_variables_are_in_the_plan_and_their_values_are_not(world: World) -> None:
    extra = {"api": {"EDITION": "SELF_HOSTED"}, "worker": {"EDITION": "SELF_HOSTED"}}
    world.machine.configure(release="1.12.1", extraEnv=extra)

    found = plan_of("1.17.1")

    assert {(one["service"], one["name"], one["becomes"]) for one in found["variables"]} == {
        ("api", "EDITION", "DEPLOYMENT_EDITION"),
        ("worker", "EDITION", "DEPLOYMENT_EDITION"),
    }
    assert "SELF_HOSTED" not in json.dumps(found)


def test_json_is_of_a_plan_alone(world: World) -> None:
    del world
    done = upgrade("1.17.1", "--json")

    assert done.exit_code == 2
    assert "add --plan" in done.stderr


# Refusals, with nothing changed


def refused(world: World, release: str, *options: str, code: int = 1) -> str:
    """Demand that an upgrade is refused before anything is done, also as a plan; return what it said."""
    before = world.machine.files().stored.read_bytes()
    said = ""
    for more in (("--yes",), ("--plan",)):
        done = upgrade(release, *options, *more)
        assert done.exit_code == code, done.stderr
        assert done.stderr.startswith("error: ")
        said = done.stderr
    assert world.done == []
    assert world.machine.files().stored.read_bytes() == before
    assert not world.machine.files().data.upgrade("dev").exists()
    return said


def test_a_downgrade_is_refused_with_the_way_back(world: World) -> None:
    world.machine.configure(release="1.14.2")
    world.written = Written(release="1.14.2")

    said = refused(world, "1.12.1")

    assert "stack dev has Dify 1.14.2, and Dify cannot migrate data back to 1.12.1" in said
    assert "rollback --stack dev" in said


def test_the_release_of_now_and_an_unknown_one_are_refused(world: World) -> None:
    assert "has Dify 1.12.1 already" in refused(world, "1.12.1")
    said = refused(world, "1.17.9", code=2)
    assert "release 1.17.9 is not in the catalogue" in said
    assert "did you mean" in said


def test_a_stack_that_was_never_deployed_is_refused(world: World) -> None:
    world.written = None

    assert "it has no data to migrate" in refused(world, "1.17.1")


def test_settings_that_are_ahead_of_the_data_are_refused(world: World) -> None:
    world.written = Written(release="1.14.2")

    said = refused(world, "1.17.1")

    assert "the settings say Dify 1.12.1, and its data is of 1.14.2" in said
    assert "set release 1.14.2 --stack dev" in said


def test_a_stack_that_is_not_healthy_is_refused(world: World) -> None:
    world.machine.engine.stack_containers[0] = Container(
        id="api", name="dify-dev-api", service="api", job=False, state="exited", exit_code=1
    )

    assert "api is exited with exit code 1" in refused(world, "1.17.1")
    world.machine.engine.stack_containers = []
    assert "it has no containers" in refused(world, "1.17.1")


def test_settings_that_the_new_release_does_not_take_are_refused(world: World) -> None:
    limits = {"memory": 1 << 30}
    world.machine.configure(release="1.12.1", resources={"api": limits})
    assert "resources.api.memory" in refused(world, "1.17.1")


def test_loaded_images_are_needed_of_every_step_of_the_ladder(world: World) -> None:
    world.machine.configure(release="1.14.2", images="preloaded", vectorStore="weaviate")
    world.written = Written(release="1.14.2", weaviate="1.27.0")
    parts, source = image_needs.Parts(vector_store="weaviate"), wanted.Source(mode="preloaded")
    there = {one.name for one in wanted.wanted(parts, RELEASES["1.17.1"], source)}
    world.machine.engine.existing_images = there

    said = refused(world, "1.17.1")

    assert f"weaviate:{LADDER[0]}" in said
    image = RELEASES["1.17.1"].images["weaviate"].repository
    world.machine.engine.existing_images = there | {f"{image}:{rung}" for rung in LADDER}
    assert [one["kind"] for one in plan_of("1.17.1")["steps"]] == ["backup", *["move"] * len(LADDER), "smoke"]


def test_a_stack_on_kubernetes_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dify_kit.stack.cluster_objects.cluster_objects", lambda _files: object())

    said = refused(world, "1.17.1")

    assert "`upgrade` is not supported on dify:platform kubernetes" in said


def test_no_room_for_the_archive_is_refused(world: World) -> None:
    world.size = 1 << 60

    said = refused(world, "1.17.1")

    assert "the archive may need" in said
    assert "--to" in said


def test_a_directory_that_is_missing_is_refused(world: World, tmp_path: Path) -> None:
    assert "there is no such directory" in refused(world, "1.17.1", "--to", str(tmp_path / "none"))


def test_a_restore_that_did_not_finish_is_refused(world: World) -> None:
    unfinished.mark(world.machine.files(), "/srv/a.dify-backup")

    assert "the restore of stack dev from /srv/a.dify-backup did not finish" in refused(world, "1.17.1")


def test_what_the_backup_refuses_is_refused_and_a_backup_of_ones_own_helps(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def external(*_: object) -> None:
        raise KitError("stack dev has an external database", "back it up with pg_dump")

    monkeypatch.setattr(making, "source", external)

    assert "external database" in refused(world, "1.17.1")
    done = upgrade("1.17.1", "--yes", "--without-backup")
    assert done.exit_code == 0, done.stderr
    assert world.done == ["up 1.17.1", "deployed 1.17.1", "smoke"]
    assert "the kit has no way back" in done.stderr
    taken_back = back("--yes-delete-data-of", "dev")
    assert taken_back.exit_code == 1
    assert "made no backup" in taken_back.stderr


def test_settings_of_ones_own_file_are_upgraded_without_a_backup_alone(world: World) -> None:
    files = world.machine.files()
    files.linked.unlink()
    files.linked.write_text(files.stored.read_text())

    assert "are a file of your own" in refused(world, "1.17.1")


def test_without_a_terminal_the_question_is_answered_by_an_option(world: World) -> None:
    done = upgrade("1.17.1")

    assert done.exit_code == 2
    assert "--yes" in done.stderr
    assert world.done == []
    assert world.journal() is None


def test_a_short_passphrase_is_refused(world: World, tmp_path: Path) -> None:
    (tmp_path / "short").write_text("short")

    done = upgrade("1.17.1", "--yes", "--passphrase-file", str(tmp_path / "short"))

    assert done.exit_code == 1
    assert "has 5 character" in done.stderr
    assert world.done == []
    assert world.journal() is None


# An upgrade


def test_the_stack_is_backed_up_deployed_and_tested_in_this_order(world: World) -> None:
    done = upgrade("1.17.1", "--yes")

    assert done.exit_code == 0, done.stderr
    assert world.done == ["backup", "archive", "examine", "up 1.17.1", "deployed 1.17.1", "smoke"]
    assert world.config()["dify:release"] == "1.17.1"
    found = world.journal()
    assert found
    assert found.state is State.DONE
    assert (found.release, found.target, found.backed_up) == ("1.12.1", "1.17.1", "2026-11-30T07:00:00+00:00")
    last = [line for line in done.stderr.splitlines() if line.strip()][-1]
    assert "to go back to Dify 1.12.1" in last
    assert "rollback --stack dev" in last


def test_the_generated_passphrase_stays_next_to_the_archives_and_is_private(world: World) -> None:
    assert upgrade("1.14.2", "--yes").exit_code == 0
    path = world.machine.home / "backups" / "passphrase"
    first = path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700

    assert upgrade("1.17.1", "--yes").exit_code == 0

    assert path.read_text() == first
    found = world.journal()
    assert found
    assert found.passphrase_file == str(path)
    assert len(list(path.parent.glob("*.dify-backup"))) == 2
    assert first.strip() not in world.machine.files().data.upgrade("dev").read_text()


def test_renamed_variables_change_with_the_release_and_others_stay(world: World) -> None:
    extra = {"api": {"EDITION": "SELF_HOSTED", "LOG_LEVEL": "DEBUG"}}
    world.machine.configure(release="1.12.1", extraEnv=extra)

    assert upgrade("1.17.1", "--yes").exit_code == 0

    assert world.config()["dify:extraEnv"] == {
        "api": {"DEPLOYMENT_EDITION": "COMMUNITY", "LOG_LEVEL": "DEBUG"}
    }


def test_the_ladder_is_climbed_one_deployment_each_and_the_setting_is_gone_at_the_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.machine.configure(release="1.14.2", images="registry", vectorStore="weaviate")
    world.written = Written(release="1.14.2", weaviate="1.27.0")
    store = Store()
    monkeypatch.setattr(wanted, "ImageStore", lambda: store)

    done = upgrade("1.17.1", "--yes")

    assert done.exit_code == 0, done.stderr
    ups = [one for one in world.done if one.startswith("up")]
    assert ups == [*(f"up 1.17.1 {rung}" for rung in LADDER[:-1]), "up 1.17.1"]
    assert "dify:weaviateVersion" not in world.config()
    assert world.written == Written(release="1.17.1", weaviate="1.39.2")
    assert set(LADDER) <= {one.rpartition(":")[2] for one in store.fetched}


class Store:
    """Has no image, and gets every one."""

    def __init__(self, problem: str = "") -> None:
        self.fetched: list[str] = []
        self._problem = problem

    def find(self, reference: str) -> object:
        return reference if reference in self.fetched else None

    def fetch(self, one: wanted.Wanted) -> None:
        if self._problem:
            raise KitError(f"cannot pull {one.reference}: {self._problem}")
        self.fetched.append(one.reference)


def test_an_image_that_cannot_be_had_ends_it_before_anything_is_changed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.machine.configure(release="1.12.1", images="registry")
    monkeypatch.setattr(wanted, "ImageStore", lambda: Store("no route to host"))
    before = world.machine.files().stored.read_bytes()

    done = upgrade("1.17.1", "--yes")

    assert done.exit_code == 1
    assert "step 1 of 4 (get the images that are missing); nothing of the stack was changed" in done.stderr
    assert world.done == []
    assert world.machine.files().stored.read_bytes() == before


def test_a_migration_that_fails_leaves_the_stack_and_names_both_ways(world: World) -> None:
    world.fail = KitError("deploying stack dev failed\n  migration: exit code 1", "see its log")

    done = upgrade("1.17.1", "--yes")

    assert done.exit_code == 1
    assert "stopped in step 2 of 3 (deploy Dify 1.17.1): deploying stack dev failed" in done.stderr
    assert "upgrade 1.17.1 --stack dev` continues there" in done.stderr
    assert "rollback --stack dev` goes back to Dify 1.12.1. see its log" in done.stderr
    assert world.config()["dify:release"] == "1.17.1"
    again = upgrade("1.17.1")
    assert again.exit_code == 0, again.stderr
    assert world.done[3:] == ["up 1.17.1", "up 1.17.1", "deployed 1.17.1", "smoke"]


def test_smoke_tests_that_fail_leave_the_stack_and_can_be_repeated_or_left_out(world: World) -> None:
    world.smoke = 1

    done = upgrade("1.17.1", "--yes")

    assert done.exit_code == 1
    assert "stack dev runs Dify 1.17.1, and its smoke tests failed: 1 failed" in done.stderr
    assert "--without-smoke ends the upgrade here" in done.stderr
    assert "rollback --stack dev` goes back to Dify 1.12.1" in done.stderr
    assert upgrade("1.17.1").exit_code == 1
    assert world.done[-2:] == ["smoke", "smoke"]
    accepted = upgrade("1.17.1", "--without-smoke")
    assert accepted.exit_code == 0, accepted.stderr
    assert world.done[-1] == "smoke"
    found = world.journal()
    assert found
    assert found.state is State.DONE


def test_an_interrupted_deployment_keeps_its_exit_code(world: World) -> None:
    world.fail = CancelledError("deploying stack dev was stopped: SIGINT")

    done = upgrade("1.17.1", "--yes")

    assert done.exit_code == 130
    assert "continues there" in done.stderr


# Interruption

PLACES = ("backup", "archive", "examine", "up 1.17.1", "deployed 1.17.1", "smoke")


@pytest.mark.parametrize("place", PLACES)
def test_killed_at_any_step_the_same_command_continues_and_repeats_no_step_that_is_done(
    world: World, place: str
) -> None:
    world.kill_at = place
    with pytest.raises(Killed):
        CliRunner().invoke(app, ["upgrade", "1.17.1", "--stack", "dev", "--yes"], catch_exceptions=False)
    running_journal = world.journal()
    assert running_journal
    assert running_journal.state is State.RUNNING
    world.done.clear()

    done = upgrade("1.17.1")

    assert done.exit_code == 0, done.stderr
    assert "continuing the upgrade of stack dev to Dify 1.17.1" in done.stderr
    in_order = ["up 1.12.1", "deployed 1.12.1"]
    moved = ["up 1.17.1", "deployed 1.17.1"]
    assert (
        world.done
        == {
            "backup": [*in_order, "backup", "archive", "examine", *moved, "smoke"],
            "archive": [*in_order, "examine", *moved, "smoke"],
            "examine": [*in_order, "examine", *moved, "smoke"],
            "up 1.17.1": [*moved, "smoke"],
            "deployed 1.17.1": [*moved, "smoke"],
            "smoke": ["smoke"],
        }[place]
    )
    assert world.config()["dify:release"] == "1.17.1"
    assert len(world.archives) == 1


@pytest.mark.parametrize("place", PLACES)
def test_killed_at_any_step_rollback_brings_back_what_was(world: World, place: str) -> None:
    extra = {"api": {"EDITION": "SELF_HOSTED"}}
    world.machine.configure(release="1.12.1", extraEnv=extra)
    before = world.config()
    world.kill_at = place
    with pytest.raises(Killed):
        CliRunner().invoke(app, ["upgrade", "1.17.1", "--stack", "dev", "--yes"], catch_exceptions=False)
    world.done.clear()

    done = back("--yes-delete-data-of", "dev")

    assert done.exit_code == 0, done.stderr
    assert world.config() == before
    assert world.written == Written(release="1.12.1")
    assert world.journal() is None
    assert (
        world.done
        == {
            "backup": [],
            "archive": [],
            "examine": [],
            # The settings were changed, the data was not.
            "up 1.17.1": ["up 1.12.1", "deployed 1.12.1"],
            "deployed 1.17.1": ["examine", "restore", "up 1.12.1", "deployed 1.12.1"],
            "smoke": ["examine", "restore", "up 1.12.1", "deployed 1.12.1"],
        }[place]
    )


def test_killed_on_the_ladder_the_climb_continues_at_the_same_rung(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.machine.configure(release="1.14.2", images="registry", vectorStore="weaviate")
    world.written = Written(release="1.14.2", weaviate="1.27.0")
    monkeypatch.setattr(wanted, "ImageStore", Store)
    world.kill_at = f"deployed 1.17.1 {LADDER[4]}"
    with pytest.raises(Killed):
        CliRunner().invoke(app, ["upgrade", "1.17.1", "--stack", "dev", "--yes"], catch_exceptions=False)
    world.done.clear()

    assert upgrade("1.17.1").exit_code == 0

    ups = [one for one in world.done if one.startswith("up")]
    assert ups == [*(f"up 1.17.1 {rung}" for rung in LADDER[4:-1]), "up 1.17.1"]


def test_another_release_is_refused_until_the_one_under_way_is_complete(world: World) -> None:
    world.kill_at = "up 1.14.2"
    with pytest.raises(Killed):
        CliRunner().invoke(app, ["upgrade", "1.14.2", "--stack", "dev", "--yes"], catch_exceptions=False)
    world.done.clear()

    done = upgrade("1.17.1", "--yes")

    assert done.exit_code == 1
    assert "an upgrade of stack dev to Dify 1.14.2 is not complete: it is in step 2 of 3" in done.stderr
    assert world.done == []
    shown = upgrade("1.14.2", "--plan")
    assert shown.exit_code == 0
    assert "is in step 2 of 3" in shown.stderr
    assert world.done == []


# The way back


@pytest.fixture
def upgraded(world: World) -> World:
    """A stack whose upgrade to 1.14.2 is complete."""
    assert upgrade("1.14.2", "--yes").exit_code == 0
    world.done.clear()
    return world


def test_a_complete_upgrade_is_taken_back_and_what_is_lost_is_said(upgraded: World) -> None:
    done = back("--yes-delete-data-of", "dev")

    assert done.exit_code == 0, done.stderr
    assert upgraded.done == ["examine", "restore", "up 1.12.1", "deployed 1.12.1"]
    assert upgraded.config()["dify:release"] == "1.12.1"
    assert "goes from Dify 1.14.2 back to 1.12.1" in done.stderr
    assert (
        "lost: conversations, files, accounts, keys and settings of after 2026-11-30 07:00:00 UTC"
        in done.stderr
    )
    assert upgraded.journal() is None
    assert len(list((upgraded.machine.home / "backups").glob("*.dify-backup"))) == 1
    again = back("--yes-delete-data-of", "dev")
    assert again.exit_code == 1
    assert "has no upgrade to take back" in again.stderr


def test_a_protected_stack_is_taken_back_too(upgraded: World) -> None:
    wishes: list[restoring.Wish] = []
    config = yaml.safe_load(upgraded.machine.files().stored.read_text())
    config["config"]["dify:protect"] = True
    upgraded.machine.files().stored.write_text(yaml.safe_dump(config))

    def restore(wish: restoring.Wish, *_: object, **__: object) -> None:
        wishes.append(wish)
        restoring._refuse_other_data(wish, upgraded.machine.files(), upgraded.machine.engine)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(restoring, "restore", restore)
        done = back("--yes-delete-data-of", "dev")

    assert done.exit_code == 0, done.stderr
    assert [(one.replace, one.rollback, one.stack, one.release) for one in wishes] == [
        (True, True, "dev", "")
    ]


def test_the_name_is_typed_before_data_is_replaced(upgraded: World) -> None:
    asked = back()
    wrong = back("--yes-delete-data-of", "other")

    assert (asked.exit_code, wrong.exit_code) == (2, 2)
    assert "--yes-delete-data-of dev" in asked.stderr
    assert "does not name the stack that goes back (dev)" in wrong.stderr
    assert upgraded.done == []
    assert upgraded.config()["dify:release"] == "1.14.2"


def test_an_archive_that_is_gone_is_named_and_nothing_changes(upgraded: World) -> None:
    [archive] = (upgraded.machine.home / "backups").glob("*.dify-backup")
    archive.unlink()

    done = back("--yes-delete-data-of", "dev")

    assert done.exit_code == 1
    assert f"the archive {archive} is not there any more; nothing was changed" in done.stderr
    assert upgraded.done == []


def test_the_archive_of_another_stack_is_refused(upgraded: World, monkeypatch: pytest.MonkeyPatch) -> None:
    about = SimpleNamespace(stack="other", release="1.12.1", created="")
    monkeypatch.setattr(restoring, "examine", lambda *_: SimpleNamespace(about=about))

    done = back("--yes-delete-data-of", "dev")

    assert done.exit_code == 1
    assert "is of stack other with Dify 1.12.1" in done.stderr
    assert upgraded.done == []


def test_how_this_machine_reaches_its_engine_stays_as_it_was(world: World) -> None:
    wishes: list[restoring.Wish] = []
    path = world.machine.files().stored
    document = yaml.safe_load(path.read_text())
    document["config"]["docker:host"] = "unix:///var/run/docker.sock"
    path.write_text(yaml.safe_dump(document))
    assert upgrade("1.14.2", "--yes").exit_code == 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(restoring, "restore", lambda wish, *_, **__: wishes.append(wish))
        assert back("--yes-delete-data-of", "dev").exit_code == 0

    assert [one.machine for one in wishes] == [{"docker:host": "unix:///var/run/docker.sock"}]


@pytest.mark.parametrize("place", ["restore", "up 1.12.1", "deployed 1.12.1"])
def test_a_rollback_that_was_killed_is_continued_by_itself_alone(upgraded: World, place: str) -> None:
    upgraded.kill_at = place
    with pytest.raises(Killed):
        CliRunner().invoke(
            app, ["rollback", "--stack", "dev", "--yes-delete-data-of", "dev"], catch_exceptions=False
        )
    other = upgrade("1.14.2", "--yes")
    assert other.exit_code == 1
    assert "is being taken back" in other.stderr
    upgraded.done.clear()

    done = back("--yes-delete-data-of", "dev")

    assert done.exit_code == 0, done.stderr
    deployed = ["up 1.12.1", "deployed 1.12.1"]
    # Once the data is complete it is not restored a second time: what was written since would be lost.
    assert upgraded.done == (["examine", "restore", *deployed] if place == "restore" else deployed)
    assert upgraded.written == Written(release="1.12.1")
    assert upgraded.journal() is None


def test_up_names_rollback_where_one_did_not_finish(upgraded: World) -> None:
    upgraded.kill_at = "restore"
    with pytest.raises(Killed):
        CliRunner().invoke(
            app, ["rollback", "--stack", "dev", "--yes-delete-data-of", "dev"], catch_exceptions=False
        )

    done = CliRunner().invoke(app, ["up", "--stack", "dev", "--skip-setup"])

    assert done.exit_code == 1
    assert "did not finish: its data is not complete" in done.stderr
    assert "rollback --stack dev" in done.stderr


def test_a_stack_without_an_upgrade_has_none_to_take_back(world: World) -> None:
    done = back()

    assert done.exit_code == 1
    assert "stack dev has no upgrade to take back" in done.stderr
    assert world.done == []
