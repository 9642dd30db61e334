"""`dify-kit up --llm` and the key of Dify: when models are offered, what is stored, and how the key is changed."""

import json
import sys
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner, Result

from dify_kit.__main__ import app
from dify_kit.checks import preflight, published
from dify_kit.errors import KitError
from dify_kit.stack import dify_key, llm_offer
from infra.catalogue.llm_presets import OFFERED, PRESETS, PRICES
from infra.catalogue.project import ROOT
from infra.settings.secrets import SHAPES
from tests.unit.cli.conftest import Machine

KEY = "hs-0123456789-0123456789-wxyz"
OPENAI_KEY = "sk-" + "k" * 40


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for preset in PRESETS.values():
        monkeypatch.delenv(preset.variable, raising=False)


@pytest.fixture(autouse=True)
def _nothing_published(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "ensure", lambda *_: None)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments])


def terminal(monkeypatch: pytest.MonkeyPatch, *, said: bool) -> list[str]:
    """Be on a terminal where a person says yes or no. Returns the questions."""
    asked: list[str] = []

    def confirm(text: str, **_: object) -> bool:
        asked.append(text)
        return said

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(typer, "confirm", confirm)
    return asked


def config_of(machine: Machine) -> dict[str, Any]:
    document = yaml.safe_load((machine.home / "stacks" / "Pulumi.dev.yaml").read_text())
    config: dict[str, Any] = document["config"]
    return config


def test_new_stack_with_llm_has_the_proxy_the_example_app_and_the_key(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLYSHEEP_API_KEY", f"{KEY}\n")
    machine.engine.registry_problem = "no network"

    run("up", "--skip-setup", "--llm")

    assert config_of(machine)["dify:llm"] == {"enabled": True}
    assert config_of(machine)["dify:apps"] == ["echo-chat", "llm-chat"]
    [call] = machine.calls("config", "set", "--secret")
    assert call["args"][3:5] == ["--path", "dify:llmKeys.holysheep"]
    assert (machine.fake / "stdin").read_text() == KEY
    assert KEY not in json.dumps(machine.calls())


def test_key_of_another_provider_brings_its_own_upstream_and_models(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", OPENAI_KEY)

    run("up", "--skip-setup", "--llm")

    assert config_of(machine)["dify:llm"] == {
        "enabled": True,
        "upstreams": {"openai": {"preset": "openai"}},
        "models": {"gpt-4.1": ["openai"]},
        "embeddings": {"text-embedding-3-small": ["openai"]},
    }


def test_llm_without_a_key_names_the_variables_and_makes_nothing(machine: Machine) -> None:
    done = run("up", "--skip-setup", "--llm")

    assert isinstance(done.exception, KitError) or done.exit_code == 1
    assert "HOLYSHEEP_API_KEY, OPENAI_API_KEY, ANTHROPIC_API_KEY" in str(done.exception) + done.output
    assert (ROOT / llm_offer.GUIDE).is_file()
    assert llm_offer.GUIDE in done.output
    assert not (machine.home / "stacks" / "Pulumi.dev.yaml").exists()


def test_wrong_key_is_told_before_the_stack_is_made(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLYSHEEP_API_KEY", OPENAI_KEY.replace("sk-", "sk-ant-"))

    done = run("up", "--skip-setup", "--llm")

    assert "a key of anthropic" in str(done.exception) + done.output
    assert not (machine.home / "stacks" / "Pulumi.dev.yaml").exists()


@pytest.mark.parametrize("arguments", [[], ["--no-llm"]])
def test_without_a_terminal_nothing_is_turned_on(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setenv("HOLYSHEEP_API_KEY", KEY)

    run("up", "--skip-setup", *arguments)

    assert "dify:llm" not in config_of(machine)
    assert machine.calls("config", "set", "--secret") == []


@pytest.mark.parametrize("said", [True, False])
def test_on_a_terminal_a_found_key_is_asked_about(monkeypatch: pytest.MonkeyPatch, said: bool) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-" + "k" * 40)
    asked = terminal(monkeypatch, said=said)

    assert llm_offer.choose(wanted=None) == ("anthropic" if said else "")
    [question] = asked
    assert question.startswith("ANTHROPIC_API_KEY is set.")
    assert "k" * 40 not in question


def test_on_a_terminal_without_a_key_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = terminal(monkeypatch, said=True)

    assert llm_offer.choose(wanted=None) == ""
    assert asked == []


def test_llm_on_an_existing_stack_turns_it_on_and_makes_the_key_of_dify(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLYSHEEP_API_KEY", KEY)
    machine.configure(llmDifyKey=None)

    llm_offer.turn_on(machine.pulumi())

    assert config_of(machine)["dify:llm"] == {"enabled": True}
    assert set(config_of(machine)["dify:llmDifyKey"]) == {"secure"}
    [call] = machine.calls("config", "set", "--secret")
    assert "dify:llmKeys.holysheep" in call["args"]
    assert (machine.fake / "stdin").read_text() == KEY
    assert KEY not in json.dumps(machine.calls())


@pytest.mark.parametrize(("keys", "stored"), [(None, True), ({"backup": {"secure": "v1:x"}}, True),
                                              ({"holysheep": {"secure": "v1:x"}}, False)])  # fmt: skip
def test_llm_stores_a_key_that_is_missing_where_the_proxy_is_on(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, keys: dict[str, Any] | None, stored: bool
) -> None:
    monkeypatch.setenv("HOLYSHEEP_API_KEY", KEY)
    machine.configure(llm={"enabled": True}, llmKeys=keys)

    llm_offer.turn_on(machine.pulumi())

    assert bool(machine.calls("config", "set", "--secret")) is stored
    assert config_of(machine)["dify:llm"] == {"enabled": True}


def test_llm_writes_nothing_that_the_settings_refuse(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLYSHEEP_API_KEY", KEY)
    machine.configure(llm={"enabled": False, "models": {"m": ["nowhere"]}}, llmDifyKey=None)
    before = config_of(machine)

    with pytest.raises(KitError, match="nothing was changed"):
        llm_offer.turn_on(machine.pulumi())

    assert config_of(machine) == before
    assert machine.calls("config", "set") == []


@pytest.mark.parametrize("configured", [False, True])
@pytest.mark.parametrize(
    ("key", "told"), [("", "no key of an upstream"), ("sk-ant-" + "k" * 40, "a key of anthropic")]
)
def test_a_missing_or_wrong_key_is_told_before_anything_is_installed(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, configured: bool, key: str, told: str
) -> None:
    monkeypatch.setenv("HOLYSHEEP_API_KEY", key)
    installed: list[object] = []
    monkeypatch.setattr(sys.modules["dify_kit.setup"], "run_setup", installed.append)
    monkeypatch.setattr(preflight, "first", lambda _files: None)
    if configured:
        machine.configure()

    done = run("up", "--llm")

    assert told in str(done.exception) + " ".join(done.output.split())
    assert installed == []


def apps_set(machine: Machine) -> list[Any]:
    """Return every value that `dify:apps` was given."""
    documents = [
        json.loads(call["environment"]["PULUMI_OPTION_JSON"]) for call in machine.calls("config", "set-all")
    ]
    return [json.loads(one["dify:apps"]["value"]) for one in documents if "dify:apps" in one]


@pytest.mark.parametrize("apps", [None, ["echo-chat"]])
def test_llm_after_init_adds_the_example_app(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, apps: list[str] | None
) -> None:
    monkeypatch.setenv("HOLYSHEEP_API_KEY", KEY)
    machine.configure(apps=apps)

    llm_offer.turn_on(machine.pulumi())

    assert apps_set(machine) == [["echo-chat", "llm-chat"]]


@pytest.mark.parametrize(("apps", "deployed"), [(["mine"], False), ([], False), (None, True)])
def test_llm_names_the_command_where_the_apps_are_the_operators(
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    apps: list[str] | None,
    deployed: bool,
) -> None:
    monkeypatch.setenv("HOLYSHEEP_API_KEY", KEY)
    machine.configure(apps=apps)
    if deployed:
        machine.state(resources=[{"urn": "urn:pulumi:dev::dify::docker:x::y", "type": "docker:x"}])

    llm_offer.turn_on(machine.pulumi())

    assert apps_set(machine) == []
    wanted = json.dumps([*(["echo-chat"] if apps is None else apps), "llm-chat"])
    assert f"set apps '{wanted}' --stack dev" in capsys.readouterr().err.replace("\n", " ")


def test_llm_adds_no_example_where_dify_gets_no_models(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOLYSHEEP_API_KEY", KEY)
    machine.configure(modelProviders={"proxy": {"enabled": False}})

    llm_offer.turn_on(machine.pulumi())

    assert apps_set(machine) == []
    assert "llm-chat" not in capsys.readouterr().err


def test_llm_does_not_mention_an_example_that_is_there(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOLYSHEEP_API_KEY", KEY)
    machine.configure(apps=["mine", "llm-chat"])

    llm_offer.turn_on(machine.pulumi())

    assert apps_set(machine) == []
    assert "llm-chat" not in capsys.readouterr().err


def test_llm_never_changes_upstreams_that_are_set(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", OPENAI_KEY)
    machine.configure(llm={"enabled": False, "upstreams": {"own": {"baseUrl": "http://llm/v1"}}})

    with pytest.raises(KitError, match=r"llm\.upstreams has no openai"):
        llm_offer.turn_on(machine.pulumi())
    assert machine.calls("config", "set") == []


def test_every_offered_preset_has_models_with_prices() -> None:
    for name in OFFERED:
        served = {**PRESETS[name].models, **PRESETS[name].embeddings}
        assert PRESETS[name].models
        assert set(served) <= set(PRICES)


# --- the key of Dify


@pytest.fixture
def deployed(machine: Machine) -> Machine:
    """Make a stack that is deployed with a key of Dify."""
    machine.configure()
    machine.state(resources=[{"urn": "urn:pulumi:dev::dify::docker:x::y", "type": "docker:x"}, STACK])
    return machine


STACK = {
    "urn": "urn:pulumi:dev::dify::pulumi:pulumi:Stack::dify-dev",
    "type": "pulumi:pulumi:Stack",
    "outputs": {"publicUrl": "http://localhost:8080"},
}


def new_key() -> str:
    make = SHAPES["llmDifyKey"].generate
    assert make
    return make()


def kept(machine: Machine) -> list[str]:
    """Return the keys that were stored last."""
    return (machine.fake / "stdin").read_text().split(" ")


def test_rotating_keeps_the_old_key_until_the_deployment_after_it(deployed: Machine) -> None:
    first = new_key()
    deployed.play(config={"stdout": f"{first}\n"})

    dify_key.begin(deployed.pulumi(), overlap=True)
    new, old = kept(deployed)
    assert old == first
    assert new != first
    deployed.play(config={"stdout": f"{new} {first}\n"})
    assert dify_key.finish(deployed.pulumi())
    assert kept(deployed) == [new]
    assert new not in json.dumps(deployed.calls())
    deployed.play(config={"stdout": f"{new}\n"})
    assert not dify_key.finish(deployed.pulumi())


@pytest.mark.parametrize("times", [1, 2, 3])
def test_after_a_failed_deployment_the_key_in_use_stays_valid(deployed: Machine, times: int) -> None:
    first = new_key()
    stored = first
    for _ in range(times):
        deployed.play(config={"stdout": f"{stored}\n"}, up={"code": 255, "stderr": "error: no space\n"})
        done = run("keys", "rotate", "dify")
        assert done.exit_code == 1, done.output
        stored = (deployed.fake / "stdin").read_text()

    assert stored.split(" ")[1:] == [first]
    assert SHAPES["llmDifyKey"].problem(stored) is None
    new = stored.split(" ")[0]

    # Any later `up` that succeeds completes the change.
    deployed.play(config={"stdout": f"{stored}\n"})
    done = run("up", "--skip-setup")
    assert done.exit_code == 0, done.output
    assert kept(deployed) == [new]


def test_a_key_that_cannot_be_read_is_not_dropped(deployed: Machine) -> None:
    deployed.play(config={"code": 255, "stderr": "error: incorrect passphrase\n"})

    assert run("keys", "rotate", "dify").exit_code == 1
    assert deployed.calls("config", "set") == []


def test_stolen_key_is_dropped_immediately(deployed: Machine) -> None:
    stored = f"{new_key()} {new_key()}"
    deployed.play(config={"stdout": f"{stored}\n"})

    dify_key.begin(deployed.pulumi(), overlap=False)

    [new] = kept(deployed)
    assert new not in stored


def test_rotate_of_a_stack_that_is_not_deployed_says_what_is_next(machine: Machine) -> None:
    machine.configure()

    done = run("keys", "rotate", "dify")

    assert done.exit_code == 0, done.output
    assert "dify-kit up --stack dev`" in done.stderr
    assert run("keys", "rotate", "dify", "--stdin").exit_code == 2


def test_nobody_else_gets_the_name_of_dify(machine: Machine) -> None:
    machine.configure()

    done = run("keys", "issue", "dify", "--internal")

    assert done.exit_code == 1
    assert "dify-kit keys rotate dify --stack dev`" in done.stderr


@pytest.mark.parametrize(("enabled", "made"), [(True, True), ("auto", False), (False, False)])
def test_missing_key_is_made_where_the_settings_require_it(
    machine: Machine, enabled: object, made: bool
) -> None:
    machine.configure(llm={"enabled": True}, modelProviders={"proxy": {"enabled": enabled}}, llmDifyKey=None)

    dify_key.ensure(machine.pulumi())

    assert bool(machine.calls("config", "set")) is made
