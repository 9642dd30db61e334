"""`dify-kit keys rotate` for the secrets of the data tier and of Dify's services: what is written, said and refused."""

import json
from typing import Any

import pytest
import yaml
from typer.testing import Result

from dify_kit.checks import published
from infra.settings.rotations import ROTATED
from infra.settings.secrets import SHAPES
from tests.unit.cli.conftest import Machine
from tests.unit.cli.test_cli import run as run_kit


def run(*arguments: str) -> Result:
    return run_kit("keys", "rotate", *arguments)


@pytest.fixture(autouse=True)
def _nothing_published(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "ensure", lambda *_: None)


def deploy(machine: Machine, rotations: dict[str, int] | None = None) -> None:
    """Write a state whose exports say how often each secret was rotated."""
    outputs = {"publicUrl": "http://localhost:8080", "secretRotations": rotations or {}}
    kind = "pulumi:pulumi:Stack"
    stack = {"urn": f"urn:pulumi:dev::dify::{kind}::dify-dev", "type": kind, "outputs": outputs}
    machine.state(resources=[{"urn": "urn:pulumi:dev::dify::docker:x::y", "type": "docker:x"}, stack])


def written(machine: Machine) -> list[dict[str, Any]]:
    """Return what each `pulumi config set-all` wrote."""
    return [
        json.loads(call["environment"]["PULUMI_OPTION_JSON"]) for call in machine.calls("config", "set-all")
    ]


NAMES = [name for name in ROTATED if name != "vector-store"]


@pytest.mark.parametrize("name", NAMES)
def test_a_rotation_writes_new_values_and_its_number_together_and_deploys(
    machine: Machine, name: str
) -> None:
    machine.configure(secretRotations={name: 3})
    deploy(machine, {name: 3})

    done = run(name)

    assert done.exit_code == 0, done.output
    (entries,) = written(machine)
    assert entries.keys() == {*(f"dify:{key}" for key in ROTATED[name]), "dify:secretRotations"}
    for key in ROTATED[name]:
        entry = entries[f"dify:{key}"]
        assert entry["secret"]
        assert SHAPES[key].problem(entry["value"]) is None
        assert entry["value"] not in done.output
        assert all(entry["value"] not in " ".join(call["args"]) for call in machine.calls())
    stored = yaml.safe_load(machine.files().stored.read_text())["config"]
    assert stored["dify:secretRotations"] == {name: 4}
    assert len(machine.calls("up")) == 1
    # What does not answer is said before anything is deployed.
    said = done.stderr
    assert said.index(f"{name}: ") < said.index("deploying stack dev") < said.index(f"{name} is rotated")


def test_no_two_rotations_make_the_same_value(machine: Machine) -> None:
    machine.configure()
    values = set()
    for number in range(3):
        deploy(machine, {"redis": number} if number else {})
        assert run("redis").exit_code == 0
        values.add(written(machine)[-1]["dify:redisPassword"]["value"])

    assert len(values) == 3


@pytest.mark.parametrize("exported", [{}, {"redis": 1}])
def test_a_rotation_that_was_cut_off_is_continued_with_the_value_that_it_made(
    machine: Machine, exported: dict[str, int]
) -> None:
    machine.configure(secretRotations={"redis": 2})
    deploy(machine, exported)

    done = run("redis")

    assert done.exit_code == 0, done.output
    assert written(machine) == []
    assert len(machine.calls("up")) == 1
    assert "continuing it" in done.stderr


def test_a_failed_deployment_says_what_completes_the_rotation(machine: Machine) -> None:
    machine.configure()
    deploy(machine)
    machine.play(up={"code": 255, "stderr": "error: no space\n"})

    done = run("database")

    assert done.exit_code == 1
    assert "the rotation of database is not complete: the same command completes it" in done.stderr
    assert "database is rotated" not in done.stderr
    assert len(written(machine)) == 1
    machine.play()
    again = run("database")
    assert again.exit_code == 0, again.output
    assert len(written(machine)) == 1


def test_any_up_completes_it_and_generates_nothing(machine: Machine) -> None:
    machine.configure(secretRotations={"redis": 2})
    deploy(machine, {"redis": 1})

    assert run_kit("up", "--skip-setup").exit_code == 0

    assert written(machine) == []


DATABASE = {"host": "db.example.com", "ownDataMoved": True}
REFUSALS = [
    ({"database": DATABASE}, "database", "db.example.com:5432", "set externalDatabasePassword --stack dev"),
    (
        {"redis": {"host": "cache.example.com"}},
        "redis",
        "cache.example.com:6379",
        "set externalRedisPassword",
    ),
    (
        {"vectorServer": {"host": "vectors.example.com", "user": "dify", "ownDataMoved": True}},
        "vector-store",
        "vectors.example.com:5432",
        "set externalVectorPassword",
    ),
    ({}, "vector-store", "pgvector has the password of the database", "keys rotate database --stack dev"),
    ({"release": "1.12.1"}, "agent", "Dify 1.12.1 has no agent backend", "no such secret"),
    ({}, "secret-key", "SECRET_KEY is not rotated", "docs/guides/rotation.md#secret_key"),
    ({}, "secretKey", "become unreadable", "docs/guides/rotation.md#secret_key"),
]


@pytest.mark.parametrize(("settings", "name", "reason", "fix"), REFUSALS)
def test_what_cannot_be_rotated_is_refused_with_the_reason_and_nothing_changes(
    machine: Machine, settings: dict[str, Any], name: str, reason: str, fix: str
) -> None:
    names = (f"external{key.removesuffix('Server').capitalize()}Password" for key in settings)
    external: dict[str, Any] = {key: {"secure": "v1:x"} for key in names if key in SHAPES}
    machine.configure(**settings, **external)
    deploy(machine)

    done = run(name)

    assert done.exit_code == 1, done.output
    assert reason in done.stderr
    assert "othing was changed" in done.stderr
    assert fix in done.stderr
    assert machine.calls("config") == []
    assert machine.calls("up") == []


def test_pgvector_beside_an_external_database_has_a_rotation_of_its_own(machine: Machine) -> None:
    machine.configure(database=DATABASE, externalDatabasePassword={"secure": "v1:x"})
    deploy(machine)

    done = run("vector-store")

    assert done.exit_code == 0, done.output
    assert written(machine)[0].keys() == {"dify:postgresPassword", "dify:secretRotations"}


@pytest.mark.parametrize("store", ["weaviate", "qdrant"])
def test_the_key_of_a_vector_store_says_what_fails(machine: Machine, store: str) -> None:
    machine.configure(images="preloaded", vectorStore=store)
    deploy(machine)

    done = run("vector-store")

    assert f"{store.capitalize()} restarts" in done.stderr
    assert "Searches in knowledge fail" in done.stderr
    assert written(machine)[0].keys() == {"dify:vectorStoreApiKey", "dify:secretRotations"}


def test_a_stack_that_is_not_deployed_keeps_its_secrets(machine: Machine) -> None:
    machine.configure()

    done = run("redis")

    assert done.exit_code == 1
    assert "is not deployed" in done.stderr
    assert "dify-kit up --stack dev`" in done.stderr
    assert machine.calls("config", "set-all") == []


@pytest.mark.parametrize(
    "options", [["--stdin"], ["--no-overlap"], ["--wait", "1"], ["--json"]], ids=lambda one: one[0]
)
def test_options_of_other_keys_are_refused(machine: Machine, options: list[str]) -> None:
    machine.configure()
    deploy(machine)

    done = run("admin", *options)

    assert done.exit_code == 2
    assert machine.calls() == []


def test_help_names_everything_that_can_be_rotated() -> None:
    said = " ".join(run("--help").stdout.split())

    for name in (*ROTATED, "dify", "signing", "SECRET_KEY"):
        assert name in said


def test_a_secret_that_is_set_names_its_rotation(machine: Machine) -> None:
    machine.configure()

    done = run_kit("set", "pluginInnerApiKey", "--generate")

    assert done.exit_code == 2
    assert "dify-kit keys rotate plugin --stack dev" in done.stderr
