"""The settings of a stack at a place of its upgrade: what has to change, from however far they are."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dify_kit.stack import changing, setting_path, settings
from dify_kit.stack.changing import Change
from dify_kit.upgrade.path import Move
from dify_kit.upgrade.variables import Moved, moved
from dify_kit.workspace.files import StackFiles
from infra.catalogue.releases import Release, catalogue
from infra.settings.given import Given, parsed
from infra.settings.stack import Reading, read

EXTRA, RELEASE, WEAVIATE = "extraEnv", "release", "weaviateVersion"


def known(files: StackFiles) -> Mapping[str, Release]:
    """Return the releases that a stack may have, by its catalogue."""
    given = settings.given(files).values.get("catalogue")
    return catalogue(Path(str(given)).expanduser() if given else None)


def changes(
    files: StackFiles, values: Mapping[str, Any], move: Move, old: Release, new: Release
) -> list[Change]:
    """Return what brings settings to a place. `values` are the settings of now, secrets decrypted.

    `old` is the release that the settings were made for. Made again, after an interruption too, nothing is left.
    """
    found = [] if values.get(RELEASE) == move.release else [Change(path=(RELEASE,), value=move.release)]
    if move.weaviate and values.get(WEAVIATE) != move.weaviate:
        found.append(Change(path=(WEAVIATE,), value=move.weaviate))
    if not move.weaviate and values.get(WEAVIATE):
        found.append(Change(path=(WEAVIATE,)))
    for one in extra_moved(values, old, new):
        place = (EXTRA, one.service, one.name)
        found.append(Change(path=place, secret=False))
        if one.renamed and not one.kept:
            secret = settings.is_secure(setting_path.get(changing.stored(files), place))
            found.append(Change(path=(*place[:2], one.renamed), value=one.value, secret=secret))
    return found


def extra_moved(values: Mapping[str, Any], old: Release, new: Release) -> Sequence[Moved]:
    """Return what becomes of the variables that a stack sets by itself."""
    extra = parsed(EXTRA, values.get(EXTRA) or {})
    return list(moved(extra, old, new)) if isinstance(extra, dict) else []


def reading(files: StackFiles, given: Given, wanted: Sequence[Change]) -> Reading:
    """Return the settings as they are after these changes, with what is wrong with them."""
    return read(given_after(given, wanted), files.stack, settings_file=files.config_file)


def given_after(given: Given, wanted: Sequence[Change]) -> Given:
    """Return what a stack sets after these changes."""
    encrypted = given.encrypted | {one.key for one in wanted if one.secret}
    return Given(values=changing.with_changes(given.values, wanted), encrypted=encrypted)
