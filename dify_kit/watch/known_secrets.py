"""The secrets of a stack as far as they are known here, to mask them in logs and reports.

They come from four places, each of which may be missing: the settings, the secret exports and keys in Pulumi's state,
the environment of the containers, and the passphrase itself. What has the form of a secret is masked in any case.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dify_kit.containers.docker_host import Container, holds_secret
from dify_kit.engine.cli import Pulumi
from dify_kit.engine.state import FileBackend, secrets_of
from dify_kit.errors import KitError
from dify_kit.stack import settings
from dify_kit.workspace import secrets
from dify_kit.workspace.files import StackFiles
from infra.catalogue.checks import VARIABLE, names_secret
from infra.masking import SHAPES, Redactor
from infra.settings.given import SEALED, SECRET_KEYS

# The private members of a JSON Web Key; the others are published.
PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "k"})
_SIGNING = "oauthSigningKeys"
# Exported with a secret, and public.
_PUBLIC = frozenset({"clientId"})
_PASSPHRASE = "PULUMI_CONFIG_PASSPHRASE"  # noqa: S105  # the variable's name
_PASSPHRASE_FILE = f"{_PASSPHRASE}_FILE"


@dataclass(frozen=True, kw_only=True)
class Known:
    """What masks the secrets of a stack. `missing` says which of them are unknown here, and why; empty for none."""

    redact: Redactor
    missing: tuple[str, ...] = ()


def known(
    files: StackFiles, containers: Iterable[Container], environ: Mapping[str, str] | None = None
) -> Known:
    """Return what masks every secret of a stack that can be known. Raises nothing: what is unknown is in `missing`."""
    environ = os.environ if environ is None else environ
    redact, missing = Redactor(SHAPES), []
    learnt: set[str] = set(_passphrases(files, environ))
    for what, source in (("settings", _of_settings), ("state", _of_state)):
        try:
            learnt.update(source(files, environ))
        except (KitError, OSError, ValueError) as problem:
            missing.append(f"the secrets of the {what}: {problem}")
    for container in containers:
        learnt |= container.secrets
    redact.learn(learnt)
    return Known(redact=redact, missing=tuple(missing))


def texts_of(value: object, *, private: bool = False) -> Iterator[str]:
    """Yield the secret texts of a value: each text in an object, also in one that is stored as JSON.

    `private`: only the private members of keys.
    """
    if isinstance(value, Mapping):
        for key, one in value.items():
            if private and not isinstance(one, Mapping | list) and key not in PRIVATE_MEMBERS:
                continue
            if key not in _PUBLIC:
                yield from texts_of(one, private=private)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from texts_of(one, private=private)
    elif isinstance(value, str) and value:
        inner = _json(value)
        if inner is not None:
            yield from texts_of(inner, private=private)
        if not (private and inner is not None):
            yield value


def of_setting(key: str, value: object) -> Iterator[str]:
    """Yield the secret texts of a setting: those of its parts, too, where one text holds several."""
    for text in texts_of(value, private=key == _SIGNING):
        yield text
        # `user:password`, and two keys while one is changed.
        yield from text.split(" ") if " " in text and "\n" not in text else ()
        if key == "outboundCredentials":
            yield text.partition(":")[2]


def _json(text: str) -> object:
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        found: object = json.loads(text)
    except ValueError:
        return None
    return found


def _passphrases(files: StackFiles, environ: Mapping[str, str]) -> Iterator[str]:
    yield environ.get(_PASSPHRASE, "")
    for path in (files.data.passphrase, Path(environ.get(_PASSPHRASE_FILE) or files.data.passphrase)):
        try:
            yield path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            continue


def _of_settings(files: StackFiles, environ: Mapping[str, str]) -> Iterator[str]:
    found = settings.given(files, decrypt=True, environ=environ)
    sealed = [key for key, value in found.values.items() if _has_sealed(value)]
    for key, value in found.values.items():
        if key not in sealed and (key in SECRET_KEYS or key in found.encrypted):
            yield from of_setting(key, value)
    if sealed:
        raise KitError(f"{len(sealed)} of them are encrypted, and their passphrase is not here")


def _has_sealed(value: object) -> bool:
    if isinstance(value, Mapping):
        return any(_has_sealed(one) for one in value.values())
    return any(_has_sealed(one) for one in value) if isinstance(value, list) else value is SEALED


def _of_state(files: StackFiles, environ: Mapping[str, str]) -> Iterator[str]:
    backend = FileBackend.of(files, environ)
    if backend is None:
        yield from _by_pulumi(files)
        return
    found = list(secrets_of(backend.snapshot()))
    if not found:
        return
    decrypt = secrets.decryptor(files, _with_passphrase(files, environ))
    if decrypt is None:
        raise KitError("they are encrypted, and their passphrase is not here")
    for path, ciphertext in found:
        plain = _json_or_none(decrypt(ciphertext))
        if plain is None:
            raise KitError("they are encrypted with another passphrase than the settings")
        if path[0] == "outputs" or names_secret(path[-1]):
            yield from texts_of(plain)
        elif isinstance(plain, Mapping | list | str):
            yield from _named(plain)


def _json_or_none(text: str) -> object:
    try:
        found: object = json.loads(text)
    except ValueError:
        return None
    return found


def _named(value: object) -> Iterator[str]:
    """Yield the texts of a secret value that has other texts too: those under the name of a secret."""
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield from texts_of(one) if names_secret(str(key)) else _named(one)
    elif isinstance(value, list):
        for one in value:
            yield from _named(one)
    elif isinstance(value, str):
        # One entry of an environment.
        variable, equals, text = value.partition("=")
        if equals and VARIABLE.fullmatch(variable) and holds_secret(variable):
            yield text


def _by_pulumi(files: StackFiles) -> Iterator[str]:
    pulumi = Pulumi(files=files)
    plain = pulumi.state().outputs
    shown: dict[str, Any] = json.loads(pulumi.run("stack", "output", "--json", "--show-secrets").stdout)
    yield from texts_of({key: value for key, value in shown.items() if key not in plain})


def _with_passphrase(files: StackFiles, environ: Mapping[str, str]) -> Mapping[str, str]:
    if {_PASSPHRASE, _PASSPHRASE_FILE} & environ.keys():
        return environ
    return {**environ, _PASSPHRASE_FILE: str(files.data.passphrase)}
