"""`backup` and `restore` before they change anything, and the mark of a restore that did not finish."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dify_kit.__main__ import app
from dify_kit.backup import making, restoring
from dify_kit.backup.settings_part import SECRET
from dify_kit.containers.docker_host import Container
from dify_kit.stack import unfinished
from infra.settings.secrets import SHAPES
from tests.unit.backup.archives import PASSPHRASE, archive, quick, settings
from tests.unit.cli.conftest import Machine
from tests.unit.cluster_api import CONTEXT, Api, served

PLAIN = {"adminEmail": "a@example.com", "images": "local", "vectorStore": "pgvector"}


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    with quick():
        yield


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    (folder / "passphrase").write_text(f"{PASSPHRASE}\n")
    return archive(folder / "a.dify-backup", {"stack/settings.json": settings(httpPort="x")})


@pytest.fixture(autouse=True)
def _one_engine(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    for command in ("backup", "restore", "forget"):
        monkeypatch.setattr(f"dify_kit.commands.{command}.DockerEngine", lambda: machine.engine)


def restore(path: Path, *options: str) -> Result:
    secret = str(path.with_name("passphrase"))
    return CliRunner().invoke(
        app, ["restore", str(path), "--skip-setup", "--passphrase-file", secret, *options]
    )


def test_a_stack_that_is_there_is_not_replaced(machine: Machine, path: Path) -> None:
    stored = machine.configure("old")
    before = stored.read_bytes()

    done = restore(path)

    assert done.exit_code == 1
    assert "stack old exists already" in done.stderr
    assert "--replace old" in done.stderr
    assert stored.read_bytes() == before
    assert not machine.files("old").data.restoring("old").exists()


def test_the_name_of_what_is_replaced_is_typed(machine: Machine, path: Path) -> None:
    machine.configure("old")

    done = restore(path, "--replace", "another")

    assert done.exit_code == 2
    assert "--replace another does not name the stack that is made (old)" in done.stderr
    assert machine.engine.removed == []


def test_a_protected_stack_is_not_replaced(machine: Machine, path: Path) -> None:
    stored = machine.configure("old", protect=True)

    done = restore(path, "--replace", "old")

    assert done.exit_code == 1
    assert "stack old is protected (dify:protect is true): it is not replaced" in done.stderr
    assert stored.exists()
    assert machine.engine.removed == []


def test_settings_that_cannot_work_are_refused_before_the_stack_is_deleted(
    machine: Machine, path: Path
) -> None:
    stored = machine.configure("old")
    machine.engine.existing_volumes = {"dify-old-postgres"}

    done = restore(path, "--replace", "old")

    assert done.exit_code == 1
    assert "dify:httpPort" in done.stderr
    assert stored.exists()
    assert machine.engine.removed == []
    assert machine.calls("stack", "init") == []


def test_data_without_settings_is_not_taken_over(machine: Machine, path: Path) -> None:
    machine.engine.existing_volumes = {"dify-old-postgres"}

    done = restore(path)

    assert done.exit_code == 1
    assert "an earlier stack of this name left" in done.stderr
    assert machine.engine.removed == []


def test_an_older_release_is_refused(machine: Machine, path: Path) -> None:
    del machine
    done = restore(path, "--release", "1.12.1")

    assert done.exit_code == 1
    assert "has no way back; nothing was changed" in done.stderr


def test_a_wrong_passphrase_changes_nothing(machine: Machine, path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("another passphrase")

    done = CliRunner().invoke(app, ["restore", str(path), "--passphrase-file", str(other)])

    assert done.exit_code == 1
    assert "the passphrase does not open" in done.stderr
    assert machine.files().data.stack_names() == []


def test_without_a_terminal_a_file_with_the_passphrase_is_needed(machine: Machine, path: Path) -> None:
    del machine
    done = CliRunner().invoke(app, ["restore", str(path)])

    assert done.exit_code == 2
    assert "--passphrase-file" in done.stderr


def test_up_refuses_a_stack_that_is_not_complete_and_forget_removes_the_mark(machine: Machine) -> None:
    machine.configure("old")
    files = machine.files("old")
    unfinished.mark(files, "/srv/a.dify-backup")

    done = CliRunner().invoke(app, ["up", "--stack", "old", "--skip-setup"])

    assert done.exit_code == 1
    assert "the restore of stack old from /srv/a.dify-backup did not finish" in done.stderr
    assert "restore /srv/a.dify-backup --stack old" in done.stderr
    assert machine.calls("up") == []
    backed_up = CliRunner().invoke(app, ["backup", "--stack", "old"])
    assert "did not finish" in backed_up.stderr
    assert "forget" not in {call["args"][0] for call in machine.calls()}
    forgotten = CliRunner().invoke(app, ["forget", "old", "--yes", "old"])
    assert forgotten.exit_code == 0, forgotten.stderr
    assert unfinished.archive_of(files) == ""


def test_a_damaged_mark_counts(machine: Machine) -> None:
    files = machine.files("old")
    files.data.restoring("old").write_text("{")

    assert unfinished.archive_of(files) == "the archive"


def test_a_cluster_that_is_not_named_is_refused_before_anything_is_changed(
    machine: Machine, path: Path, tmp_path: Path
) -> None:
    sound = archive(tmp_path / "b.dify-backup", {"stack/settings.json": settings()})
    (tmp_path / "passphrase").write_text(f"{PASSPHRASE}\n")

    done = restore(sound, "--set", "platform=kubernetes", "--set", "kubernetes.registry=preloaded")

    assert path
    assert done.exit_code == 1
    assert "kubernetes.context" in done.stderr
    assert not machine.files("old").configured()
    assert machine.calls() == []


def test_a_cluster_is_looked_at_before_anything_is_changed(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_engine() -> None:
        raise AssertionError("no Docker engine is needed")

    monkeypatch.setattr("dify_kit.commands.restore.DockerEngine", no_engine)
    generated = {key: {SECRET: shape.generate()} for key, shape in SHAPES.items() if shape.generate}
    sound = archive(tmp_path / "b.dify-backup", {"stack/settings.json": settings(**PLAIN, **generated)})
    (tmp_path / "passphrase").write_text(f"{PASSPHRASE}\n")
    with served(tmp_path) as kubeconfig:
        theirs = {"metadata": {"name": "dify-old", "labels": {"dify-kit.stack": "another"}}}
        Api.answers["GET", "/api/v1/namespaces/dify-old"] = (200, theirs)
        Api.answers["GET", "/api/v1/namespaces/dify-old/persistentvolumeclaims"] = (200, {"items": []})

        done = restore(
            sound,
            *("--set", "platform=kubernetes", "--set", f"kubernetes.kubeconfig={kubeconfig}"),
            *("--set", f"kubernetes.context={CONTEXT}", "--set", "kubernetes.registry=preloaded"),
        )

    assert done.exit_code == 1
    assert "'dify-old' exists and is not this stack's" in done.stderr
    assert not machine.files("old").configured()
    assert {method for method, _, _ in Api.requests} == {"GET"}


@pytest.mark.parametrize("item", ["platform", "=x", "kubernetes.context=null"])
def test_another_form_of_set_is_usage_or_text(machine: Machine, path: Path, item: str) -> None:
    done = restore(path, "--set", item)

    assert machine
    assert done.exit_code == (1 if item.endswith("null") else 2)


# backup


def database(stack: str, state: str = "running") -> Container:
    return Container(id="db", name=f"dify-{stack}-db-postgres", service="db-postgres", job=False, state=state)


def backup(*options: str) -> Result:
    return CliRunner().invoke(app, ["backup", *options])


def test_a_stack_whose_database_does_not_run_cannot_be_backed_up(
    machine: Machine, path: Path, tmp_path: Path
) -> None:
    machine.configure("dev")
    machine.engine.stack_containers = [database("dev", "exited")]

    done = backup("--passphrase-file", str(path.with_name("passphrase")), "--to", str(tmp_path / "a"))

    assert done.exit_code == 1
    assert "db-postgres, pgvector does not run" in done.stderr
    assert "up --stack dev" in done.stderr
    assert not (tmp_path / "a").exists()


def test_an_external_database_is_refused(machine: Machine, path: Path, tmp_path: Path) -> None:
    machine.configure(
        "dev",
        database={"host": "db.example.com", "tls": "require"},
        externalDatabasePassword={"secure": "v1:x"},
    )

    done = backup("--passphrase-file", str(path.with_name("passphrase")), "--to", str(tmp_path / "a"))

    assert done.exit_code == 1
    assert "external database" in done.stderr


def test_a_short_passphrase_is_refused(machine: Machine, tmp_path: Path) -> None:
    machine.configure("dev")
    (tmp_path / "short").write_text("short")

    done = backup("--passphrase-file", str(tmp_path / "short"), "--to", str(tmp_path / "a"))

    assert done.exit_code == 1
    assert "has 5 character" in done.stderr


def test_a_stack_without_settings_cannot_be_backed_up(machine: Machine) -> None:
    del machine
    done = backup("--stack", "none")

    assert done.exit_code == 1
    assert "does not exist on this machine" in done.stderr


def test_status_shows_the_last_backup(machine: Machine) -> None:
    files = machine.files("dev")
    record = {"created": "2026-11-30T07:00:00+00:00", "target": "-"}
    files.data.backup("dev").write_text(json.dumps(record))
    from dify_kit.watch.status import _last_backup  # noqa: PLC0415

    found = _last_backup(files)
    assert found
    assert found.isoformat() == record["created"]
    files.data.backup("dev").write_text("{}")
    assert _last_backup(files) is None


def test_the_vectors_that_are_left_out_are_named() -> None:
    assert {"weaviate", "qdrant"} == making.STOPPED_FOR_A_COPY
    assert restoring.DATA_TIER_SECONDS > 0
