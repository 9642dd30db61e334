"""The settings of a stack for the command line, read from its file by the reader that Pulumi's program uses.

Every command that looks at a setting reads it here, so that all of them accept the same values, apply the same
defaults and report the same problems. Reading needs neither Pulumi nor the passphrase, unless a setting that is not
a secret is encrypted; the values of secrets are checked where `decrypt` is set.
"""

import json
import os
from collections.abc import Callable, Collection, Mapping
from typing import Any

from dify_kit.engine.cli import Pulumi
from dify_kit.errors import KitError
from dify_kit.workspace import secrets
from dify_kit.workspace.files import PROJECT, StackFiles
from infra.settings import stack as stack_settings
from infra.settings.given import SEALED, SECRET_KEYS, Given
from infra.settings.reader import Problems, Section
from infra.settings.secrets import OUTBOUND_SECRETS, SHAPES
from infra.settings.stack import Reading, Settings

HINT = "the command `set` changes a setting, `unset` removes it; docs/reference/settings.md lists them"
# For a stack that is not there yet: the commands cannot change it.
LIST = "docs/reference/settings.md lists the settings"
# `dify-kit up` generates these for a stack that lacks them.
MADE_BY_UP = frozenset({"oauthSigningKeys", "gatewaySecret"})
# Secrets that the operator brings: `dify-kit init` cannot have them yet.
BROUGHT = SECRET_KEYS - {key for key, shape in SHAPES.items() if shape.generate} - OUTBOUND_SECRETS


def read(
    files: StackFiles,
    *,
    decrypt: bool = False,
    pending: Collection[str] = (),
    environ: Mapping[str, str] | None = None,
) -> Reading:
    """Read the settings of a stack, with the problems that the program would report.

    `decrypt` checks the values of secrets too, where the passphrase is known. `pending` are secrets that the caller
    sets later: they may be missing. Raises KitError when the file, or a secret in it, cannot be read.
    """
    found = given(files, decrypt=decrypt, environ=environ)
    missing = {key: SEALED for key in pending if key not in found.values}
    found = Given(values={**found.values, **missing}, encrypted=found.encrypted | missing.keys())
    return stack_settings.read(found, files.stack, settings_file=files.config_file)


def checked(files: StackFiles, *, decrypt: bool = False, pending: Collection[str] = ()) -> Settings:
    """Return the settings of a stack. Raises KitError with every problem."""
    return sound(read(files, decrypt=decrypt, pending=pending))


def sound(reading: Reading, *, hint: str = HINT) -> Settings:
    """Return settings that were read. Raises KitError with every problem."""
    if reading.problems:
        raise KitError(reading.message, hint)
    return reading.settings


def check_planned(files: StackFiles, plain: Mapping[str, Any], generated: Mapping[str, str]) -> Settings:
    """Return the settings of a stack as they are when these are added. Raises KitError with every problem.

    Secrets that the operator brings may be missing: they are set after the stack is created.
    """
    there = given(files)
    brought = dict.fromkeys(BROUGHT - there.values.keys(), SEALED)
    added = Given.of({**brought, **plain, **generated}, [*brought, *generated])
    found = Given(values={**added.values, **there.values}, encrypted=added.encrypted | there.encrypted)
    reading = stack_settings.read(found, files.stack, settings_file=files.config_file)
    return sound(reading, hint=HINT if files.configured() else LIST)


def decrypted(files: StackFiles) -> Settings:
    """Return the settings with what follows from secrets, such as the self-signed certificate. Raises KitError."""
    found = given(files, decrypt=True)
    if any(_has(value, lambda one: one is SEALED) for value in found.values.values()):
        found = _by_pulumi(files)
    return sound(stack_settings.read(found, files.stack, settings_file=files.config_file))


def section(files: StackFiles, key: str) -> Section:
    """Return a reader of one section, for commands that prepare a stack whose settings are not complete yet.

    `require` raises what it reports.
    """
    return given(files).top(Problems(stack=files.stack)).part(key)


def require(read_section: Section) -> None:
    """Raise KitError with everything that was reported while a section was read."""
    if lines := read_section.problems.lines:
        raise KitError("\n".join(lines), HINT)


def given(files: StackFiles, *, decrypt: bool = False, environ: Mapping[str, str] | None = None) -> Given:
    """Return what the stack's file sets; secrets are sealed unless `decrypt` is set and they can be decrypted.

    Pulumi is started for a secret of another provider than the passphrase, and for a setting that is encrypted.
    """
    stored = {
        key.removeprefix(f"{PROJECT}:"): value
        for key, value in files.config().items()
        if key.startswith(f"{PROJECT}:")
    }
    encrypted = {key for key, value in stored.items() if _has(value, is_secure)}
    needed = encrypted - SECRET_KEYS
    opened = None
    if encrypted and decrypt and secrets.other_provider(files):
        return _by_pulumi(files)
    if encrypted and (decrypt or needed):
        opened = secrets.decryptor(files, _with_passphrase(files, os.environ if environ is None else environ))
    if needed and not opened:
        return _by_pulumi(files)
    return Given.of({key: _opened(value, opened) for key, value in stored.items()}, encrypted)


def _with_passphrase(files: StackFiles, environ: Mapping[str, str]) -> Mapping[str, str]:
    if {"PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"} & environ.keys():
        return environ
    return {**environ, "PULUMI_CONFIG_PASSPHRASE_FILE": str(files.data.passphrase)}


def _by_pulumi(files: StackFiles) -> Given:
    """Let Pulumi decrypt, whose secrets provider may be another one than the passphrase."""
    entries = json.loads(Pulumi(files=files).run("config", "--json", "--show-secrets").stdout)
    ours = {
        key.removeprefix(f"{PROJECT}:"): entry
        for key, entry in entries.items()
        if key.startswith(f"{PROJECT}:")
    }
    return Given.of(
        {key: entry.get("objectValue", entry.get("value")) for key, entry in ours.items()},
        [key for key, entry in ours.items() if entry.get("secret")],
    )


def is_secure(value: object) -> bool:
    """Whether a stored value is one encrypted text."""
    return isinstance(value, dict) and set(value) == {"secure"}


def _has(value: object, wanted: Callable[[object], bool]) -> bool:
    if wanted(value):
        return True
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(_has(one, wanted) for one in inner)


def _opened(value: object, decryptor: Callable[[str], str] | None) -> object:
    """Return a value with the secrets in it decrypted, or sealed without a decryptor."""
    if isinstance(value, dict):
        if is_secure(value):
            return decryptor(str(value["secure"])) if decryptor else SEALED
        return {key: _opened(one, decryptor) for key, one in value.items()}
    if isinstance(value, list):
        return [_opened(one, decryptor) for one in value]
    return value
