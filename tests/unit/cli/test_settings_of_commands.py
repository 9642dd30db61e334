"""Every command that looks at a setting reads it as Pulumi's program does: the same defaults, forms and refusals."""

import base64
import json
import secrets
from collections.abc import Callable, Mapping
from typing import Any

import pulumi
import pytest
import yaml
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from typer.testing import CliRunner, Result

from dify_kit.__main__ import app
from dify_kit.checks.result import Status
from dify_kit.checks.stack import check_gate, check_settings
from dify_kit.stack import settings as stack_settings
from dify_kit.workspace import secrets as stack_secrets
from dify_kit.workspace.files import StackFiles
from infra.settings.program import load
from infra.settings.secrets import SHAPES
from support.configuration import PLAIN, SECRETS
from tests.unit.cli.conftest import Machine
from tests.unit.gateway import provider as providers

KEY = "hs-0123456789-0123456789-wxyz"
PASSPHRASE = "correct horse battery staple"


def run(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), input=stdin)


def words(text: str) -> str:
    """Return text as one line: messages are folded to the width of the terminal."""
    return " ".join(text.split())


def as_objects(settings: dict[str, Any]) -> dict[str, Any]:
    return settings


def as_text(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings as `pulumi config set llm '{...}'` stores them."""
    return {key: json.dumps(value) for key, value in settings.items()}


@pytest.fixture(params=[as_objects, as_text])
def stored(request: pytest.FixtureRequest) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Give each form in which a stack's file holds a section."""
    form: Callable[[dict[str, Any]], dict[str, Any]] = request.param
    return form


# --- a section is an object, or JSON text ------------------------------------------------------------------------


def test_upstreams_have_keys_in_both_forms(
    machine: Machine, stored: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    llm = {"enabled": True, "upstreams": {"backup": {"preset": "holysheep"}}}
    machine.configure(**stored({"llm": llm}))

    done = run("keys", "set", "backup", "--stdin", stdin=f"{KEY}\n")

    assert done.exit_code == 0, done.output
    assert machine.calls("config", "set")[0]["args"][4] == "dify:llmKeys.backup"


def test_keys_that_are_one_encrypted_text_are_shown(machine: Machine) -> None:
    machine.configure(llm={"upstreams": {"backup": {"preset": "holysheep"}}})
    entry = {"value": json.dumps({"backup": KEY}), "secret": True}
    machine.play(config={"stdout": json.dumps({"dify:llmKeys": entry})})

    assert "hs-01234...wxyz" in run("keys", "show").stdout


def test_the_gate_is_checked_in_both_forms(
    machine: Machine, stored: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    with providers.running() as provider:
        gate = {"enabled": True, "issuer": provider.url, "clientId": "dify"}
        machine.configure(oidcGateClientSecret={"secure": "v1:x"}, **stored({"oidcGate": gate}))
        reading, _ = check_settings(machine.files())
        (found,) = check_gate(reading)

    assert found.status is Status.OK


@pytest.mark.parametrize("enabled", [True, "true"])
def test_clients_are_where_the_settings_say_in_both_forms(
    machine: Machine, stored: Callable[[dict[str, Any]], dict[str, Any]], enabled: object
) -> None:
    file = machine.home.parent / "elsewhere.json"
    tenants = {"acme": {"app": "echo-chat"}}
    machine.configure(**stored({"oauth": {"enabled": enabled, "clientsFile": str(file), "tenants": tenants}}))

    done = run("client", "add", "bot", "--tenant", "acme", "--scope", "chat")

    assert done.exit_code == 0, done.output
    assert list(json.loads(file.read_text())["clients"]) == ["bot"]
    assert not (machine.home / "stacks" / "clients.dev.json").exists()


def test_secrets_of_the_gateway_are_made_in_both_forms(
    machine: Machine, stored: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    oauth = {"enabled": True, "tenants": {"acme": {"app": "echo-chat"}}}
    machine.configure(gatewaySecret=None, oauthSigningKeys=None, **stored({"oauth": oauth}))
    machine.state()

    run("up", "--skip-setup")

    made = {call["args"][3] for call in machine.calls("config", "set", "--secret")}
    assert made == {"dify:gatewaySecret", "dify:oauthSigningKeys"}


@pytest.mark.parametrize("command", ["up --skip-setup", "preview", "refresh"])
def test_sections_are_stored_as_objects_before_pulumi_reads_them(machine: Machine, command: str) -> None:
    """Pulumi's engine rejects a setting of type object or array whose value is text."""
    cors, names = {"v1": ["https://a.example"]}, ["dify.internal"]
    machine.configure(cors=json.dumps(cors), serverNames=json.dumps(names), apiWorkers="2")
    machine.state()

    run(*command.split(), "--stack", "dev")

    [call] = machine.calls("config", "set-all")
    sent = json.loads(call["environment"]["PULUMI_OPTION_JSON"])
    assert {key: entry["objectValue"] for key, entry in sent.items()} == {
        "dify:cors": cors,
        "dify:serverNames": names,
    }
    verbs = [one["args"][0] for one in machine.calls()]
    assert verbs.index("config") < verbs.index(command.split(maxsplit=1)[0])


def test_sections_that_are_objects_are_left_alone(machine: Machine) -> None:
    machine.configure(cors={"v1": ["*"]}, publicUrl="http://dify.example.com")

    run("preview")

    assert machine.calls("config") == []


def test_a_setting_that_is_encrypted_is_read(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", PASSPHRASE)
    encrypt(machine, {"publicUrl": "https://dify.example.com"}, {"publicUrl"})

    assert stack_settings.checked(machine.files()).public_url == "https://dify.example.com"
    assert machine.calls() == [], "no Pulumi is needed"


def test_a_setting_that_another_provider_encrypted_is_left_to_pulumi(machine: Machine) -> None:
    machine.configure(publicUrl={"secure": "aws:x"})
    entries = {f"dify:{key}": {"value": value, "secret": True} for key, value in SECRETS.items()}
    entries |= {f"dify:{key}": {"value": value, "secret": False} for key, value in PLAIN.items()}
    entries["dify:publicUrl"] = {"value": "https://dify.example.com", "secret": True}
    machine.play(config={"stdout": json.dumps(entries)})

    assert stack_settings.checked(machine.files()).public_url == "https://dify.example.com"


def test_secrets_of_another_provider_are_checked_too(machine: Machine) -> None:
    path = machine.configure()
    path.write_text("secretsprovider: awskms://alias/x\n" + path.read_text())
    machine.state()
    entries = {f"dify:{key}": {"value": value, "secret": True} for key, value in SECRETS.items()}
    entries |= {f"dify:{key}": {"value": value, "secret": False} for key, value in PLAIN.items()}
    entries["dify:adminPassword"]["value"] = "short"
    machine.play(config={"stdout": json.dumps(entries)})

    _, checks = check_settings(machine.files())
    done = run("up", "--skip-setup")

    assert checks[-1].found.startswith("dify:adminPassword: has 5 characters")
    assert "dify:adminPassword: has 5 characters" in words(done.stderr)
    assert machine.calls("up") == []


# --- what the program refuses, every command refuses -------------------------------------------------------------

WRONG: list[tuple[str, Mapping[str, Any]]] = [
    ("a number out of range", {"httpPort": 70000}),
    ("an unknown setting", {"apiWorkrs": 2}),
    ("an unknown release", {"release": "0.1"}),
    ("no object", {"rateLimits": 5}),
    ("no JSON", {"rateLimits": "{v1: 5"}),
    ("an unknown part", {"mail": {"srver": "x"}}),
    ("a part of the wrong type", {"login": {"social": "maybe"}}),
    ("parts that do not go together", {"mail": {"type": "smtp", "from": "dify@example.com"}}),
    ("an origin with a path", {"publicUrl": "https://dify.example.com/dify"}),
    ("an upstream without an address", {"llm": {"enabled": True, "upstreams": {"own": {}}}}),
    ("a tenant without an app", {"oauth": {"enabled": True, "tenants": {"acme": {}}}}),
    ("a gate without an issuer", {"oidcGate": {"enabled": True, "clientId": "dify"}}),
    ("TLS without https", {"tls": {"mode": "selfsigned"}, "publicUrl": "http://dify.example.com"}),
    ("two problems", {"httpPort": "http", "adminEmail": "admin"}),
]
CASES = pytest.mark.parametrize("settings", [one for _, one in WRONG], ids=[name for name, _ in WRONG])


def told_by_the_program(settings: Mapping[str, Any]) -> list[str]:
    """Return the problems that Pulumi's program reports."""
    values = {**PLAIN, **settings, **SECRETS, **BROUGHT}
    texts = {
        f"dify:{key}": value if isinstance(value, str) else json.dumps(value) for key, value in values.items()
    }
    pulumi.runtime.set_all_config(texts, [f"dify:{key}" for key in {**SECRETS, **BROUGHT}])
    with pytest.raises(pulumi.RunError) as refused:
        load(pulumi.Config("dify"), "dev")
    return [line.removeprefix("  - ") for line in str(refused.value).splitlines()[1:]]


BROUGHT = {
    "oidcGateClientSecret": "the-secret-of-the-client",
    "llmKeys": json.dumps({"own": "k" * 30}),
}


def encrypt(machine: Machine, settings: Mapping[str, Any], encrypted: set[str]) -> StackFiles:
    """Write a stack's file as Pulumi does with a passphrase; generated secrets are encrypted too."""
    salt = secrets.token_bytes(8)
    cipher = AESGCM(stack_secrets.key_of(PASSPHRASE, salt))

    def sealed(plain: str) -> str:
        nonce = secrets.token_bytes(12)
        parts = (nonce, cipher.encrypt(nonce, plain.encode(), None))
        return ":".join(["v1", *(base64.b64encode(one).decode() for one in parts)])

    values = {**PLAIN, **SECRETS, **settings}
    hidden = encrypted | {key for key in SECRETS if key in SHAPES}
    files = machine.files()
    document = {
        "encryptionsalt": f"v1:{base64.b64encode(salt).decode()}:{sealed('pulumi')}",
        "config": {
            f"dify:{key}": {"secure": sealed(str(value))} if key in hidden else value
            for key, value in values.items()
        },
    }
    files.data.ensure_passphrase()
    files.stored.write_text(yaml.safe_dump(document))
    files.stored.chmod(0o600)
    files.link()
    return files


@CASES
def test_a_deployed_stack_with_wrong_settings_is_refused_in_the_same_words(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, settings: Mapping[str, Any]
) -> None:
    expected = told_by_the_program(settings)
    sealed = {"secure": "v1:x"}
    machine.configure(oidcGateClientSecret=sealed, llmKeys=sealed, **settings)
    machine.state()

    _, checks = check_settings(machine.files(), {})
    told = {name: words(run(*name.split()).stderr) for name in ("up --skip-setup", "preview", "images list")}
    # The secrets of this file can be decrypted by nothing.
    monkeypatch.setattr(stack_settings, "_by_pulumi", stack_settings.given)
    told["render"] = words(run("render", "--out", str(machine.home / "rendered")).stderr)

    assert checks[-1].status is Status.FAILED
    assert checks[-1].found.splitlines() == expected
    for name, text in told.items():
        for line in expected:
            assert words(line) in text, name
    assert machine.calls() == [], "Pulumi is not started"


@CASES
def test_a_new_stack_with_wrong_settings_is_refused_in_the_same_words(
    machine: Machine, settings: Mapping[str, Any]
) -> None:
    values = {**PLAIN, **settings}
    options = [f"--set={key}={json.dumps(value)}" for key, value in values.items()]

    done = run("init", "dev", *options)

    assert done.exit_code == 1
    for line in told_by_the_program(settings):
        assert words(line) in words(done.stderr)
    assert machine.calls() == []
    assert not machine.files().configured()


@pytest.mark.parametrize(
    ("key", "value"), [("adminPassword", "short"), ("secretKey", "x" * 8), ("agentServerSecretKey", "=" * 43)]
)
def test_the_value_of_a_secret_is_checked_before_pulumi_starts(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, key: str, value: str
) -> None:
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", PASSPHRASE)
    encrypt(machine, {key: value}, {key})
    expected = f"dify:{key}: {SHAPES[key].problem(value)}; {SHAPES[key].fix(key, 'dev')}"

    _, checks = check_settings(machine.files())
    done = run("up", "--skip-setup")

    assert checks[-1].found == expected
    assert words(expected) in words(done.stderr)
    assert machine.calls() == []
    assert value not in done.stderr


def test_a_missing_secret_is_refused_but_for_those_that_up_makes(machine: Machine) -> None:
    machine.configure(
        secretKey=None, gatewaySecret=None, oauth={"enabled": True, "tenants": {"a": {"app": "echo-chat"}}}
    )

    _, checks = check_settings(machine.files(), {})

    assert (
        checks[-1].found
        == "dify:secretKey: the secret is not set; `dify-kit set secretKey --generate --stack dev` makes it"
    )


def test_settings_of_a_stack_without_problems_are_the_programs(machine: Machine) -> None:
    """What the command line reads differs from the program's settings in secrets alone."""
    chosen: dict[str, Any] = {
        "httpPort": 8123,
        "bindAddress": "*",
        "cors": {"v1": ["https://a.example"]},
        "rateLimits": {"v1": {"requests": 5, "seconds": 60}},
        "mail": {"type": "smtp", "server": "mail", "from": "dify@example.com"},
    }
    machine.configure(**as_text({key: chosen[key] for key in ("cors", "rateLimits", "mail")}) | chosen)
    texts = {
        f"dify:{key}": value if isinstance(value, str) else json.dumps(value) for key, value in chosen.items()
    }
    texts |= {f"dify:{key}": value for key, value in {**PLAIN, **SECRETS}.items()}
    pulumi.runtime.set_all_config(texts, [f"dify:{key}" for key in SECRETS])
    programs = load(pulumi.Config("dify"), "dev")

    ours = stack_settings.checked(machine.files())

    for name in programs.__dataclass_fields__:
        if name != "secrets":
            assert getattr(ours, name) == getattr(programs, name), name
