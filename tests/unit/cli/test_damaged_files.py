"""A stack's file that cannot be read, and secrets in it that cannot be decrypted: which file, and the way back."""

import base64
import functools
import hashlib
import secrets
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from typer.testing import CliRunner

from dify_kit.__main__ import app
from dify_kit.errors import KitError
from dify_kit.workspace import secrets as stack_secrets
from dify_kit.workspace.files import StackFiles
from tests.unit.cli.conftest import Machine

PASSPHRASE = "correct horse battery staple"
ENVIRONMENT = {"PULUMI_CONFIG_PASSPHRASE": PASSPHRASE}


def encrypted(cipher: AESGCM, plain: str) -> str:
    nonce = secrets.token_bytes(12)
    parts = (nonce, cipher.encrypt(nonce, plain.encode(), None))
    return ":".join(["v1", *(base64.b64encode(one).decode() for one in parts)])


@functools.cache
def derived(passphrase: str) -> tuple[bytes, AESGCM]:
    """Return a salt and the cipher that a passphrase gives with it: a million rounds, so one salt serves all tests."""
    salt = secrets.token_bytes(8)
    return salt, AESGCM(hashlib.pbkdf2_hmac("sha256", passphrase.encode(), salt, 1_000_000, 32))


def stored(machine: Machine, passphrase: str = PASSPHRASE, **values: Any) -> StackFiles:
    """Write a stack's file as Pulumi does, with two secrets."""
    salt, cipher = derived(passphrase)
    document = {
        "encryptionsalt": f"v1:{base64.b64encode(salt).decode()}:{encrypted(cipher, 'pulumi')}",
        "config": {
            "dify:images": "local",
            "dify:secretKey": {"secure": encrypted(cipher, "s" * 40)},
            "dify:mail": {"server": "x", "password": {"secure": encrypted(cipher, "p" * 40)}},
        },
        **values,
    }
    files = StackFiles.open("dev")
    files.stored.write_text(yaml.safe_dump(document))
    assert machine.home == files.data.root
    return files


def change(files: StackFiles, changed: Callable[[dict[str, Any]], None]) -> None:
    document = yaml.safe_load(files.stored.read_text())
    changed(document)
    files.stored.write_text(yaml.safe_dump(document))


def test_whole_file_is_fine(machine: Machine) -> None:
    stack_secrets.check(stored(machine), ENVIRONMENT)


def test_without_a_passphrase_the_form_alone_is_checked(machine: Machine) -> None:
    stack_secrets.check(stored(machine), {})


@pytest.mark.parametrize("provider", ["secretsprovider", "encryptedkey"])
def test_other_providers_are_left_to_pulumi(machine: Machine, provider: str) -> None:
    files = stored(machine, **{provider: "awskms://alias/x"})
    change(files, lambda one: one["config"]["dify:secretKey"].update(secure="AAAA"))

    stack_secrets.check(files, ENVIRONMENT)


def flipped(text: str) -> str:
    """Return a ciphertext with another character, still in base64."""
    return text[:-8] + ("A" if text[-8] != "A" else "B") + text[-7:]


DAMAGES: dict[str, Callable[[str], object]] = {
    "one character": flipped,
    "cut off": lambda text: text[:-10],
    "cut to a whole number of bytes": lambda text: text[:-12],
    "no base64": lambda text: text.replace("v1:", "v1:*", 1),
    "a line break": lambda text: text[:30] + "\n" + text[30:],
    "no parts": lambda text: text.replace(":", ""),
    "another version": lambda text: "v2" + text[2:],
    "empty": lambda _text: "",
    "no text": lambda _text: 5,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_secret_is_named_with_its_file_and_the_way_back(machine: Machine, damage: str) -> None:
    files = stored(machine)
    change(
        files,
        lambda one: one["config"]["dify:mail"]["password"].update(
            secure=DAMAGES[damage](one["config"]["dify:mail"]["password"]["secure"])
        ),
    )

    with pytest.raises(KitError) as problem:
        stack_secrets.check(files, ENVIRONMENT)

    assert str(files.stored) in problem.value.message
    assert "the secret dify:mail.password is damaged" in problem.value.message
    assert "secretKey" not in problem.value.message
    assert "backup" in problem.value.hint


def test_wrong_passphrase_is_no_damaged_secret(machine: Machine) -> None:
    with pytest.raises(KitError, match="the passphrase does not fit") as problem:
        stack_secrets.check(stored(machine), {"PULUMI_CONFIG_PASSPHRASE": "another"})

    assert "another" not in problem.value.message + problem.value.hint


@pytest.mark.parametrize("part", [1, 2, 3, 4])
def test_damaged_salt_is_named(machine: Machine, part: int) -> None:
    files = stored(machine)

    def damage(document: dict[str, Any]) -> None:
        parts = document["encryptionsalt"].split(":")
        parts[part] = "*" + parts[part][1:]
        document["encryptionsalt"] = ":".join(parts)

    change(files, damage)

    with pytest.raises(KitError, match="encryptionsalt is damaged") as problem:
        stack_secrets.check(files, ENVIRONMENT)

    assert str(files.stored) in problem.value.message


UNREADABLE = {
    "latin-1": (b"config:\n  dify:adminName: Jos\xe9\n", "line 2: the file is not UTF-8"),
    "utf-16": ("config: {}\n".encode("utf-16"), "line 1: the file is not UTF-8"),
    "binary": (bytes(range(256)), "is not"),
    "nul": (b"config:\n  dify:a: \0\n", "is not valid YAML"),
    "brackets": (b"config: {a: [\n", "is not valid YAML"),
    "many brackets": (b"[" * 2_000, "is not valid YAML"),
    "a date that is none": (b"config:\n  dify:a: 2026-13-45\n", "is not valid YAML"),
    "a list": (b"- a\n", "has no `key: value`"),
    "text": (b"hello\n", "has no `key: value`"),
    "config is a list": (b"config: [a]\n", "`config` has no `key: value`"),
}


@pytest.mark.parametrize("case", UNREADABLE)
@pytest.mark.parametrize("command", ["up", "preview", "refresh", "down", "output", "password", "init"])
def test_file_that_cannot_be_read_is_named_by_every_command(
    machine: Machine, case: str, command: str
) -> None:
    raw, reason = UNREADABLE[case]
    # With its passphrase, which every other stack of this machine has too.
    files = machine.pulumi().files
    files.stored.write_bytes(raw)

    done = CliRunner().invoke(app, [command, *(["dev"] if command == "init" else ["--stack", "dev"])])

    assert done.exit_code == 1
    assert str(files.stored) in done.stderr.replace("\n", "")
    assert reason in done.stderr
    assert "backup" in done.stderr
    assert "Traceback" not in done.stderr


def test_file_that_may_not_be_read_is_named(machine: Machine) -> None:
    files = machine.files()
    files.stored.mkdir()

    with pytest.raises(KitError, match=r"Pulumi\.dev\.yaml cannot be read"):
        files.config()


def test_passphrase_that_is_no_text_is_named(machine: Machine) -> None:
    files = machine.files()
    files.data.passphrase.write_bytes(b"\xff\xfe")

    with pytest.raises(KitError, match="passphrase cannot be read"):
        files.data.ensure_passphrase()
