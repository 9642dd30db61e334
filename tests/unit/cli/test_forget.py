"""Forgetting a stack: what goes, what stays, and when it refuses."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dify_kit.__main__ import app
from dify_kit.commands import forget
from dify_kit.containers.docker_host import Container, Network
from infra import hints
from infra.settings import proxy_keys
from tests.unit.cli.conftest import Machine

RESOURCE = {"urn": "urn:pulumi:dev::dify::t::x", "type": "t", "id": "1"}
LLM = {"enabled": True, "models": {"m": ["holysheep"]}}


def run(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), input=stdin)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture(autouse=True)
def _engine(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forget, "DockerEngine", lambda: machine.engine)


@pytest.fixture
def stack(machine: Machine) -> Machine:
    """Make a stack that is down, with everything that a stack can have, beside another one."""
    for name in ("dev", "dev-2"):
        machine.configure(name, llm=LLM)
        machine.state(name)
        assert run("keys", "issue", "web", "--stack", name).exit_code == 0
        (machine.home / "stacks" / f"clients.{name}.json").write_text('{"clients": {}}')
        (machine.home / "logs" / f"{name}-up.log").write_text("x")
        backend = machine.home / "state" / ".pulumi"
        for kind in ("history", "backups"):
            (backend / kind / "dify" / name).mkdir(parents=True)
            (backend / kind / "dify" / name / "1.json").write_text("{}")
        (backend / "stacks" / "dify" / f"{name}.json.bak").write_text("{}")
        machine.engine.existing_volumes |= {f"dify-{name}-postgres", f"dify-{name}-llm_usage"}
    return machine


def test_everything_of_the_stack_goes_and_nothing_of_another(stack: Machine) -> None:
    done = run("forget", "dev", "--yes", "dev", "--delete-data")

    assert done.exit_code == 0, done.output
    assert names(stack.home / "stacks") == [
        "Pulumi.dev-2.yaml",
        "clients.dev-2.json",
        "proxy-keys.dev-2.json",
    ]
    left = [str(path) for path in (stack.home / "state").rglob("*") if path.is_file()]
    assert len(left) == 4
    assert all("dev-2" in path for path in left)
    assert names(stack.home / "logs") == ["dev-2-up.log"]
    assert names(stack.checkout) == ["Pulumi.dev-2.yaml"]
    assert stack.engine.existing_volumes == {"dify-dev-2-postgres", "dify-dev-2-llm_usage"}
    assert run("forget", "dev", "--yes", "dev").exit_code == 1


def test_what_goes_is_listed_first_and_without_a_terminal_nothing_goes(stack: Machine) -> None:
    before = names(stack.home / "stacks")

    refused = run("forget", "dev")

    assert refused.exit_code == 2
    command = hints.kit("forget", "dev", "--yes", "dev")
    assert command in " ".join(refused.stderr.split())
    for part in (
        "Pulumi.dev.yaml",
        "proxy-keys.dev.json",
        "clients.dev.json",
        "Pulumi's state",
        "dev-up.log",
    ):
        assert part in refused.stderr
    assert "these volumes stay" in refused.stderr
    assert names(stack.home / "stacks") == before


@pytest.mark.parametrize(("typed", "code"), [("dev", 0), ("dev-2", 1), ("", 1)])
def test_the_name_is_typed(stack: Machine, monkeypatch: pytest.MonkeyPatch, typed: str, code: int) -> None:
    monkeypatch.setattr(forget, "_at_a_terminal", lambda: True)

    done = run("forget", "dev", stdin=f"{typed}\n")

    assert done.exit_code == code
    assert (stack.home / "stacks" / "Pulumi.dev.yaml").exists() is bool(code)
    assert "dify-dev-postgres" in stack.engine.existing_volumes, "volumes go with --delete-data only"


def test_another_name_is_refused(stack: Machine) -> None:
    assert run("forget", "dev", "--yes", "dev-2").exit_code == 2
    assert (stack.home / "stacks" / "Pulumi.dev.yaml").exists()


@pytest.mark.parametrize("state", ["running", "exited"])
def test_a_stack_with_containers_is_refused(stack: Machine, state: str) -> None:
    stack.engine.stack_containers = [
        Container(id="1", name="dify-dev-api", service="api", job=False, state=state)
    ]

    done = run("forget", "dev", "--yes", "dev")

    assert done.exit_code == 1
    assert "stack dev is not down: dify-dev-api" in done.stderr
    assert f"hint: {hints.kit('down', stack='dev')}" in done.stderr
    assert (stack.home / "stacks" / "proxy-keys.dev.json").exists()


def test_a_stack_with_resources_is_refused(stack: Machine) -> None:
    stack.state(resources=[RESOURCE])

    done = run("forget", "dev", "--yes", "dev")

    assert done.exit_code == 1
    assert "Pulumi's state has 1 resource(s)" in done.stderr


def test_containers_without_settings_are_removed_by_a_command_that_needs_none(machine: Machine) -> None:
    machine.engine.stack_networks = [Network(id="1", name="dify-dev-edge")]

    done = run("forget", "dev", "--yes", "dev")

    assert done.exit_code == 1
    assert "--filter label=dify-kit.stack=dev" in done.stderr
    assert "dify-kit down" not in done.stderr


def test_leftovers_without_settings_are_forgotten(machine: Machine) -> None:
    """What `init` refuses to take over."""
    machine.files()
    (machine.home / "stacks" / "proxy-keys.dev.json").write_text('{"version": 1, "keys": []}')
    machine.state(resources=[RESOURCE])
    machine.engine.existing_volumes = {"dify-dev-postgres"}
    assert run("init", "dev", "--images", "local").exit_code == 1

    done = run("forget", "dev", "--yes", "dev", "--delete-data")

    assert done.exit_code == 0, done.output
    assert run("init", "dev", "--images", "local").exit_code == 0


def test_an_issued_key_of_an_old_stack_is_not_valid_in_a_new_one(stack: Machine) -> None:
    path = stack.home / "stacks" / "proxy-keys.dev.json"
    assert proxy_keys.read(path)
    stack.engine.existing_volumes.clear()
    stack.state().unlink()
    (stack.home / "stacks" / "Pulumi.dev.yaml").unlink()

    refused = run("init", "dev", "--images", "local")
    assert refused.exit_code == 1
    assert "keys issued to callers of the LLM proxy, which would be valid again" in refused.stderr
    assert run("forget", "dev", "--yes", "dev").exit_code == 0
    assert run("init", "dev", "--images", "local").exit_code == 0

    assert not path.exists()


def test_a_file_of_the_operators_own_stays(stack: Machine) -> None:
    own = stack.checkout / "Pulumi.dev.yaml"
    text = own.read_text()
    own.unlink()
    own.write_text(text)
    (stack.checkout / "proxy-keys.dev.json").write_text('{"version": 1, "keys": []}')

    done = run("forget", "dev", "--yes", "dev")

    assert done.exit_code == 0, done.output
    assert own.read_text() == text
    assert str(own) in done.stderr
    assert not (stack.checkout / "proxy-keys.dev.json").exists()


def test_keys_next_to_settings_of_the_operators_own_that_are_gone_are_leftovers(machine: Machine) -> None:
    keys = machine.checkout / "proxy-keys.dev.json"
    keys.write_text('{"version": 1, "keys": []}')

    refused = run("init", "dev", "--images", "local")
    done = run("forget", "dev", "--yes", "dev")

    assert refused.exit_code == 1
    assert str(keys) in " ".join(refused.stderr.split())
    assert done.exit_code == 0, done.output
    assert not keys.exists()


def test_a_clients_file_that_the_settings_name_stays(machine: Machine, tmp_path: Path) -> None:
    clients = tmp_path / "mine.json"
    clients.write_text('{"clients": {}}')
    machine.configure(oauth={"enabled": True, "clientsFile": str(clients)})

    done = run("forget", "dev", "--yes", "dev")

    assert done.exit_code == 0, done.output
    assert clients.exists()
    assert str(clients) in done.stderr


def test_a_stack_whose_passphrase_is_lost_is_forgotten(stack: Machine) -> None:
    (stack.home / "passphrase").unlink()

    assert run("forget", "dev", "--yes", "dev").exit_code == 0
    assert not (stack.home / "passphrase").exists()


def test_pulumi_keeps_the_stack_that_is_selected(stack: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """`pulumi stack rm` deselects it, whichever stack it removes: it gets a home of its own."""
    monkeypatch.setenv("PULUMI_HOME", str(stack.home / "pulumi"))

    run("forget", "dev", "--yes", "dev")

    [call] = stack.calls("stack", "rm")
    assert call["environment"]["PULUMI_HOME"] not in {str(stack.home / "pulumi"), ""}
    assert {"--preserve-config", "--remove-backups"} <= set(call["args"])


def test_nothing_to_forget_is_an_error_that_says_what_there_is(machine: Machine) -> None:
    nothing = run("forget", "dev", "--yes", "dev")
    machine.engine.existing_volumes = {"dify-dev-postgres"}
    volumes = run("forget", "dev", "--yes", "dev")

    assert (nothing.exit_code, volumes.exit_code) == (1, 1)
    assert "there is nothing of stack dev" in nothing.stderr
    assert "dify-kit forget dev --delete-data" in volumes.stderr
    assert machine.engine.removed == []


# a backend that others use too


@pytest.fixture
def shared(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Make a machine that has an issued key of stack `dev`, whose state is in a bucket."""
    monkeypatch.setenv("PULUMI_BACKEND_URL", "s3://bucket")
    machine.files()
    (machine.home / "stacks" / "proxy-keys.dev.json").write_text('{"version": 1, "keys": []}')
    return machine


def test_a_state_in_a_shared_backend_that_has_resources_stays(shared: Machine) -> None:
    shared.play(stack={"stdout": json.dumps({"deployment": {"resources": [RESOURCE]}})})

    done = run("forget", "dev", "--yes", "dev", "--delete-data")

    told = " ".join(done.stderr.split())
    assert done.exit_code == 1
    assert "the state in Pulumi's backend has 1 resource(s), which may run on another machine" in told
    assert hints.kit("down", stack="dev") in told
    assert hints.pulumi("stack", "rm", "--force", stack="dev") in told
    assert shared.calls("stack", "rm") == []
    assert (shared.home / "stacks" / "proxy-keys.dev.json").exists()


def test_a_shared_backend_that_does_not_answer_is_no_empty_state(shared: Machine) -> None:
    shared.play(stack={"code": 255, "stderr": "error: read .pulumi/meta.yaml: no route to host\n"})

    for command in (("forget", "dev", "--yes", "dev"), ("up", "--skip-setup"), ("init", "dev")):
        done = run(*command)

        assert done.exit_code == 1
        assert "cannot be read from Pulumi's backend: read .pulumi/meta.yaml: no route to host" in " ".join(
            done.stderr.split()
        )
    assert (shared.home / "stacks" / "proxy-keys.dev.json").exists()
    assert shared.calls("stack", "rm") == []


def test_a_stack_that_a_shared_backend_does_not_have_is_forgotten_here(shared: Machine) -> None:
    shared.play(stack={"code": 255, "stderr": "error: no stack named 'dev' found\n"})

    done = run("forget", "dev", "--yes", "dev")

    assert done.exit_code == 0, done.output
    assert not (shared.home / "stacks" / "proxy-keys.dev.json").exists()
    assert shared.calls("stack", "rm") == []


# volumes of others


@pytest.mark.parametrize("labels", [{}, {"dify-kit.stack": "dev-2"}])
@pytest.mark.parametrize(
    "command", [("forget", "dev", "--yes", "dev", "--delete-data"), ("down", "--yes-delete-data-of", "dev")]
)
def test_a_volume_without_the_stacks_label_is_refused_and_nothing_goes(
    stack: Machine, command: tuple[str, ...], labels: dict[str, str]
) -> None:
    before = set(stack.engine.existing_volumes)
    stack.engine.labels["dify-dev-postgres"] = labels

    done = run(*command)

    assert done.exit_code == 1
    assert "not made by stack dev" in done.stderr
    assert "docker volume rm dify-dev-postgres" in " ".join(done.stderr.split())
    assert stack.engine.existing_volumes == before
    assert (stack.home / "stacks" / "proxy-keys.dev.json").exists()


def test_without_the_data_a_volume_of_others_is_named_and_stays(stack: Machine) -> None:
    stack.engine.labels["dify-dev-postgres"] = {}

    done = run("forget", "dev", "--yes", "dev")

    assert done.exit_code == 0, done.output
    assert "it stays, as a volume that this stack did not make: dify-dev-postgres" in " ".join(
        done.stderr.split()
    )
    assert "dify-dev-postgres" in stack.engine.existing_volumes
