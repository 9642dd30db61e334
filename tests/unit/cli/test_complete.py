"""A stack that was begun by hand is completed by `init`: what is missing is filled in, the rest stays as it is."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from dify_kit.__main__ import app
from infra.settings.secrets import SHAPES
from tests.unit.cli.conftest import Machine

GENERATED = {f"dify:{key}" for key, shape in SHAPES.items() if shape.generate}
OWN = """\
# The stack of the support team.
encryptionsalt: v1:salt
config:
  dify:httpPort: 9000
  dify:cors: {v1: ["https://a.example"]}
"""


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture
def own(machine: Machine) -> Path:
    """Give the file of a stack of one's own: `pulumi stack init` made it, and it has two settings."""
    file = machine.checkout / "Pulumi.dev.yaml"
    file.write_text(OWN)
    machine.state()
    return file


def config(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(file.read_text())["config"]
    return found


def test_a_stack_begun_by_hand_becomes_complete_and_says_what_it_got(machine: Machine, own: Path) -> None:
    done = run("init", "dev", "--images", "local")

    assert done.exit_code == 0, done.output
    found = config(own)
    assert found["dify:httpPort"] == 9000
    assert found["dify:cors"] == {"v1": ["https://a.example"]}
    assert {key: found[key] for key in found.keys() - GENERATED - {"dify:httpPort", "dify:cors"}} == {
        "dify:release": "1.17.1",
        "dify:images": "local",
        "dify:vectorStore": "pgvector",
        "dify:adminEmail": "admin@example.com",
    }
    assert found.keys() >= GENERATED
    told = " ".join(done.stderr.split())
    assert "filled in: release: 1.17.1, images: local, vectorStore: pgvector" in told
    assert f"filled in {len(GENERATED)} generated secret(s): adminPassword, agentApiToken" in told
    assert machine.calls("stack", "init") == []
    assert not (machine.home / "stacks" / "Pulumi.dev.yaml").exists()
    assert done.stdout.strip() == str(own)


def test_a_second_time_changes_nothing(machine: Machine, own: Path) -> None:
    run("init", "dev", "--images", "local")
    before, calls = own.read_bytes(), len(machine.calls())

    done = run("init", "dev", "--images", "local")

    assert done.exit_code == 1
    assert "lacks nothing; nothing was changed" in " ".join(done.stderr.split())
    assert own.read_bytes() == before
    assert len(machine.calls()) == calls


def test_a_stack_that_the_state_does_not_know_is_created_there_and_not_selected(
    machine: Machine, own: Path
) -> None:
    (machine.home / "state" / ".pulumi" / "stacks" / "dify" / "dev.json").unlink()

    assert run("init", "dev", "--images", "local").exit_code == 0

    [call] = machine.calls("stack", "init")
    assert "--no-select" in call["args"]
    assert config(own)["dify:httpPort"] == 9000


def test_images_follow_the_registry_where_they_are_not_set(machine: Machine, own: Path) -> None:
    machine.engine.registry_problem = "no route"

    assert run("init", "dev").exit_code == 0

    assert (config(own)["dify:images"], config(own)["dify:vectorStore"]) == ("local", "pgvector")


def test_images_that_are_set_stay(machine: Machine, own: Path) -> None:
    own.write_text(OWN + "  dify:images: registry\n")
    machine.engine.registry_problem = "no route"

    assert run("init", "dev").exit_code == 0

    assert (config(own)["dify:images"], config(own)["dify:vectorStore"]) == ("registry", "weaviate")


def test_only_the_secret_that_is_missing_is_made(machine: Machine) -> None:
    path = machine.configure(release="1.17.1", litellmMasterKey=None)
    machine.engine.existing_volumes = {"dify-dev-postgres"}

    done = run("init", "dev")

    assert done.exit_code == 0, done.output
    assert "filled in 1 generated secret(s): litellmMasterKey" in done.stderr
    assert config(path)["dify:secretKey"] == {"secure": "v1:x"}


@pytest.mark.parametrize("option", [("--http-port", "9001"), ("--set", "httpPort=9001")])
def test_an_option_that_would_change_what_is_there_is_refused(
    machine: Machine, own: Path, option: tuple[str, str]
) -> None:
    done = run("init", "dev", "--images", "local", *option)

    assert done.exit_code == 1
    told = " ".join(done.stderr.split())
    assert "dify:httpPort is 9000" in told
    assert "dify-kit set httpPort --stack dev" in told
    assert own.read_text() == OWN
    assert machine.calls() == []


def test_an_option_that_says_what_is_there_is_fine(machine: Machine, own: Path) -> None:
    assert run("init", "dev", "--images", "local", "--http-port", "9000").exit_code == 0
    assert config(own)["dify:httpPort"] == 9000
    assert machine.calls("config", "set-all")


def test_wrong_settings_are_refused_before_anything_is_filled_in(machine: Machine, own: Path) -> None:
    own.write_text(OWN + "  dify:apiWorkrs: 2\n")

    done = run("init", "dev", "--images", "local")

    assert done.exit_code == 1
    assert "dify:apiWorkrs: '2': no such setting" in done.stderr
    assert own.read_text() == OWN + "  dify:apiWorkrs: 2\n"
    assert machine.calls() == []


@pytest.mark.parametrize("leave", ["volume", "keys"])
def test_leftovers_of_an_earlier_stack_are_not_taken_over(machine: Machine, own: Path, leave: str) -> None:
    if leave == "volume":
        machine.engine.existing_volumes = {"dify-dev-postgres"}
    else:
        (machine.checkout / "proxy-keys.dev.json").write_text('{"version": 1, "keys": []}')

    done = run("init", "dev", "--images", "local")

    assert done.exit_code == 1
    assert "an earlier stack of this name left" in done.stderr
    assert own.read_text() == OWN


def test_a_secret_that_opens_data_is_not_replaced(machine: Machine) -> None:
    path = machine.configure(release="1.17.1", postgresPassword=None)
    before = path.read_bytes()
    machine.engine.existing_volumes = {"dify-dev-postgres"}

    done = run("init", "dev")

    assert done.exit_code == 1
    assert "lacks postgresPassword" in done.stderr
    assert path.read_bytes() == before
    assert machine.calls("config", "set-all") == []
