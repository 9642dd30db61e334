"""The journal of an upgrade: what it holds, who can read it, and what becomes of one that is damaged."""

import json
import stat
from pathlib import Path

import pytest

from dify_kit.errors import KitError
from dify_kit.upgrade import journal as journals
from dify_kit.upgrade.journal import Journal, Kind, State, Step
from dify_kit.upgrade.path import Move, Written
from dify_kit.workspace.files import StackFiles

STEPS = (
    Step(kind=Kind.FETCH),
    Step(kind=Kind.BACKUP),
    Step(kind=Kind.MOVE, release="1.17.1", weaviate="1.38.13"),
    Step(kind=Kind.MOVE, release="1.17.1"),
    Step(kind=Kind.SMOKE),
)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StackFiles:
    monkeypatch.setenv("DIFY_KIT_HOME", str(tmp_path / "home"))
    found = StackFiles.look("dev")
    found.data.prepare()
    return found


def journal(**changed: object) -> Journal:
    fields: dict[str, object] = {
        "stack": "dev",
        "began": "2026-11-30T07:00:00+00:00",
        "release": "1.14.2",
        "weaviate_version": "",
        "written": Written(release="1.14.2", weaviate="1.27.0"),
        "target": "1.17.1",
        "steps": STEPS,
        "archive": "/srv/a.dify-backup",
        "passphrase_file": "/srv/passphrase",
        "settings": "config:\n  dify:release: 1.14.2\n",
    }
    return Journal(**{**fields, **changed})  # type: ignore[arg-type]


def test_what_was_written_is_read_again_and_no_other_user_can(files: StackFiles) -> None:
    written = journal().save(files, at=2, seconds={"0": 1.5, "1": 12.0}, away=3.5)

    assert journals.load(files) == written
    assert stat.S_IMODE(files.data.upgrade("dev").stat().st_mode) == 0o600
    assert [path.name for path in files.data.runs.iterdir()] == ["dev.upgrade"]
    journals.remove(files)
    assert journals.load(files) is None
    journals.remove(files)


@pytest.mark.parametrize(("at", "changed"), [(0, False), (1, False), (2, True), (3, True), (4, True)])
def test_the_stack_counts_as_changed_from_the_first_deployment_on(at: int, changed: bool) -> None:
    assert journal(at=at).moved() is changed


def test_a_step_says_what_it_does_and_where_it_leads() -> None:
    found = journal(at=2)

    assert found.place() == "step 3 of 5 (deploy Dify 1.17.1 with Weaviate 1.38.13)"
    assert journal(at=len(STEPS)).place() == "its end"
    assert found.step.move == Move(release="1.17.1", weaviate="1.38.13")
    assert [one.text() for one in (STEPS[0], STEPS[1], STEPS[3], STEPS[4])] == [
        "get the images that are missing",
        "back the stack up",
        "deploy Dify 1.17.1",
        "run the smoke tests",
    ]


def test_settings_are_not_shown_with_a_journal() -> None:
    assert "dify:release" not in repr(journal())


@pytest.mark.parametrize(
    "damage",
    [
        "{",
        "[]",
        "{}",
        json.dumps({"format": 2}),
        json.dumps({"format": 1, "stack": "dev"}),
        json.dumps({"format": 1, "steps": [{"kind": "dance"}], "written": {"release": "1.12.1"}}),
    ],
)
def test_a_damaged_journal_is_named_with_what_is_left_to_do(files: StackFiles, damage: str) -> None:
    files.data.upgrade("dev").write_text(damage)

    with pytest.raises(KitError, match="cannot be read") as refused:
        journals.load(files)

    assert str(files.data.upgrade("dev")) in refused.value.message
    assert "move it away" in refused.value.hint


def test_the_states_are_those_of_the_file(files: StackFiles) -> None:
    for state in State:
        found = journal().save(files, state=state)
        assert json.loads(files.data.upgrade("dev").read_text())["state"] == state.value
        assert journals.load(files) == found
