"""The settings of a stack as an archive holds them: secrets in plain text, and the files that they name.

The archive is encrypted as a whole. So a restore needs neither the passphrase of the data directory that the backup was
made in, nor that directory: secrets are encrypted again, with the passphrase of the new one.
"""

import base64
import io
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dify_kit.backup.trees import check_name
from dify_kit.errors import KitError
from dify_kit.workspace import secrets
from dify_kit.workspace.files import PROJECT, StackFiles

SECRET = "dify-kit:secret"  # noqa: S105  # a key
FILES = "files"
# Keys of settings that hold a path of this machine.
_PATHS = ("caFile", "clientsFile", "file", "catalogue", "appsDir", "templatesDir")
# How this machine reaches its engine is no property of the stack.
OF_THE_MACHINE = ("docker:host",)
_MOST_FILES_BYTES = 512 << 20


def plain_settings(files: StackFiles, environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings with each secret as `{SECRET: text}`. Raises KitError when one cannot be decrypted."""
    config = {key: value for key, value in files.config().items() if key not in OF_THE_MACHINE}
    decrypt = secrets.decryptor(files, environment)
    if decrypt is None:
        raise KitError(
            f"the secrets of {files.config_file} cannot be decrypted here: they have no passphrase, or another secrets "
            "provider",
            "`backup` needs the passphrase of the stack: PULUMI_CONFIG_PASSPHRASE_FILE; stacks with another secrets "
            "provider are not supported",
        )
    return {key: _mapped(value, decrypt) for key, value in config.items()}


def _mapped(value: object, decrypt: Callable[[str], str]) -> object:
    if isinstance(value, dict):
        if set(value) == {"secure"}:
            return {SECRET: decrypt(str(value["secure"]))}
        return {key: _mapped(one, decrypt) for key, one in value.items()}
    if isinstance(value, list):
        return [_mapped(one, decrypt) for one in value]
    return value


def readable(value: object) -> object:
    """Return a value of `plain_settings` with its secrets as plain texts, for the reader of settings."""
    if isinstance(value, dict):
        return value[SECRET] if set(value) == {SECRET} else {key: readable(one) for key, one in value.items()}
    return [readable(one) for one in value] if isinstance(value, list) else value


def holds_secret(value: object) -> bool:
    """Whether a value of `plain_settings` has a secret in it."""
    if isinstance(value, dict):
        return SECRET in value or any(holds_secret(one) for one in value.values())
    return isinstance(value, list) and any(holds_secret(one) for one in value)


def sealed_document(config: Mapping[str, Any], passphrase: str) -> dict[str, Any]:
    """Return a stack's file for these settings, with secrets encrypted as Pulumi's passphrase provider does."""
    salt = os.urandom(secrets.SALT_BYTES)
    cipher = AESGCM(secrets.key_of(passphrase, salt))

    def encrypted(text: str) -> str:
        nonce = os.urandom(secrets.NONCE_BYTES)
        sealed = cipher.encrypt(nonce, text.encode(), None)
        return ":".join((secrets.VERSION, _text(nonce), _text(sealed)))

    def mapped(value: object) -> object:
        if isinstance(value, dict):
            if set(value) == {SECRET}:
                return {"secure": encrypted(str(value[SECRET]))}
            return {key: mapped(one) for key, one in value.items()}
        return [mapped(one) for one in value] if isinstance(value, list) else value

    control = encrypted(secrets.KNOWN_PLAIN.decode())
    return {
        "encryptionsalt": f"{secrets.VERSION}:{_text(salt)}:{control}",
        "config": {key: mapped(value) for key, value in config.items()},
    }


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _named(value: object, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Path]]:
    """Yield place and path of each file or directory that settings name, where it exists."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _named(one, (*place, str(key)))
    elif place and place[-1].removeprefix(f"{PROJECT}:") in _PATHS and isinstance(value, str) and value:
        path = Path(value).expanduser()
        if path.exists():
            yield place, path


def files_tar(config: Mapping[str, Any], target: IO[bytes]) -> dict[str, list[str]]:
    """Write the files that settings name into a tar; return where each is in it, with its place in the settings."""
    found: dict[str, list[str]] = {}
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT, dereference=True) as tar:
        for number, (place, path) in enumerate(_named(config), 1):
            inner = f"{number}/{path.name}"
            try:
                tar.add(path, arcname=f"{FILES}/{inner}")
            except OSError as problem:
                raise KitError(
                    f"{'.'.join(place)}: {path} cannot be read: {problem.strerror}",
                    "make it readable, or name another file",
                ) from None
            found[inner] = list(place)
    if target.tell() > _MOST_FILES_BYTES:
        raise KitError(
            f"the files that the settings name have {target.tell() >> 20} MiB together",
            f"{_MOST_FILES_BYTES >> 20} MiB are supported: apps, templates, CAs, packages of plugins",
        )
    return found


def extract_files(
    content: bytes, places: Mapping[str, list[str]], config: dict[str, Any], folder: Path
) -> None:
    """Write the files of an archive below `folder` and let the settings name them there. Raises KitError."""
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        for entry in tar:
            check_name(entry, FILES)
            target = folder.joinpath(*entry.name.split("/")[1:])
            if entry.isdir():
                target.mkdir(mode=0o700, parents=True, exist_ok=True)
                continue
            file = tar.extractfile(entry) if entry.isreg() else None
            if file is None:
                raise KitError(f"the archive has {entry.name!r}, which is no file", "do not use this archive")
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            target.touch(mode=0o600)
            target.write_bytes(file.read())
    for inner, place in places.items():
        section: Any = config
        for key in place[:-1]:
            section = section[key]
        section[place[-1]] = str(folder / inner)
