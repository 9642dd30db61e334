"""The secrets in a stack's file, decrypted without Pulumi.

Pulumi's own errors name neither file nor setting, only an offset in base64 or a code that did not match. The format is
that of its passphrase provider; stacks with another provider are left to Pulumi.
"""

import base64
import binascii
import hashlib
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dify_kit.errors import KitError
from dify_kit.workspace.files import StackFiles
from infra import hints

ITERATIONS = 1_000_000
KEY_BYTES, NONCE_BYTES, SALT_BYTES, TAG_BYTES = 32, 12, 8, 16
VERSION = "v1"
# Encrypted under the passphrase beside the salt, to recognise a wrong passphrase.
KNOWN_PLAIN = b"pulumi"
_PROVIDERS = ("secretsprovider", "encryptedkey")


def check(files: StackFiles, environment: Mapping[str, str]) -> None:
    """Raise KitError when a secret of the stack cannot be decrypted: with the file, the setting and the fix."""
    decryptor(files, environment)


def decryptor(files: StackFiles, environment: Mapping[str, str]) -> Callable[[str], str] | None:
    """Return what decrypts a secret of the stack's file; None without a passphrase, and for another provider.

    Raises KitError when a secret of the file cannot be decrypted.
    """
    document = files.document()
    salted = str(document.get("encryptionsalt") or "").split(":")
    config = document.get("config")
    if len(salted) != len(["v1", "salt", "v1", "nonce", "text"]) or any(
        document.get(key) for key in _PROVIDERS
    ):
        return None
    secrets = list(_secrets(config if isinstance(config, dict) else {}))
    malformed = [key for key, text in secrets if _parts(text) is None]
    salt = _decoded(salted[1])
    restore = f"restore {files.config_file} from your backup"
    if salt is None or len(salt) != SALT_BYTES or (control := _parts(":".join(salted[2:]))) is None:
        raise KitError(
            f"{files.config_file}: encryptionsalt is damaged: no secret of it can be read", restore
        )
    if malformed:
        raise _damaged(files, malformed)
    passphrase = passphrase_of(environment)
    if passphrase is None:
        return None
    cipher = AESGCM(key_of(passphrase, salt))
    broken = [key for key, text in secrets if _decrypted(cipher, _parts(text)) is None]
    if _decrypted(cipher, control) == KNOWN_PLAIN:
        if broken:
            raise _damaged(files, broken)
    elif broken or not secrets:
        raise KitError(
            f"the passphrase does not fit {files.config_file}: {_source(environment)} belongs to other stacks, or the "
            "file's encryptionsalt is damaged",
            f"restore the passphrase from your backup, or {restore}",
        )
    else:
        raise KitError(f"{files.config_file}: encryptionsalt is damaged, its secrets are not", restore)
    return lambda text: (_decrypted(cipher, _parts(text)) or b"").decode()


def other_provider(files: StackFiles) -> bool:
    """Whether the secrets of the stack are encrypted by another provider than a passphrase."""
    document = files.document()
    return any(document.get(key) for key in _PROVIDERS)


@cache
def key_of(passphrase: str, salt: bytes) -> bytes:
    """Return the key that Pulumi derives from a passphrase."""
    # A third of a second, and one command needs it more than once.
    return hashlib.pbkdf2_hmac("sha256", passphrase.encode(), salt, ITERATIONS, KEY_BYTES)


def _damaged(files: StackFiles, keys: list[str]) -> KitError:
    one = keys[0].partition(":")[2]
    return KitError(
        f"{files.config_file}: the secret {', '.join(keys)} is damaged: it cannot be decrypted",
        "restore the file from your backup. A secret that you know can be set again: "
        f"`{hints.assign(one, stack=files.stack)}`; data that was made with another value of it opens with that value "
        "alone",
    )


def _secrets(value: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, object]]:
    for key, inner in value.items():
        name = f"{path}.{key}" if path else str(key)
        if not isinstance(inner, dict):
            continue
        if set(inner) == {"secure"}:
            yield name, inner["secure"]
        else:
            yield from _secrets(inner, name)


def _parts(text: object) -> tuple[bytes, bytes] | None:
    """Return nonce and ciphertext of `v1:nonce:ciphertext`; None for anything else."""
    parts = text.split(":") if isinstance(text, str) else []
    if len(parts) != len(["v1", "nonce", "text"]) or parts[0] != VERSION:
        return None
    nonce, sealed = _decoded(parts[1]), _decoded(parts[2])
    if nonce is None or sealed is None or len(nonce) != NONCE_BYTES or len(sealed) < TAG_BYTES:
        return None
    return nonce, sealed


def _decoded(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def _decrypted(cipher: AESGCM, parts: tuple[bytes, bytes] | None) -> bytes | None:
    if parts is None:
        return None
    try:
        return cipher.decrypt(parts[0], parts[1], None)
    except InvalidTag:
        return None


def passphrase_of(environment: Mapping[str, str]) -> str | None:
    """Return the passphrase that Pulumi uses in an environment; None without one."""
    if "PULUMI_CONFIG_PASSPHRASE" in environment:
        return environment["PULUMI_CONFIG_PASSPHRASE"]
    try:
        # As Pulumi reads it.
        return Path(environment["PULUMI_CONFIG_PASSPHRASE_FILE"]).read_text(encoding="utf-8").strip()
    except (KeyError, OSError, UnicodeDecodeError):
        return None


def _source(environment: Mapping[str, str]) -> str:
    if "PULUMI_CONFIG_PASSPHRASE" in environment:
        return "PULUMI_CONFIG_PASSPHRASE"
    return environment.get("PULUMI_CONFIG_PASSPHRASE_FILE", "")
