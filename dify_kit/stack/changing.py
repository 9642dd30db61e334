"""Changing the settings of a stack. The one reader of settings checks what a change leads to before it is written."""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from dify_kit.engine import objects
from dify_kit.engine.cli import Pulumi
from dify_kit.errors import KitError, UsageError
from dify_kit.stack import setting_path, settings
from dify_kit.stack.setting_path import Path
from dify_kit.workspace.files import PROJECT, StackFiles
from infra import hints
from infra.catalogue.project import declared
from infra.settings import stack as stack_settings
from infra.settings.given import SECRET_KEYS, Given, parsed
from infra.settings.rotations import ROTATED
from infra.settings.secrets import SHAPES


@dataclass(frozen=True, kw_only=True)
class Change:
    """A new value of a setting, or none for one that is removed; `secret` ones are stored encrypted."""

    path: Path
    value: object = None
    secret: bool = False

    @property
    def key(self) -> str:
        """The setting's key in `Pulumi.yaml`."""
        return str(self.path[0])


def json_text(value: object) -> str:
    """Return a value as it is shown."""
    return json.dumps(value, ensure_ascii=False)


def is_secret(path: Path) -> bool:
    """Whether a setting is always stored encrypted."""
    return path[0] in SECRET_KEYS


def value_of(path: Path, text: str, problems: Callable[[object], Collection[str]]) -> object:
    """Return the value that a text stands for: of the type of its default in `Pulumi.yaml`; a text stays as it is.

    A text may be quoted as JSON (`"0.1"`). Where no default says the type, it is text, unless the settings have more
    `problems` with it than with the JSON value that is written there. None for `null` where no text is expected.
    """
    defaults = {key: entry.get("default", "") for key, entry in declared().items()}
    usual = setting_path.get(defaults, path)
    try:
        value = json.loads(text)
    except ValueError:
        return text
    if isinstance(value, str):
        return value
    if isinstance(usual, str) or (usual is None and len(path) == 1):
        return text
    return _likelier(text, value, problems) if usual is None else value


def _likelier(text: str, value: object, problems: Callable[[object], Collection[str]]) -> object:
    if value is None:
        return text
    as_text, as_json = len(problems(text)), len(problems(value))
    # A wrong item of an object is a problem as well, and the better one to report.
    tie = as_text == as_json and isinstance(value, dict | list)
    return value if as_json < as_text or tie else text


def read_value(files: StackFiles, changes: Collection[Change], path: Path, text: str) -> object:
    """Return the value that a text stands for in a stack's settings, after other changes. Raises UsageError."""

    def found(value: object) -> Collection[str]:
        values = with_changes(settings.given(files).values, [*changes, Change(path=path, value=value)])
        return _problems(files, Given(values=values, encrypted=frozenset()))

    value = value_of(path, text, found)
    if value is None:
        name = setting_path.text_of(path)
        raise UsageError(
            f"{PROJECT}:{name}: null is no value; nothing was changed",
            f"remove the setting: {hints.kit('unset', name, stack=files.stack)}",
        )
    return value


def generated(files: StackFiles, path: Path) -> str:
    """Return a new secret for a setting that has none that can be used. Raises UsageError."""
    shape = SHAPES.get(setting_path.text_of(path))
    if shape is None or shape.generate is None:
        raise UsageError(
            f"{setting_path.text_of(path)} is not a secret that can be generated",
            f"set a value of your own: {hints.assign(setting_path.text_of(path), stack=files.stack)}",
        )
    found = _problems(files, settings.given(files, decrypt=True))
    wrong = any(line.startswith(f"{PROJECT}:{path[0]}:") for line in found)
    if f"{PROJECT}:{path[0]}" in files.config() and not wrong:
        raise UsageError(
            f"{PROJECT}:{path[0]} is set already, and data may depend on it; nothing was changed",
            # A secret that the stack requires cannot be removed first.
            f"when you are certain that another value may take its place: {_another(files, path)}",
        )
    return shape.generate()


def _another(files: StackFiles, path: Path) -> str:
    """Return the command that replaces a secret: by a new one where a command makes it, else by a prompted value."""
    words = SHAPES[str(path[0])].command
    name = next((name for name, keys in ROTATED.items() if path[0] in keys), "")
    if name:
        return hints.kit("keys", "rotate", name, stack=files.stack)
    return hints.kit(*words, stack=files.stack) if words else hints.assign(str(path[0]), stack=files.stack)


def apply(pulumi: Pulumi, changes: Collection[Change]) -> tuple[str, ...]:
    """Write the changes, all or none, and return the problems that the settings had before and still have.

    Places in lists (`cors.v1[1]`) are those before the changes. Raises KitError with the problems that the changes
    would make, and then nothing is written.
    """
    files = pulumi.files
    before = settings.given(files, decrypt=True)
    known = set(_problems(files, before))
    encrypted = before.encrypted | {change.key for change in changes if change.secret}
    after = Given(values=with_changes(before.values, changes), encrypted=encrypted)
    found = _problems(files, after)
    if made := [line for line in found if line not in known]:
        listed = "\n".join(f"  - {line}" for line in made)
        raise KitError(f"nothing was changed; with it the settings could not work:\n{listed}", settings.HINT)
    _write(pulumi, changes, before.values)
    return found


def planned(files: StackFiles, changes: Collection[Change]) -> stack_settings.Reading:
    """Return the settings as they are after changes. Nothing is written, and secrets are not decrypted."""
    before = settings.given(files)
    after = Given(values=with_changes(before.values, changes), encrypted=before.encrypted)
    return stack_settings.read(after, files.stack, settings_file=files.config_file)


def _problems(files: StackFiles, given: Given) -> tuple[str, ...]:
    return stack_settings.read(given, files.stack, settings_file=files.config_file).problems


def with_changes(values: Mapping[str, Any], changes: Collection[Change]) -> dict[str, Any]:
    """Return a copy of the values with the changes made; what is checked and what is written both come from here."""
    changed = dict(values)
    for change in changes:
        if change.value is not None:
            changed = setting_path.put(changed, change.path, change.value)
    removed = [change.path for change in changes if change.value is None]
    for path in removed:
        _require_set(changed, path)
    return setting_path.drop_all(changed, removed)


def _require_set(values: Mapping[str, Any], path: Path) -> None:
    if setting_path.get(values, path) is None:
        name = setting_path.text_of(path)
        around = setting_path.get(values, path[:-1])
        parts = (
            [setting_path.text_of((*path[:-1], one)) for one in around] if isinstance(around, dict) else []
        )
        raise UsageError(f"{PROJECT}:{name} is not set; nothing was changed", hints.nearest(name, parts))


def _write(pulumi: Pulumi, changes: Collection[Change], opened: Mapping[str, Any]) -> None:
    """Write each changed setting as a whole, its encrypted parts as they are stored; `opened` has all decrypted.

    All of them, or none: a command that is killed leaves the settings of before.
    """
    now = stored(pulumi.files)
    # Of a setting that is one encrypted text, a part cannot be written: it is encrypted again as a whole.
    sealed = {one.key for one in changes if settings.is_secure(now.get(one.key)) and len(one.path) > 1}
    now |= {key: opened[key] for key in sealed}
    parts = [one for one in changes if _encrypted_part(one) and one.key not in sealed]
    whole = [one for one in changes if one not in parts]
    after = with_changes(now, whole)
    secret = sealed | {one.key for one in whole if one.secret and one.value is not None}
    touched = dict.fromkeys(one.key for one in whole)
    entries = {
        f"{PROJECT}:{key}": objects.entry(after[key], secret=key in secret) for key in touched if key in after
    }
    if parts:
        pulumi.store_objects()
    with pulumi.editing():
        if entries:
            # By the environment, which only this user can read: arguments are in the process list.
            pulumi.run("config", "set-all", extra={"PULUMI_OPTION_JSON": json.dumps(entries)})
        for key in touched:
            if key not in after:
                pulumi.run("config", "rm", f"{PROJECT}:{key}")
        for one in parts:
            name = f"{PROJECT}:{setting_path.text_of(one.path)}"
            pulumi.run("config", "set", "--secret", "--path", name, stdin=str(one.value))


def _encrypted_part(change: Change) -> bool:
    """Whether Pulumi has to encrypt a part of an object. What is encrypted already is written as it is stored."""
    return change.secret and change.value is not None and len(change.path) > 1


def stored(files: StackFiles) -> dict[str, Any]:
    """Return the settings of a stack's file, JSON types, encrypted values as they are stored."""
    return {
        (name := key.removeprefix(f"{PROJECT}:")): value if settings.is_secure(value) else parsed(name, value)
        for key, value in files.config().items()
        if key.startswith(f"{PROJECT}:")
    }
