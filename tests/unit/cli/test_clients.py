"""`dify-kit client` and `dify-kit keys`: what is written, what is shown once, what is refused."""

import base64
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey, OctKey
from typer.testing import CliRunner, Result

from dify_gateway import client_secrets, keys
from dify_kit.__main__ import app
from tests.guide_blocks import named
from tests.unit.cli.conftest import Machine
from tests.unit.test_guide_blocks import rehearsed

TENANTS = {"acme": {"app": "echo-chat"}, "other": {"app": "other-app"}}
ADD = ("client", "add", "bot", "--tenant", "acme", "--scope", "chat")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def configured(machine: Machine, **oauth: Any) -> Path:
    """Configure a stack with two tenants; return where its clients lie."""
    machine.configure(oauth={"enabled": True, "tenants": TENANTS, **oauth})
    return machine.home / "stacks" / "clients.dev.json"


def entries(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())["clients"]
    return found


def verifies(secret: str, stored: list[str]) -> bool:
    return client_secrets.matches(secret, tuple(client_secrets.parse_hash(one) for one in stored))


def test_secret_is_the_only_thing_on_stdout_and_only_its_hash_is_kept(machine: Machine) -> None:
    path = configured(machine)

    done = run(*ADD, "--scope", "files,conversations")

    assert done.exit_code == 0, done.stderr
    secret = done.stdout.strip()
    assert client_secrets.SECRET.fullmatch(secret)
    assert secret not in done.stderr
    assert secret not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    [(name, entry)] = entries(path).items()
    assert (name, entry["tenant"], entry["scopes"]) == ("bot", "acme", ["chat", "files", "conversations"])
    assert verifies(secret, entry["secrets"])
    assert "`dify-kit up --stack dev`" in done.stderr
    assert machine.calls() == [], "no Pulumi is needed"


def test_json_has_everything_the_client_needs(machine: Machine) -> None:
    path = configured(machine)

    told = json.loads(run(*ADD, "--token-seconds", "600", "--json").stdout)

    assert verifies(told.pop("client_secret"), entries(path)["bot"]["secrets"])
    assert told == {
        "client_id": "bot",
        "tenant": "acme",
        "scopes": ["chat"],
        "auth_method": "client_secret",
        "secrets": 1,
        "token_seconds": 600,
        "disabled": False,
    }


def test_rotation_keeps_the_old_secret_until_it_is_dropped(machine: Machine) -> None:
    path = configured(machine)
    first = run(*ADD).stdout.strip()

    second = run("client", "rotate", "bot").stdout.strip()
    both = entries(path)["bot"]["secrets"]
    third = run("client", "rotate", "bot")
    dropped = run("client", "rotate", "bot", "--drop-old")

    assert first != second
    assert verifies(first, both)
    assert verifies(second, both)
    assert third.exit_code == 1
    assert "--drop-old" in third.stderr
    assert (dropped.exit_code, dropped.stdout) == (0, "")
    kept = entries(path)["bot"]["secrets"]
    assert verifies(second, kept)
    assert not verifies(first, kept)
    again = run("client", "rotate", "bot", "--drop-old")
    assert again.exit_code == 1
    assert "one secret only" in again.stderr


def test_list_shows_no_secret_and_can_be_narrowed(machine: Machine) -> None:
    path = configured(machine)
    run(*ADD)
    run("client", "add", "app-2", "--tenant", "other", "--scope", "workflows")

    every, one = run("client", "list"), run("client", "list", "--tenant", "other", "--json")

    assert every.stdout.splitlines() == [
        "app-2\tother\tworkflows\t1 secret(s)",
        "bot\tacme\tchat\t1 secret(s)",
    ]
    assert [row["client_id"] for row in json.loads(one.stdout)] == ["app-2"]
    for entry in entries(path).values():
        assert entry["secrets"][0] not in every.stdout + one.stdout


def test_removed_client_is_gone_and_the_others_stay(machine: Machine) -> None:
    path = configured(machine)
    run(*ADD)
    run("client", "add", "app-2", "--tenant", "other", "--scope", "workflows")

    done = run("client", "remove", "bot")

    assert (done.exit_code, done.stdout) == (0, "")
    assert list(entries(path)) == ["app-2"]
    assert run("client", "remove", "bot").exit_code == 1


def test_scopes_change_by_the_guides_commands(machine: Machine, tmp_path: Path) -> None:
    path = configured(machine)
    *change, up = rehearsed(named("docs/guides/oauth.md", "sh", "dify-kit client remove acme-bot"), tmp_path)
    first = run("client", "add", "acme-bot", "--tenant", "acme", "--scope", "chat").stdout.strip()

    done = [run(*words[1:]) for words in change]

    assert [one.exit_code for one in done] == [0, 0], [one.output for one in done]
    entry = entries(path)["acme-bot"]
    assert entry["scopes"] == ["chat", "workflows"]
    assert verifies(done[-1].stdout.strip(), entry["secrets"])
    assert not verifies(first, entry["secrets"])
    assert up == ["make", "up"]


def test_client_with_a_key_of_its_own_has_no_secret(machine: Machine, tmp_path: Path) -> None:
    path = configured(machine)
    public = ECKey.generate_key("P-256", auto_kid=True).as_dict(private=False)
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps({"keys": [public]}))

    done = run(*ADD, "--jwks", str(file))

    assert (done.exit_code, done.stdout) == (0, "")
    assert entries(path)["bot"] == {
        "tenant": "acme",
        "scopes": ["chat"],
        "auth_method": "private_key_jwt",
        "jwks": {"keys": [public]},
    }
    assert "private_key_jwt" in run("client", "list").stdout
    assert "has no secret" in run("client", "rotate", "bot").stderr


EC = ECKey.generate_key("P-256", auto_kid=True)
# 1024 bits, whatever its factors are.
WEAK = {
    "kty": "RSA",
    "kid": "weak",
    "e": "AQAB",
    "n": base64.urlsafe_b64encode((2**1023 + 1155).to_bytes(128, "big")).rstrip(b"=").decode(),
}
BAD_KEYS: dict[str, Any] = {
    "private": {"keys": [EC.as_dict(private=True)]},
    "no kid": {"keys": [{name: value for name, value in EC.as_dict(private=False).items() if name != "kid"}]},
    "weak": {"keys": [WEAK]},
    "symmetric": {"keys": [OctKey.generate_key(256, auto_kid=True).as_dict(private=True)]},
    "twice": {"keys": [EC.as_dict(private=False)] * 2},
    "none": {"keys": []},
    "no set": EC.as_dict(private=False),
}


@pytest.mark.parametrize("case", BAD_KEYS)
def test_unusable_keys_are_refused(machine: Machine, tmp_path: Path, case: str) -> None:
    path = configured(machine)
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps(BAD_KEYS[case]))

    done = run(*ADD, "--jwks", str(file))

    assert done.exit_code == 1
    assert str(file) in done.stderr.replace("\n", "")
    assert not path.exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("bot", "--tenant", "nobody", "--scope", "chat"), "did you mean other or acme?"),
        (("bot", "--tenant", "acme", "--scope", "admin"), "no scope 'admin'"),
        (("bot", "--tenant", "acme", "--scope", ""), "can do nothing"),
        (("b b", "--tenant", "acme", "--scope", "chat"), "is not a client id"),
        (("b" * 65, "--tenant", "acme", "--scope", "chat"), "is not a client id"),
        (("canary", "--tenant", "acme", "--scope", "chat"), "belongs to the smoke tests"),
        (("bot", "--tenant", "canary", "--scope", "chat"), "belongs to the smoke tests"),
        (("bot", "--tenant", "acme", "--scope", "chat", "--token-seconds", "59"), "use 60 to 86400"),
        (("bot", "--tenant", "acme", "--scope", "chat", "--jwks", "/no/such/file"), "not a JSON file"),
    ],
)
def test_wrong_client_is_refused_and_nothing_is_written(
    machine: Machine, arguments: tuple[str, ...], told: str
) -> None:
    path = configured(machine)

    done = run("client", "add", *arguments)

    assert done.exit_code == 1
    assert told in done.stderr
    assert done.stdout == ""
    assert not path.exists()


def test_existing_client_is_not_replaced(machine: Machine) -> None:
    path = configured(machine)
    run(*ADD)
    before = path.read_bytes()

    done = run(*ADD)

    assert done.exit_code == 1
    assert "dify-kit client rotate bot" in done.stderr
    assert path.read_bytes() == before


def test_file_may_lie_elsewhere(machine: Machine, tmp_path: Path) -> None:
    elsewhere = tmp_path / "secret" / "clients.json"
    usual = configured(machine, clientsFile=str(elsewhere))

    assert run(*ADD).exit_code == 0
    assert list(entries(elsewhere)) == ["bot"]
    assert not usual.exists()


def test_operators_own_settings_have_their_clients_beside_them(machine: Machine, tmp_path: Path) -> None:
    own = tmp_path / "repository" / "Pulumi.dev.yaml"
    own.parent.mkdir()
    own.write_text(json.dumps({"config": {"dify:oauth": {"enabled": True, "tenants": TENANTS}}}))
    (machine.checkout / "Pulumi.dev.yaml").symlink_to(own)

    assert run(*ADD).exit_code == 0
    assert list(entries(own.parent / "clients.dev.json")) == ["bot"]


@pytest.mark.parametrize("text", ["{", '{"clients": []}'])
def test_broken_file_is_left_alone(machine: Machine, text: str) -> None:
    path = configured(machine)
    path.write_text(text)

    done = run(*ADD)

    assert done.exit_code == 1
    assert str(path) in done.stderr.replace("\n", "")
    assert path.read_text() == text


def test_stack_that_does_not_exist(machine: Machine) -> None:
    assert "does not exist" in run("client", "list", "--stack", "prod").stderr
    assert machine.calls() == []


def test_signing_key_is_rotated_by_stdin_and_never_shown(machine: Machine) -> None:
    before = keys.new_document(now=1_000_000)
    machine.configure(oauthSigningKeys={"secure": "v1:x"})
    machine.play(config={"stdout": json.dumps(before)})

    done = run("keys", "rotate", "signing", "--json")

    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["older"] == [before["keys"][0]["kid"]]
    assert told["kid"] not in told["older"]
    assert "'d'" not in done.output
    calls = machine.calls("config", "set")
    assert [call["args"][:4] for call in calls] == [["config", "set", "--secret", "dify:oauthSigningKeys"]]
    assert before["keys"][0]["d"] not in json.dumps(machine.calls())
    assert before["keys"][0]["d"] not in done.output


def test_stolen_key_verifies_nothing_any_more(machine: Machine) -> None:
    machine.configure(oauthSigningKeys={"secure": "v1:x"})
    machine.play(config={"stdout": json.dumps(keys.new_document())})

    told = json.loads(run("keys", "rotate", "signing", "--no-overlap", "--json").stdout)

    assert told["older"] == []


def test_stack_without_a_key_gets_its_first(machine: Machine) -> None:
    machine.configure(oauthSigningKeys=None)

    done = run("keys", "rotate", "signing", "--json")

    assert json.loads(done.stdout)["older"] == []
    assert [call["args"][1] for call in machine.calls("config")] == ["set"]


@pytest.mark.parametrize("text", ["", "dks_not-json", '{"keys": []}'])
def test_broken_keys_are_not_replaced(machine: Machine, text: str) -> None:
    machine.configure(oauthSigningKeys={"secure": "v1:x"})
    machine.play(config={"stdout": text})

    done = run("keys", "rotate", "signing")

    assert done.exit_code == 1
    assert "is not a document of signing keys" in done.stderr
    assert machine.calls("config", "set") == []
    assert "dks_" not in done.output
