"""The data directories of `backup verify`: gone with the run, and after one that was killed by the next."""

import os
from pathlib import Path

import pytest

from dify_kit.backup import verify_homes
from dify_kit.errors import KitError
from dify_kit.workspace.files import DataDir


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data directory of this machine."""
    monkeypatch.setenv(verify_homes.HOME, str(tmp_path / "data"))
    monkeypatch.setenv("PULUMI_BACKEND_URL", "s3://state")
    return tmp_path / "data"


def abandon(data: Path, name: str) -> Path:
    """Leave what a run leaves that is killed."""
    with verify_homes.home(f"{name}-other"):
        DataDir.locate().prepare()
    folder = data / "verifying"
    (folder / name / "runs").mkdir(parents=True)
    (folder / name / "passphrase").write_text("secret")
    (folder / f"{name}.lock").touch()
    return folder


def test_a_run_has_a_directory_of_its_own_until_its_end(data: Path) -> None:
    inside = list[tuple[Path, bool, int]]()

    def run() -> None:
        with verify_homes.home("verify-a"):
            DataDir.locate().prepare()
            root = DataDir.locate().root
            inside.append((root, "PULUMI_BACKEND_URL" in os.environ, root.stat().st_mode & 0o777))
            raise KitError("it does not do")

    with pytest.raises(KitError):
        run()

    assert inside == [(data / "verifying" / "verify-a", False, 0o700)]
    assert DataDir.locate().root == data
    assert os.environ["PULUMI_BACKEND_URL"] == "s3://state"
    assert [path.name for path in (data / "verifying").iterdir()] == [".lock"]


def test_what_a_killed_run_left_is_removed_with_its_stack_and_one_that_runs_is_not(data: Path) -> None:
    folder = abandon(data, "verify-a")
    removed = []

    def remove(name: str) -> None:
        removed.append((name, DataDir.locate().root))

    with verify_homes.home("verify-b"):
        DataDir.locate().prepare()
        os.environ[verify_homes.HOME] = str(data)
        verify_homes.remove_abandoned(remove)
        assert (folder / "verify-b" / "runs").exists()

    assert removed == [("verify-a", folder / "verify-a")]
    assert not (folder / "verify-a").exists()
    assert [path.name for path in folder.glob("verify-*.lock")] == []


def test_what_cannot_be_removed_is_tried_again_by_the_next_run(data: Path) -> None:
    folder = abandon(data, "verify-a")

    def refuse(_name: str) -> None:
        raise KitError("the engine does not answer")

    with pytest.raises(KitError):
        verify_homes.remove_abandoned(refuse)

    assert (folder / "verify-a" / "passphrase").exists()
    assert (folder / "verify-a.lock").exists()
    verify_homes.remove_abandoned(lambda _name: None)
    assert not (folder / "verify-a").exists()
