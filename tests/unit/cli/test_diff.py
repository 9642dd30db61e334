"""`dify-kit diff`: in what two stacks differ, without a deployment and without a secret."""

import base64
import json
from collections.abc import Mapping
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from typer.testing import CliRunner, Result

from dify_kit.__main__ import app
from dify_kit.workspace import secrets as stack_secrets
from support.configuration import PLAIN, SECRETS
from tests.unit.cli.conftest import Machine

PASSPHRASE = "correct-horse-battery-staple"
OAUTH = {"enabled": True, "tenants": {"acme": {"app": "echo-chat"}}}


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["diff", *arguments])


def found(*arguments: str) -> dict[str, Any]:
    """Return the differences of the stacks `a` and `b`."""
    done = run("a", "b", "--json", *arguments)
    assert done.exit_code in {0, 1}, done.output
    document: dict[str, Any] = json.loads(done.stdout)
    assert document["equal"] is (done.exit_code == 0)
    return document


def make(machine: Machine, stack: str, plain: Mapping[str, Any] | None = None, **secrets: str | None) -> None:
    """Write a stack with encrypted secrets: those of all stacks, and some of its own."""
    salt = b"saltsalt"
    cipher = AESGCM(stack_secrets.key_of(PASSPHRASE, salt))

    def sealed(text: str) -> str:
        # Of each stack another ciphertext for the same text.
        nonce = (stack * 12).encode()[:12]
        parts = (nonce, cipher.encrypt(nonce, text.encode(), None))
        return ":".join(["v1", *(base64.b64encode(one).decode() for one in parts)])

    files = machine.files(stack)
    files.data.ensure_passphrase()
    hidden = {key: value for key, value in {**SECRETS, **secrets}.items() if value is not None}
    config = {f"dify:{key}": value for key, value in {**PLAIN, **(plain or {})}.items()}
    config |= {f"dify:{key}": {"secure": sealed(value)} for key, value in hidden.items()}
    salted = f"v1:{base64.b64encode(salt).decode()}:{sealed('pulumi')}"
    files.stored.write_text(yaml.safe_dump({"encryptionsalt": salted, "config": config}))
    files.link()


@pytest.fixture(autouse=True)
def _passphrase(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", PASSPHRASE)


def test_equal_stacks_exit_with_0_although_their_ciphertexts_differ(machine: Machine) -> None:
    make(machine, "a")
    make(machine, "b")

    done = run("a", "b")

    assert (done.exit_code, done.stdout) == (0, "")
    assert "stacks a and b are equal" in done.stderr
    assert found() == {
        "equal": True, "stacks": ["a", "b"], "release": [], "settings": [], "images": [], "secrets": [], "clients": []
    }  # fmt: skip
    assert machine.calls() == [], "no Pulumi is needed"


def test_a_default_that_is_written_out_is_no_difference(machine: Machine) -> None:
    make(machine, "a", {"httpPort": 8080, "tls": {"mode": "off"}})
    make(machine, "b")

    assert found()["equal"] is True


def test_settings_are_compared_by_their_parts_with_defaults_shown_as_such(machine: Machine) -> None:
    make(machine, "a", {"httpPort": 8090, "cors": {"v1": ["https://a.example"]}})
    make(machine, "b", {"rateLimits": {"dryRun": True}})

    settings = {one["name"]: (one["a"], one["b"]) for one in found()["settings"]}

    assert settings["httpPort"] == ({"value": 8090, "default": False}, {"value": 8080, "default": True})
    assert settings["rateLimits.dryRun"] == (
        {"value": False, "default": True},
        {"value": True, "default": False},
    )
    assert settings["cors.v1"] == ({"value": ["https://a.example"], "default": False}, None)
    text = run("a", "b").stdout
    for part in ("8090", "8080 (default)", '["https://a.example"]'):
        assert part in text


def test_models_take_the_place_of_the_default_ones(machine: Machine) -> None:
    make(machine, "a", {"llm": {"models": {"only": ["holysheep"]}}})
    make(machine, "b")

    names = {one["name"]: one for one in found()["settings"]}

    assert names["llm.models.only"]["b"] is None
    assert names["llm.models.gpt-4.1"]["a"] is None
    assert names["llm.models.gpt-4.1"]["b"]["default"] is True
    assert not [name for name in names if not name.startswith("llm.models.")]


def test_release_and_images_are_compared(machine: Machine) -> None:
    make(machine, "a", {"release": "1.14.2", "images": "registry"})
    make(machine, "b", {"release": "1.17.1", "images": "registry"})

    document = found()

    assert document["release"] == [{"name": "release", "a": "1.14.2", "b": "1.17.1"}]
    images = {one["name"]: (one["a"], one["b"]) for one in document["images"]}
    assert "dify-api:1.14.2" in images["api"][0]
    assert "dify-api:1.17.1" in images["api"][1]
    assert [one["name"] for one in document["settings"]] == []


def test_secrets_are_equal_or_different_and_never_shown(machine: Machine) -> None:
    own = "another-secret-key-of-stack-b-0123456789"
    keys = {"holysheep": "hs-0123456789-0123456789-wxyz"}
    make(machine, "a", llmKeys=json.dumps(keys), mailPassword="mail-password")
    make(machine, "b", secretKey=own, llmKeys=json.dumps({**keys, "openai": "sk-0123456789-0123456789"}))

    first, second, text = run("a", "b", "--json"), run("a", "b", "--json"), run("a", "b")

    one = {entry["name"]: (entry["a"], entry["b"]) for entry in json.loads(first.stdout)["secrets"]}
    other = {entry["name"]: (entry["a"], entry["b"]) for entry in json.loads(second.stdout)["secrets"]}
    assert set(one) == {"secretKey", "llmKeys.openai", "mailPassword"}
    assert one["secretKey"][0] != one["secretKey"][1]
    assert one["secretKey"] != other["secretKey"], "a fingerprint says nothing after its comparison"
    assert one["mailPassword"][1] is None
    assert one["llmKeys.openai"][0] is None
    for shown in (first.output, text.output):
        for secret in (own, SECRETS["secretKey"], "sk-0123456789-0123456789", "mail-password"):
            assert secret not in shown
    assert "another one" in text.stdout
    assert "not set" in text.stdout


def test_without_the_passphrase_secrets_are_unknown_and_not_equal(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(machine, "a")
    make(machine, "b")
    monkeypatch.delenv("PULUMI_CONFIG_PASSPHRASE")
    (machine.home / "passphrase").unlink()

    document = found()

    assert document["settings"] == []
    assert {(one["a"], one["b"]) for one in document["secrets"]} == {("unknown", "unknown")}
    assert "unknown, without the passphrase" in run("a", "b").stdout


def test_clients_are_compared_by_name(machine: Machine) -> None:
    for stack, names in (("a", ("web", "bot")), ("b", ("web",))):
        make(machine, stack, {"oauth": OAUTH})
        entries = {name: {"tenant": "acme", "scopes": ["chat"], "secrets": ["hash"]} for name in names}
        path = machine.home / "stacks" / f"clients.{stack}.json"
        path.write_text(json.dumps({"clients": entries}))
        path.chmod(0o600)

    document = found()

    assert document["clients"] == [{"name": "bot", "a": True, "b": None}]
    assert document["settings"] == []


def test_an_access_key_in_the_settings_is_compared_as_a_secret(machine: Machine) -> None:
    storage = {"type": "s3", "bucket": "b", "endpoint": "https://s3.example.com"}
    for stack in ("a", "b"):
        key = f"AKIA-of-{stack}"
        make(machine, stack, {"storage": {**storage, "accessKey": key}}, storageSecretKey="storage-secret")

    done = run("a", "b", "--json")

    assert "AKIA" not in done.output
    assert [one["name"] for one in json.loads(done.stdout)["secrets"]] == ["storage.accessKey"]


@pytest.mark.parametrize("arguments", [("a", "staging"), ("a",), ("a", "No_Name"), ("a", "b", "--nothing")])
def test_what_cannot_be_compared_exits_with_2(machine: Machine, arguments: tuple[str, ...]) -> None:
    make(machine, "a")
    make(machine, "b")

    done = run(*arguments)

    assert done.exit_code == 2
    assert done.stdout == ""


def test_damaged_settings_exit_with_2_and_the_reason(machine: Machine) -> None:
    make(machine, "a")
    make(machine, "b")
    (machine.home / "stacks" / "Pulumi.b.yaml").write_text("config: [")

    done = run("a", "b")

    assert done.exit_code == 2
    assert "is not valid YAML" in done.stderr


def test_nothing_is_changed_by_a_look(machine: Machine) -> None:
    make(machine, "a")
    make(machine, "b", {"httpPort": 8090})
    before = {
        path: path.stat().st_mtime_ns for path in (*machine.home.rglob("*"), *machine.checkout.rglob("*"))
    }

    run("a", "b")

    assert {path: path.stat().st_mtime_ns for path in before} == before
