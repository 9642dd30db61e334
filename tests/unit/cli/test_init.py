"""Creating a stack: what is written, how secrets travel, and when it refuses."""

import base64
import json
import re
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from dify_kit.__main__ import app
from dify_kit.stack.create import (
    Choices,
    ImageSource,
    default,
    generate_secrets,
    initialise,
    loaded_names,
)
from infra.catalogue.releases import RELEASES
from infra.catalogue.selection import volume_names
from infra.catalogue.service import Keep
from tests.unit.cli.conftest import Machine

REQUIRED_SECRETS = {
    "adminPassword",
    "secretKey",
    "initPassword",
    "postgresPassword",
    "redisPassword",
    "sandboxApiKey",
    "pluginDaemonKey",
    "pluginInnerApiKey",
    "vectorStoreApiKey",
    "agentServerSecretKey",
    "agentApiToken",
    "agentSandboxToken",
    "tlsSeed",
    "oauthSigningKeys",
    "litellmMasterKey",
    "gatewaySecret",
    "llmDifyKey",
}


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def written(machine: Machine, stack: str = "dev") -> dict[str, Any]:
    document = yaml.safe_load((machine.home / "stacks" / f"Pulumi.{stack}.yaml").read_text())
    config: dict[str, Any] = document["config"]
    return config


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_new_stack_is_complete_private_and_linked(machine: Machine) -> None:
    done = run(
        "init", "dev", "--images", "local", "--http-port", "18080", "--cors-origin", "https://a.example"
    )

    assert done.exit_code == 0, done.output
    config = written(machine)
    plain = {
        key: value for key, value in config.items() if not isinstance(value, dict) or "secure" not in value
    }
    assert plain == {
        "dify:release": "1.17.1",
        "dify:images": "local",
        "dify:vectorStore": "pgvector",
        "dify:adminEmail": "admin@example.com",
        "dify:httpPort": 18080,
        "dify:cors": {"v1": ["https://a.example"]},
    }
    assert {key.removeprefix("dify:") for key in config.keys() - plain.keys()} == REQUIRED_SECRETS
    assert done.stdout.strip() == str(machine.home / "stacks" / "Pulumi.dev.yaml")
    assert (machine.checkout / "Pulumi.dev.yaml").readlink() == machine.home / "stacks" / "Pulumi.dev.yaml"
    assert {mode(machine.home / name) for name in (".", "state", "stacks", "runs", "logs")} == {0o700}
    assert {mode(machine.home / name) for name in ("passphrase", "stacks/Pulumi.dev.yaml")} == {0o600}
    assert sorted(path.name for path in (machine.home / "stacks").iterdir()) == ["Pulumi.dev.yaml"]


def test_no_secret_is_in_any_argument(machine: Machine) -> None:
    run("init", "dev", "--images", "local")

    [call] = machine.calls("config", "set-all")
    sent = json.loads(call["environment"]["PULUMI_OPTION_JSON"])
    values = [entry["value"] for entry in sent.values() if entry["secret"]]
    arguments = [argument for one in machine.calls() for argument in one["args"]]
    assert len(values) == len(REQUIRED_SECRETS)
    assert [value for value in values if any(value in argument for argument in arguments)] == []
    assert {"PULUMI_OPTION_JSON" in one["environment"] for one in machine.calls() if one != call} <= {False}


def test_secrets_have_the_forms_that_dify_demands() -> None:
    first, second = generate_secrets(), generate_secrets()

    assert first.keys() == REQUIRED_SECRETS
    assert not {key for key in first if first[key] == second[key]}
    assert len(first["initPassword"]) <= 30
    assert len(base64.urlsafe_b64decode(first["agentServerSecretKey"] + "=")) == 32
    assert re.fullmatch(r"(?=.*[A-Za-z])(?=.*\d)[A-Za-z\d]{12,}", first["adminPassword"])
    assert min(len(value) for value in first.values()) >= 24


def test_set_takes_paths_as_the_command_set_does(machine: Machine) -> None:
    options = ["tls.mode=selfsigned", "cors.v1[0]=https://a.example", 'cors.v1[1]="https://b.example"']

    done = run("init", "dev", "--images", "local", *(word for one in options for word in ("--set", one)))

    assert done.exit_code == 0, done.output
    assert written(machine)["dify:tls"] == {"mode": "selfsigned"}
    assert written(machine)["dify:cors"] == {"v1": ["https://a.example", "https://b.example"]}


def test_an_origin_is_not_dropped_for_another_part_of_cors(machine: Machine) -> None:
    done = run(
        "init", "dev", "--cors-origin", "https://a.example", "--set", "cors.openapi[0]=https://b.example"
    )

    assert done.exit_code == 2
    assert "--cors-origin and --set cors" in done.stderr
    assert machine.calls() == []


@pytest.mark.parametrize("item", ["httpPort", "=5", "tls..mode=off", "tls=off=1.", "tls.mode"])
def test_set_that_is_no_setting_makes_nothing(machine: Machine, item: str) -> None:
    done = run("init", "dev", "--images", "local", "--set", item)

    assert done.exit_code in {1, 2}
    assert not (machine.home / "stacks" / "Pulumi.dev.yaml").exists()


def test_existing_stack_is_never_touched(machine: Machine) -> None:
    path = machine.configure(secretKey={"secure": "v1:precious"})
    before = path.read_bytes()

    done = run("init", "dev", "--images", "registry")

    assert done.exit_code == 1
    assert path.read_bytes() == before
    assert machine.calls() == []
    assert str(path) in done.stderr


def test_half_made_stack_is_completed(machine: Machine) -> None:
    machine.pulumi().run(
        "stack", "init"
    )  # killed here, the earlier `init` left Pulumi's salt and nothing else

    done = run("init", "dev", "--images", "local")

    assert done.exit_code == 0, done.output
    assert "dify:secretKey" in written(machine)
    assert len(machine.calls("stack", "init")) == 1


@pytest.mark.parametrize("volume", volume_names(Keep.DATA, Keep.RECORDS))
def test_volumes_without_their_secrets_stop_it(machine: Machine, volume: str) -> None:
    machine.engine.existing_volumes = {f"dify-dev-{volume}", "dify-dev-2-postgres", "other"}

    done = run("init", "dev", "--images", "local")

    assert done.exit_code == 1
    told = " ".join(done.stderr.split())
    assert f"volumes with data: dify-dev-{volume} " in told
    assert "dify-kit forget dev --delete-data" in told
    assert "dify-dev-2-postgres" not in told
    assert str(machine.home) in told
    assert machine.calls() == []


def test_volumes_of_a_longer_name_are_another_stacks(machine: Machine) -> None:
    machine.engine.existing_volumes = {"dify-dev-2-postgres"}

    assert run("init", "dev", "--images", "local").exit_code == 0


@pytest.mark.parametrize(
    ("problem", "images", "store"), [("", "registry", "weaviate"), ("no such host", "local", "pgvector")]
)
def test_images_follow_the_registry_once_and_say_so(
    machine: Machine, problem: str, images: str, store: str
) -> None:
    machine.engine.registry_problem = problem

    done = run("init", "dev")

    assert (written(machine)["dify:images"], written(machine)["dify:vectorStore"]) == (images, store)
    assert f"images: {images}" in done.stderr


@pytest.mark.parametrize(("missing", "images"), [(0, "preloaded"), (1, "local")])
def test_without_a_registry_loaded_images_are_used_when_they_are_complete(
    machine: Machine, missing: int, images: str
) -> None:
    machine.engine.registry_problem = "no route"
    names = loaded_names(RELEASES[str(default("release"))], str(default("vectorStore")))
    machine.engine.existing_images = set(names[missing:])

    done = run("init", "dev")

    assert written(machine)["dify:images"] == images
    assert (f"    {names[0]}\n" in done.stderr) is bool(missing)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--images", "local", "--vector-store", "qdrant"], "dify:vectorStore: 'qdrant'"),
        (["--images", "mirror"], "dify:mirror"),
        (["--images", "local", "--release", "0.1"], "dify:release: '0.1'"),
        (["--images", "local", "--set", "apiWorkrs=2"], "dify:apiWorkrs"),
    ],
)
def test_impossible_choices_are_refused_before_anything_is_made(
    machine: Machine, arguments: list[str], told: str
) -> None:
    done = run("init", "dev", *arguments)

    assert done.exit_code == 1
    assert told in done.stderr
    assert "the command `set`" not in done.stderr, "there is no stack that it could change"
    assert "docs/reference/settings.md" in done.stderr
    assert machine.calls() == []


def test_wrong_settings_of_a_stack_that_is_there_name_the_command_that_changes_them(machine: Machine) -> None:
    machine.configure(secretKey=None, apiWorkers="many")

    done = run("init", "dev")

    assert (done.exit_code, "dify:apiWorkers" in done.stderr) == (1, True)
    assert "the command `set` changes a setting" in " ".join(done.stderr.split())


@pytest.mark.parametrize("name", ["Dev", "1st", "a" * 32, "a_b", "-a", "a/b"])
def test_names_that_cannot_name_containers_are_refused(machine: Machine, name: str) -> None:
    done = run("init", "--images", "local", "--", name)

    assert done.exit_code == 2
    assert repr(name) in done.stderr
    assert not machine.home.exists()


def test_other_settings_keep_their_types(machine: Machine) -> None:
    run("init", "dev", "--images", "local", "--set", "apiWorkers=3", "--set", 'cors={"v1": ["*"]}')

    assert written(machine)["dify:apiWorkers"] == 3
    assert written(machine)["dify:cors"] == {"v1": ["*"]}


def test_failed_encryption_leaves_no_configuration(machine: Machine) -> None:
    machine.play(config={"code": 255, "stderr": "error: incorrect passphrase\n"})

    done = run("init", "dev", "--images", "local")

    assert done.exit_code == 1
    assert "incorrect passphrase" in done.stderr
    assert not machine.files().configured()
    assert [path.name for path in (machine.home / "stacks").iterdir() if path.name.startswith(".new")] == []


def test_lost_passphrase_is_not_replaced(machine: Machine) -> None:
    machine.configure("other")
    (machine.home / "passphrase").unlink(missing_ok=True)

    done = run("init", "dev", "--images", "local")

    assert done.exit_code == 1
    assert "restore" in done.stderr
    assert not (machine.home / "passphrase").exists()


def test_interview_asks_for_what_no_option_gave(machine: Machine) -> None:
    done = CliRunner().invoke(
        app, ["init", "dev", "--ask", "--images", "local", "--http-port", "18081"], input="\nme@example.org\n"
    )

    assert done.exit_code == 0, done.output
    assert written(machine)["dify:publicUrl"] == "http://localhost:18081"
    assert written(machine)["dify:adminEmail"] == "me@example.org"


@pytest.mark.parametrize("local", [True, False])
def test_interview_proposes_a_free_port(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, local: bool
) -> None:
    monkeypatch.setattr("infra.guards.ports.bind_problem", lambda _address, _port: "")
    machine.engine.ports = {8080: ["web"], 8081: ["other"]}
    machine.engine.is_local = local

    done = CliRunner().invoke(app, ["init", "dev", "--ask", "--images", "local"], input="\n\n\n")

    assert done.exit_code == 0, done.output
    assert written(machine)["dify:httpPort"] == 8082
    assert written(machine)["dify:publicUrl"] == "http://localhost:8082"


def test_without_an_interview_a_taken_port_is_said_with_a_free_one(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.guards.ports.bind_problem", lambda _address, _port: "")
    machine.engine.ports = {8080: ["web"]}

    done = run("init", "dev", "--images", "local")
    chosen = run("init", "other", "--images", "local", "--http-port", "9000")

    assert "dify-kit set httpPort 8081 --stack dev" in " ".join(done.stderr.split())
    assert "dify:httpPort" not in written(machine)
    assert "is taken" not in chosen.stderr


def test_no_command_moves_the_stack_that_pulumi_has_selected(machine: Machine) -> None:
    run("init", "dev", "--images", "local")

    [call] = machine.calls("stack", "init")
    assert "--no-select" in call["args"]


def test_release_is_pinned_in_the_stack_file(machine: Machine) -> None:
    initialise(machine.pulumi(), machine.engine, Choices(images=ImageSource.REGISTRY))

    assert written(machine)["dify:release"] == "1.17.1"
