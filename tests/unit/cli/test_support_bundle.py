"""`dify-kit support-bundle`: what a report needs, and no secret of any kind in any spelling."""

import base64
import gzip
import json
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
import yaml
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from typer.testing import CliRunner, Result

from dify_kit.__main__ import app
from dify_kit.checks import doctor, published
from dify_kit.checks.result import Check, Status
from dify_kit.commands import support_bundle
from dify_kit.containers.docker_host import container_of
from dify_kit.errors import KitError
from dify_kit.stack import rendering
from dify_kit.watch import bundle
from dify_kit.watch.bundle import without_secrets
from dify_kit.workspace import secrets as stack_secrets
from infra.engine import runtime
from infra.masking import MASK
from infra.settings.given import SECRET_KEYS
from infra.settings.secrets import SECRET_VARIABLES, SHAPES
from support.certificates import issue
from tests.unit.cli.conftest import Machine
from tests.unit.cli.test_logs import FakeRuntime
from tests.unit.test_settings import ALL_ON

PASSPHRASE = "correct-horse-battery-staple"
AT = "2026-11-29T20:14:00.000000000Z"
# Characters that each spelling writes in another way.
ODD = '/4711+%"&='
SIGNATURE = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270"}
EXPORTED: dict[str, Any] = {
    "appKeys": {"echo-chat": "app-exported0key0of0an0app00"},
    "canaryKey": "app-exported0key0of0canary00",
    "oauthCanary": {"clientId": "dify-kit-canary", "clientSecret": f"client-secret-of-canary{ODD}"},
}


@dataclass(frozen=True, kw_only=True)
class Secret:
    """A secret setting: what is stored, and the texts in it that must stay secret."""

    stored: str
    texts: tuple[str, ...]


def every_secret() -> dict[str, Secret]:
    """Return a value for each secret setting, of a form that the setting accepts."""
    pair = issue(["dify.example.com"])
    found = {key: Secret(stored=f"{key}-is{ODD}", texts=(f"{key}-is{ODD}",)) for key in SECRET_KEYS}
    for key, shape in SHAPES.items():
        if shape.rule and shape.generate:
            value = shape.generate()
            found[key] = Secret(stored=value, texts=(value,))
    signing = found["oauthSigningKeys"].stored
    found["oauthSigningKeys"] = Secret(stored=signing, texts=tuple(private_members(json.loads(signing))))
    login = f"proxyuser:proxy-password{ODD}"
    found["outboundCredentials"] = Secret(stored=login, texts=(login, f"proxy-password{ODD}"))
    for key in ("llmKeys", "modelCredentials"):
        inner = f"{key}-inner{ODD}"
        found[key] = Secret(stored=json.dumps({"holysheep": {"openai_api_key": inner}}), texts=(inner,))
    found["tlsKey"] = Secret(stored=pair.key_pem, texts=(*pair.key_pem.splitlines()[1:-1],))
    found["tlsCertificate"] = Secret(stored=pair.pem, texts=())
    return found


def private_members(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, one in value.items():
            if key == "d" and isinstance(one, str):
                yield one
            yield from private_members(one)
    if isinstance(value, list):
        for one in value:
            yield from private_members(one)


def spellings(secret: str) -> list[str]:
    """Return what no file may have: how a program may print a secret."""
    plain = secret.encode()
    return [
        secret,
        quote(secret, safe=""),
        quote(secret),
        quote_plus(secret),
        json.dumps(secret)[1:-1],
        json.dumps(json.dumps(secret))[3:-3],
        base64.b64encode(plain).decode().rstrip("="),
        base64.urlsafe_b64encode(plain).decode().rstrip("="),
        # Without the first and last characters, which depend on what surrounds it.
        *(base64.b64encode(b"u" * before + plain + b"!!!").decode()[4:-8] for before in (1, 2, 3)),
    ]


def said(secret: str) -> str:
    """Return a line of a careless service."""
    inside = [base64.b64encode(b"u" * before + secret.encode() + b"!!!").decode() for before in (1, 2, 3)]
    spelt = " ".join([*spellings(secret)[:-3], *inside])
    basic = base64.b64encode(f"dify:{secret}".encode()).decode()
    return f"connecting with {spelt} Authorization: Basic {basic} {json.dumps({'key': secret})}"


@pytest.fixture(autouse=True)
def _around(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(support_bundle, "DockerEngine", lambda: machine.engine)
    monkeypatch.setattr(runtime, "runtime", FakeRuntime)
    monkeypatch.setattr(published, "problem", lambda _where: "")
    monkeypatch.setattr(doctor, "run_checks", lambda _name: [Check(name="c", status=Status.OK, found="fine")])
    monkeypatch.setattr(bundle, "ask_engine", lambda: (_ for _ in ()).throw(KitError("no engine")))


@dataclass(kw_only=True)
class Full:
    """A stack with every secret that there is, and every place that a program may print it to."""

    machine: Machine
    secrets: dict[str, Secret]
    texts: list[str]


@pytest.fixture
def full(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Full:
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", PASSPHRASE)
    found = every_secret()
    texts = [PASSPHRASE, *(text for one in found.values() for text in one.texts)]
    texts += [
        EXPORTED["appKeys"]["echo-chat"],
        EXPORTED["canaryKey"],
        EXPORTED["oauthCanary"]["clientSecret"],
    ]
    salt = b"saltsalt"
    cipher = AESGCM(stack_secrets.key_of(PASSPHRASE, salt))

    def sealed(plain: str) -> str:
        nonce = b"nonce-nonce-"
        return ":".join(
            [
                "v1",
                *(
                    base64.b64encode(one).decode()
                    for one in (nonce, cipher.encrypt(nonce, plain.encode(), None))
                ),
            ]
        )

    files = machine.files()
    files.data.ensure_passphrase()
    config = {f"dify:{key}": value for key, value in ALL_ON.items()}
    config |= {f"dify:{key}": {"secure": sealed(one.stored)} for key, one in found.items()}
    files.stored.write_text(
        yaml.safe_dump(
            {"encryptionsalt": f"v1:{base64.b64encode(salt).decode()}:{sealed('pulumi')}", "config": config}
        )
    )
    files.link()
    outputs = {
        "publicUrl": "https://dify.example.com",
        "containers": {"api": "dify-dev-api"},
        **{key: SIGNATURE | {"ciphertext": sealed(json.dumps(value))} for key, value in EXPORTED.items()},
    }
    machine.state(
        resources=[
            {"urn": "urn:s", "type": "pulumi:pulumi:Stack", "outputs": outputs},
            {"urn": "urn:pulumi:dev::dify::t::api", "type": "t", "id": "id-api"},
        ]
    )
    lines = [(1, said(text)) for text in texts]
    monkeypatch.setattr(FakeRuntime, "logged", {"api": [(0, "api starts"), *lines]})
    variables = {name: found[key].stored for name, key in SECRET_VARIABLES.items() if key in found}
    variables |= {"LOG_LEVEL": "INFO", "HARMLESS": found["postgresPassword"].stored}
    variables |= {"SOME_URL": f"redis://:{quote(found['redisPassword'].stored, safe='')}@redis:6379/0"}
    details = {
        "Id": "id-api",
        "Name": "/dify-dev-api",
        "Config": {
            "Env": [f"{name}={value}" for name, value in variables.items()],
            "Image": "sha256:1",
            "Labels": {"dify-kit.stack": "dev", "dify-kit.service": "api"},
            "Cmd": ["serve", f"--key={found['sandboxApiKey'].stored}"],
        },
        "State": {
            "Status": "running",
            "Health": {"Status": "healthy", "Log": [{"Output": said(text)} for text in texts]},
        },
    }
    machine.engine.details = {"dify-dev-api": details}
    machine.engine.stack_containers = [container_of(details)]
    (machine.home / "logs" / "dev-up.log").write_text("\n".join(map(said, texts)) + "\nupdating (dev)\n")
    (machine.home / "logs" / "dev-2-up.log").write_text("of another stack")
    return Full(machine=machine, secrets=found, texts=texts)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["support-bundle", *arguments])


def unpacked(path: Path) -> dict[str, str]:
    """Return the files of an archive by their paths in its folder."""
    with tarfile.open(path) as tar:
        return {
            one.name.partition("/")[2]: (tar.extractfile(one) or pytest.fail(one.name)).read().decode()
            for one in tar
        }


def test_no_secret_of_any_kind_is_in_it_in_any_spelling(full: Full, tmp_path: Path) -> None:
    done = run("--to", str(tmp_path / "b.tar.gz"))

    assert done.exit_code == 0, done.output
    found = unpacked(tmp_path / "b.tar.gz")
    assert {*SECRET_KEYS} == full.secrets.keys()
    assert len(full.texts) > len(SECRET_KEYS)
    whole = gzip.decompress((tmp_path / "b.tar.gz").read_bytes()).decode()
    for text in full.texts:
        for spelling in spellings(text):
            assert spelling not in whole, [path for path, content in found.items() if spelling in content]
            assert spelling not in done.output
    assert "a secret remains" not in found["MANIFEST.txt"]


def test_it_holds_what_a_report_needs_and_lists_it(full: Full, tmp_path: Path) -> None:
    done = run("--to", str(tmp_path / "b.tar.gz"))

    found = unpacked(tmp_path / "b.tar.gz")
    assert full
    for path in (
        "status.json",
        "status.txt",
        "doctor.json",
        "versions.json",
        "settings.json",
        "exports.json",
        "rendered/nginx/etc/dify-kit/nginx/nginx.conf",
        "logs/api.log",
        "containers/api.json",
        "pulumi/history.json",
        "pulumi/dev-up.log",
    ):
        assert found.get(path) or pytest.fail(f"{path} is not among {sorted(found)}\n{found['MANIFEST.txt']}")
        assert f"  {path} " in found["MANIFEST.txt"]
    assert "pulumi/dev-2-up.log" not in found
    assert found["MANIFEST.txt"] == done.stdout
    assert f"{AT} api starts\n" in found["logs/api.log"]
    assert "updating (dev)" in found["pulumi/dev-up.log"]
    environment = json.loads(found["containers/api.json"])["Config"]["Env"]
    assert "LOG_LEVEL=INFO" in environment
    assert f"SECRET_KEY={MASK}" in environment
    assert f"HARMLESS={MASK}" in environment
    settings = json.loads(found["settings.json"])["settings"]
    assert settings["publicUrl"] == "https://dify.example.com"
    assert {settings[key] for key in SECRET_KEYS} == {MASK}
    assert json.loads(found["exports.json"])["publicUrl"] == "https://dify.example.com"


def test_only_the_user_can_read_it_and_no_file_is_replaced(full: Full, tmp_path: Path) -> None:
    assert full
    target = tmp_path / "b.tar.gz"

    assert run("--to", str(target)).exit_code == 0
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    before = target.read_bytes()
    again = run("--to", str(target))

    assert again.exit_code == 1
    assert f"{target} exists already" in again.stderr
    assert target.read_bytes() == before


def test_a_directory_gets_a_file_with_stack_and_time(full: Full, tmp_path: Path) -> None:
    assert full
    assert run("--to", str(tmp_path)).exit_code == 0
    assert [path.name[:17] for path in tmp_path.glob("*.tar.gz")] == ["dify-support-dev-"]


def test_without_an_engine_the_rest_is_packed(
    full: Full, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert full

    def unreachable() -> None:
        raise KitError("the Docker engine does not answer", "")

    monkeypatch.setattr(support_bundle, "DockerEngine", unreachable)
    done = run("--to", str(tmp_path / "b.tar.gz"))

    assert done.exit_code == 0
    assert "logs and containers: the Docker engine does not answer" in done.stdout
    assert "settings.json" in unpacked(tmp_path / "b.tar.gz")


def test_without_the_passphrase_no_value_of_an_environment_is_shown(
    full: Full, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PULUMI_CONFIG_PASSPHRASE")
    (full.machine.home / "passphrase").unlink()

    done = run("--to", str(tmp_path / "b.tar.gz"))

    assert done.exit_code == 0, done.output
    found = unpacked(tmp_path / "b.tar.gz")
    values = {entry.partition("=")[2] for entry in json.loads(found["containers/api.json"])["Config"]["Env"]}
    assert values == {MASK}
    assert "the values that mask the secrets of the settings" in done.stdout
    assert not (full.machine.home / "passphrase").exists()
    # What the containers hold is known from them.
    for key in ("secretKey", "postgresPassword", "sandboxApiKey"):
        assert full.secrets[key].stored not in "".join(found.values())


def test_a_part_that_fails_is_left_out_with_the_reason(
    full: Full, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = full.secrets["secretKey"].stored

    def fail(*_: object) -> None:
        raise RuntimeError(f"it broke over {secret}")

    monkeypatch.setattr(rendering, "rendered_files", fail)
    monkeypatch.setattr(doctor, "run_checks", fail)

    done = run("--to", str(tmp_path / "b.tar.gz"))

    assert done.exit_code == 0
    assert f"rendered files: RuntimeError: it broke over {MASK}" in done.stdout
    assert "doctor.json: RuntimeError" in done.stdout
    assert "logs/api.log" in done.stdout


def test_secrets_in_a_wrong_place_of_the_settings_are_masked() -> None:
    given = {
        "apiKey": "x",
        "list": [{"client_secret": "y", "secure": "z"}, {"secure": "v1:a"}],
        "text": '{"password": "p", "host": "h"}',
        "broken": "{no json",
    }

    assert without_secrets(given) == {
        "apiKey": MASK,
        "list": [{"client_secret": MASK, "secure": "z"}, MASK],
        "text": {"password": MASK, "host": "h"},
        "broken": "{no json",
    }


def test_a_stack_without_settings_is_refused(machine: Machine) -> None:
    assert machine
    missing = run("--stack", "staging")

    assert missing.exit_code == 1
    assert "does not exist on this machine" in missing.stderr
