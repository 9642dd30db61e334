"""`dify-kit set` and `dify-kit unset`: what is accepted, what is written, and how it reaches Pulumi."""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner, Result

from dify_kit.__main__ import app
from dify_kit.errors import UsageError
from dify_kit.stack import setting_path
from infra.catalogue.project import ROOT
from tests.guide_blocks import named
from tests.unit.cli.conftest import Machine
from tests.unit.cli.test_settings_of_commands import PASSPHRASE, encrypt
from tests.unit.test_guide_blocks import rehearsed

PASSWORD = "correct-horse-7"
MAKE_SECONDS = 120


@pytest.fixture
def configured(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Make a machine with stack `dev`, whose secrets can be decrypted."""
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", PASSPHRASE)
    encrypt(machine, {}, set())
    return machine


def run(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), input=stdin)


def stored(machine: Machine) -> dict[str, Any]:
    found = yaml.safe_load(machine.files().stored.read_text())["config"]
    return {key.removeprefix("dify:"): value for key, value in found.items()}


def words(result: Result) -> str:
    return " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("httpPort", "8099"), {"httpPort": 8099}),
        (("dify:httpPort", "8099"), {"httpPort": 8099}),
        (("canary", "false"), {"canary": False}),
        (("logLevel", "DEBUG"), {"logLevel": "DEBUG"}),
        (("adminName", "12"), {"adminName": "12"}),
        (("tls.mode", "selfsigned", "httpsPort", "9443"), {"tls": {"mode": "selfsigned"}, "httpsPort": 9443}),
        (("cors.v1[0]", "https://a.example", "cors.v1[1]", "https://b.example"),
         {"cors": {"v1": ["https://a.example", "https://b.example"]}}),
        (("cors", '{"v1": ["*"]}'), {"cors": {"v1": ["*"]}}),
        (("rateLimits.v1.requests", "7"), {"rateLimits": {"v1": {"requests": 7}}}),
        (('llm.models["gpt-5.1"]', '["holysheep"]'), {"llm": {"models": {"gpt-5.1": ["holysheep"]}}}),
        (("extraEnv.api.LOG_TZ", "UTC"), {"extraEnv": {"api": {"LOG_TZ": "UTC"}}}),
        (("extraEnv.api.LOG_TZ", "1.10"), {"extraEnv": {"api": {"LOG_TZ": "1.10"}}}),
        (("extraEnv.api.LOG_TZ", "true"), {"extraEnv": {"api": {"LOG_TZ": "true"}}}),
        (("extraEnv.api.LOG_TZ", "null"), {"extraEnv": {"api": {"LOG_TZ": "null"}}}),
        (("extraEnv.api.LOG_TZ", '["a"]'), {"extraEnv": {"api": {"LOG_TZ": '["a"]'}}}),
        (("mail.server", "1.10"), {"mail": {"server": "1.10"}}),
        (("adminName", "null"), {"adminName": "null"}),
        (("tls.redirect", "false"), {"tls": {"redirect": False}}),
        (("telemetry.samplingRate", "0.5"), {"telemetry": {"samplingRate": 0.5}}),
    ],
)  # fmt: skip
def test_a_change_that_works_is_written(
    configured: Machine, arguments: tuple[str, ...], expected: dict[str, Any]
) -> None:
    before = stored(configured)

    done = run("set", *arguments)

    assert done.exit_code == 0, done.output
    assert stored(configured) == before | expected
    assert "`dify-kit up --stack dev` puts it into effect" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("httpPort", "abc"), "dify:httpPort: 'abc': not a whole number in range"),
        (("httpPort", "99999"), "use a number from 1 to 65535"),
        (("htpPort", "1"), "did you mean httpPort, "),
        (("tls.modes", "off"), "did you mean tls.mode, "),
        (("release", "1.17.2"), "use one of"),
        (("cors.v1[0]", "https://a.example/"), "dify:cors.v1"),
        (("apps[0]", "eco-chat"), "did you mean echo-chat"),
        (("logLevel", "DEBUG", "httpPort", "abc"), "dify:httpPort"),
    ],
)
def test_a_change_that_cannot_work_is_refused_and_nothing_is_written(
    configured: Machine, arguments: tuple[str, ...], told: str
) -> None:
    before = stored(configured)

    done = run("set", *arguments)

    assert done.exit_code == 1
    assert told in words(done)
    assert "nothing was changed" in done.stderr
    assert stored(configured) == before
    assert configured.calls() == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("httpPort", "1", "canary"), "each KEY needs one VALUE"),
        (("[0]", "1"), "not the path of a setting"),
        (("", "1"), "the name of the setting is empty"),
        (("httpPort.part", "1", "--stack", "nowhere"), "does not exist"),
        (("logLevel", "--generate"), "not a secret that can be generated"),
        (("logLevel", "--generate"), "dify-kit set logLevel --stack dev"),
        (("secretKey", "--generate"), "is set already"),
        # `unset` refuses a secret that the stack requires.
        (("secretKey", "--generate"), "may take its place: dify-kit set secretKey --stack dev"),
        (("llmDifyKey", "--generate"), "may take its place: dify-kit keys rotate dify --stack dev"),
        (("adminEmail[0]", "x"), "adminEmail holds something else"),
        (("httpPort", "null"), "httpPort: null is no value"),
        (("tls.redirect", "null"), "dify-kit unset tls.redirect --stack dev"),
    ],
)
def test_wrong_calls_are_refused(configured: Machine, arguments: tuple[str, ...], told: str) -> None:
    done = run("set", *arguments)

    assert done.exit_code in {1, 2}
    assert told in words(done)
    assert configured.calls() == []


def test_problems_that_were_there_before_do_not_stop_a_change(configured: Machine) -> None:
    encrypt(configured, {"logLevel": "loud"}, set())

    done = run("set", "httpPort", "8099")

    assert done.exit_code == 0, done.output
    assert stored(configured)["httpPort"] == 8099
    assert "warning: dify:logLevel: 'loud'" in done.stderr
    assert "puts it into effect" not in done.stderr


# secrets


def test_a_secret_comes_from_standard_input_and_is_encrypted(configured: Machine) -> None:
    done = run("set", "adminPassword", stdin=f"{PASSWORD}\n")

    assert done.exit_code == 0, done.output
    [call] = configured.calls()
    assert PASSWORD not in " ".join(call["args"])
    assert json.loads(call["environment"]["PULUMI_OPTION_JSON"]) == {
        "dify:adminPassword": {"value": PASSWORD, "secret": True}
    }
    assert set(stored(configured)["adminPassword"]) == {"secure"}
    assert PASSWORD not in done.output


def test_a_part_of_a_secret_object_goes_by_standard_input(configured: Machine) -> None:
    key = "hs-" + "k" * 30

    done = run("set", "llmKeys.holysheep", stdin=key)

    assert done.exit_code == 0, done.output
    [call] = configured.calls("config", "set")
    assert call["args"][2:5] == ["--secret", "--path", "dify:llmKeys.holysheep"]
    assert (configured.fake / "stdin").read_text() == key
    assert key not in json.dumps(call)


def encrypted(machine: Machine, **settings: Any) -> Any:
    """Put settings into the stack's file, with one encrypted value at each SECURE, and return that value."""
    document = yaml.safe_load(machine.files().stored.read_text())
    one = document["config"]["dify:adminPassword"]

    def sealed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: sealed(inner) for key, inner in value.items()}
        return dict(one) if value is SECURE else value

    document["config"] |= {f"dify:{key}": sealed(value) for key, value in settings.items()}
    machine.files().stored.write_text(yaml.safe_dump(document))
    return one


SECURE = object()


def test_a_part_of_a_secret_object_is_removed_and_the_last_one_with_it(configured: Machine) -> None:
    one = encrypted(configured, llmKeys={"holysheep": SECURE, "backup": SECURE})

    assert run("unset", "llmKeys.backup").exit_code == 0
    assert stored(configured)["llmKeys"] == {"holysheep": one}

    assert run("unset", "llmKeys.holysheep").exit_code == 0
    assert "llmKeys" not in stored(configured)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("mail.tls", "false", "mail.port", "25"), {"tls": False, "port": 25}),
        # Pulumi itself would store the number 2024.
        (("mail.server", "2024"), {"server": "2024"}),
        (("mail.server", "true"), {"server": "true"}),
    ],
)
def test_beside_an_encrypted_part_is_written_what_was_checked(
    configured: Machine, arguments: tuple[str, ...], expected: dict[str, Any]
) -> None:
    one = encrypted(configured, mail={"from": SECURE})

    done = run("set", *arguments)

    assert done.exit_code == 0, done.output
    assert stored(configured)["mail"] == {"from": one} | expected
    assert configured.calls("config", "set", "--plaintext") == []


def test_beside_an_encrypted_part_an_object_stays_an_object(configured: Machine) -> None:
    one = encrypted(configured, extraEnv={"api": {"LOG_TZ": SECURE}})

    done = run("set", "extraEnv.worker", '{"LOG_TZ": "UTC"}')

    assert done.exit_code == 0, done.output
    assert stored(configured)["extraEnv"] == {"api": {"LOG_TZ": one}, "worker": {"LOG_TZ": "UTC"}}
    assert run("unset", "extraEnv.worker.LOG_TZ").exit_code == 0
    assert stored(configured)["extraEnv"] == {"api": {"LOG_TZ": one}}


def test_a_part_of_an_object_that_is_one_encrypted_text_is_encrypted_again_with_it(
    configured: Machine,
) -> None:
    encrypt(configured, {"llmKeys": json.dumps({"holysheep": "hs-" + "k" * 30})}, {"llmKeys"})
    more = "hs-" + "m" * 30

    done = run("set", "llmKeys.backup", stdin=more)

    assert done.exit_code == 0, done.output
    [call] = configured.calls()
    [entry] = json.loads(call["environment"]["PULUMI_OPTION_JSON"]).values()
    assert entry["secret"]
    # Pulumi cannot read an object again that is encrypted as a whole.
    assert "objectValue" not in entry
    assert json.loads(entry["value"]) == {"holysheep": "hs-" + "k" * 30, "backup": more}


def test_all_keys_of_a_secret_object_are_set_together(configured: Machine) -> None:
    keys = {"holysheep": "hs-" + "k" * 30}

    done = run("set", "llmKeys", stdin=json.dumps(keys))

    assert done.exit_code == 0, done.output
    [call] = configured.calls()
    [entry] = json.loads(call["environment"]["PULUMI_OPTION_JSON"]).values()
    assert (entry["secret"], json.loads(entry["value"])) == (True, keys)


@pytest.mark.parametrize("arguments", [("adminPassword", PASSWORD), ("mail.from", PASSWORD, "--secret")])
def test_a_secret_is_no_argument(configured: Machine, arguments: tuple[str, ...]) -> None:
    done = run("set", *arguments)

    assert done.exit_code == 2
    assert "every user of this machine can see arguments" in words(done)
    assert PASSWORD not in done.output
    assert configured.calls() == []


def test_a_secret_of_a_wrong_form_is_refused_without_being_shown(configured: Machine) -> None:
    done = run("set", "adminPassword", stdin="short")

    assert done.exit_code == 1
    assert "dify:adminPassword: has 5 characters" in words(done)
    assert "short" not in done.output.replace("shorter", "")
    assert configured.calls() == []


@pytest.mark.usefixtures("configured")
def test_standard_input_without_a_value_is_an_error() -> None:
    done = run("set", "adminPassword", stdin="\n")

    assert (done.exit_code, "standard input is empty" in done.stderr) == (2, True)


def test_a_missing_secret_is_generated(configured: Machine) -> None:
    config = yaml.safe_load(configured.files().stored.read_text())
    del config["config"]["dify:secretKey"]
    configured.files().stored.write_text(yaml.safe_dump(config))

    done = run("set", "secretKey", "--generate")

    assert done.exit_code == 0, done.output
    [call] = configured.calls()
    [made] = json.loads(call["environment"]["PULUMI_OPTION_JSON"]).values()
    assert made["secret"]
    assert len(made["value"]) >= 32
    assert made["value"] not in done.output


def test_the_commands_of_the_settings_page_work(configured: Machine, tmp_path: Path) -> None:
    block = named("docs/reference/settings.md", "sh", "dify-kit init staging")
    folder = tmp_path / "rehearsal"
    folder.mkdir()

    (_, *new), *later = rehearsed(block, folder)

    created = run(*new)
    # What a fake Pulumi encrypts cannot be read back: `dev` is a stack whose secrets can be decrypted.
    done = [run(*("dev" if word == "staging" else word for word in words)) for _, *words in later]

    assert created.exit_code == 0, created.output
    staging = yaml.safe_load((configured.home / "stacks" / "Pulumi.staging.yaml").read_text())["config"]
    assert (staging["dify:httpPort"], staging["dify:maxUploadMegabytes"]) == (8090, 50)
    assert [one.exit_code for one in done] == [0] * 4, [one.output for one in done]
    changed = stored(configured)
    assert changed["cors"]["v1"] == ["https://app.example.com"]
    assert changed["login"]["lockoutSeconds"] == 3600
    assert "logLevel" not in changed


def test_a_prompt_asks_on_a_terminal(configured: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, bool]] = []

    def prompt(text: str, *, hide_input: bool, err: bool) -> str:
        assert err
        asked.append((text, hide_input))
        return PASSWORD if hide_input else "8099"

    monkeypatch.setattr("dify_kit.commands.set._at_a_terminal", lambda: True)
    monkeypatch.setattr(typer, "prompt", prompt)

    assert run("set", "httpPort").exit_code == run("set", "adminPassword").exit_code == 0

    assert asked == [("Value of httpPort", False), ("Value of adminPassword", True)]
    assert stored(configured)["httpPort"] == 8099


# unset


def test_a_removed_setting_has_its_default_again(configured: Machine) -> None:
    before = stored(configured)
    run("set", "httpPort", "8099", "tls.mode", "selfsigned", "tls.hstsSeconds", "300")

    part = run("unset", "tls.hstsSeconds")
    assert part.exit_code == 0, part.output
    assert stored(configured)["tls"] == {"mode": "selfsigned"}

    rest = run("unset", "tls.mode", "httpPort")
    assert rest.exit_code == 0, rest.output
    assert stored(configured) == before
    assert "dify:httpPort is not set any more" in rest.stderr


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("httpPort", "dify:httpPort is not set; nothing was changed"),
        ("secretKey", "dify:secretKey: the secret is not set"),
        ("htpPort", "is not set"),
    ],
)
def test_what_is_not_set_or_is_needed_is_not_removed(configured: Machine, key: str, told: str) -> None:
    before = stored(configured)

    done = run("unset", key)

    assert done.exit_code in {1, 2}
    assert told in words(done)
    assert stored(configured) == before


ORIGINS = [f"https://{name}.example" for name in "abcd"]


@pytest.mark.parametrize(
    ("places", "left"),
    [((0, 1), "cd"), ((1, 0), "cd"), ((0, 2), "bd"), ((3, 0, 1), "c"), ((1, 1), "acd"), ((0, 1, 2, 3), "")],
)
def test_several_places_of_a_list_are_those_before_the_change(
    configured: Machine, places: tuple[int, ...], left: str
) -> None:
    encrypt(configured, {"cors": {"v1": ORIGINS}}, set())

    done = run("unset", *(f"cors.v1[{place}]" for place in places))

    assert done.exit_code == 0, done.output
    expected = {"v1": [f"https://{name}.example" for name in left]} if left else None
    assert stored(configured).get("cors") == expected


def test_a_setting_and_a_part_of_it_are_removed_together(configured: Machine) -> None:
    encrypt(configured, {"tls": {"mode": "selfsigned"}, "cors": {"v1": ORIGINS}}, set())

    done = run("unset", "tls.mode", "tls", "cors.v1[1]", "cors.v1")

    assert done.exit_code == 0, done.output
    assert not {"tls", "cors"} & set(stored(configured))


# paths


@pytest.mark.parametrize("text", ["a", "a.b", "a.b[0]", 'a["b.c"]', 'a["b.c"][2].d', "a-b.c_d"])
def test_a_path_is_written_as_it_is_read(text: str) -> None:
    assert setting_path.text_of(setting_path.read(text)) == text


@pytest.mark.parametrize("text", ["a[", "a[x]", "a..b", 'a["b', "a[99999999]", ".a."])
def test_a_wrong_path_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        setting_path.read(text)


def test_lists_have_no_gaps() -> None:
    with pytest.raises(UsageError):
        setting_path.put({}, ("cors", "v1", 1), "x")
    assert setting_path.put({}, ("cors", "v1", 0), "x") == {"cors": {"v1": ["x"]}}


# around the commands


def test_version_is_that_of_the_package() -> None:
    done = run("--version")

    assert (done.exit_code, done.stdout) == (0, f"dify-kit {version('dify-kit')}\n")


def test_an_unknown_command_gets_the_three_nearest() -> None:
    done = run("prview")

    assert done.exit_code == 2
    assert "No such command 'prview'. Did you mean preview, " in done.stderr
    assert done.stderr.count(",") == 1


def test_an_unknown_stack_gets_the_nearest(machine: Machine) -> None:
    for name in ("production", "staging", "production-eu", "dev"):
        machine.configure(name)

    done = run("password", "--stack", "producton")

    assert "did you mean production, production-eu or " in words(done)
    assert "dify-kit up --stack producton" in words(done)


def test_a_part_of_an_export_is_printed(machine: Machine) -> None:
    machine.configure()
    machine.play(stack={"stdout": json.dumps({"tls": {"ca": "PEM", "mode": "off"}, "oauth": None})})

    assert run("output", "tls.ca").stdout == "PEM\n"
    assert run("output", "oauth").stdout == "null\n"
    wrong = run("output", "tls.cu")
    assert (wrong.exit_code, "did you mean tls" in wrong.stderr) == (1, True)


@pytest.mark.parametrize("name", [(), ("publicUrl",)])
def test_without_exports_the_stack_is_not_deployed(machine: Machine, name: tuple[str, ...]) -> None:
    machine.configure()
    machine.play(stack={"stdout": "{}"})

    done = run("output", *name)

    assert (done.exit_code, done.stdout) == (1, "")
    assert "stack dev has no exports: it is not deployed" in words(done)
    assert "dify-kit up --stack dev" in words(done)


def test_options_of_pulumi_in_the_environment_do_not_change_what_is_printed(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.configure()
    machine.play(stack={"stdout": "{}"})
    for name in ("JSON", "SHOW_SECRETS", "PARALLEL"):
        monkeypatch.setenv(f"PULUMI_OPTION_{name}", "1")

    run("output")

    [call] = machine.calls("stack", "output")
    assert {name for name in call["environment"] if name.startswith("PULUMI_OPTION_")} == {
        "PULUMI_OPTION_PARALLEL"
    }


def test_a_part_of_a_secret_export_is_masked_like_the_whole(machine: Machine) -> None:
    machine.configure()
    machine.play(stack={"stdout": json.dumps({"appKeys": "[secret]", "apps": {"llm-chat": {}}})})

    assert run("output", "appKeys.llm-chat").stdout == "[secret]\n"
    # With the secrets shown, the text is a value like any other: it has no parts.
    assert run("output", "appKeys.llm-chat", "--show-secrets").exit_code == 1
    assert run("output", "apps.llm-cat").exit_code == 1


def test_help_imports_no_package_that_takes_long() -> None:
    """Each of these takes longer than everything else together."""
    slow = {
        "cryptography",
        "docker",
        "grpc",
        "httpx",
        "jinja2",
        "kubernetes",
        "libcst",
        "psycopg",
        "pulumi",
        "redis",
    }
    command = [sys.executable, "-X", "importtime", "-m", "dify_kit", "--help"]

    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT, timeout=120)

    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "typer" in imported
    assert not imported & slow


@pytest.mark.parametrize(("chosen", "stack"), [({}, "dev"), ({"DIFY_KIT_STACK": "staging"}, "staging")])
def test_make_works_on_the_stack_of_the_shell(chosen: dict[str, str], stack: str) -> None:
    clean = {key: value for key, value in os.environ.items() if key not in {"STACK", "DIFY_KIT_STACK"}}
    command = ["make", "--dry-run", "--no-print-directory", "preview"]

    printed = subprocess.run(
        command,
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=clean | chosen,
        timeout=MAKE_SECONDS,
    ).stdout

    assert printed.split()[-2:] == ["--stack", stack]


@pytest.mark.parametrize("target", ["up", "preview", "down", "doctor", "smoke"])
def test_make_passes_options_on(target: str) -> None:
    command = ["make", "--dry-run", "--no-print-directory", target, "STACK=staging", "ARGS=--one --two"]

    printed = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=ROOT, timeout=MAKE_SECONDS
    ).stdout

    assert printed.split()[-4:] == ["--stack", "staging", "--one", "--two"]


@pytest.mark.parametrize(
    ("words", "environ", "turned_on"),
    [
        (["LLM=1"], {}, True),
        (["LLM=yes"], {}, True),
        (["LLM=0"], {}, False),
        (["LLM="], {}, False),
        ([], {}, False),
        # Other programs use this name.
        ([], {"LLM": "gpt-4.1"}, False),
    ],
)
def test_make_turns_models_on_by_its_command_line_alone(
    words: list[str], environ: dict[str, str], turned_on: bool
) -> None:
    command = ["make", "--dry-run", "--no-print-directory", "up", "STACK=staging", *words]
    clean = {key: value for key, value in os.environ.items() if key not in {"LLM", "ARGS", "MAKEFLAGS"}}

    printed = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=ROOT, env=clean | environ
    ).stdout

    assert printed.split()[-2:] == (["staging", "--llm"] if turned_on else ["--stack", "staging"])


def test_make_takes_no_options_from_the_environment() -> None:
    for target, variable in (("down", "ARGS"), ("render", "OUT")):
        command = ["make", "--dry-run", "--no-print-directory", target, "STACK=staging"]

        printed = subprocess.run(
            command,
            check=True,
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, variable: "--delete-data"},
        ).stdout

        assert "--delete-data" not in printed
