"""The plan of an upgrade: what it will do, and what keeps it from being done. Making one changes nothing."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dify_kit.backup import making, settings_part
from dify_kit.checks import preflight
from dify_kit.containers.docker_host import Engine
from dify_kit.engine.cli import Pulumi
from dify_kit.errors import KitError, UsageError
from dify_kit.images import wanted
from dify_kit.images.wanted import Wanted
from dify_kit.stack import settings as stack_settings
from dify_kit.stack import unfinished
from dify_kit.upgrade import changes, data, path
from dify_kit.upgrade.journal import Kind, Step
from dify_kit.upgrade.path import Move, Written
from dify_kit.upgrade.variables import Moved
from dify_kit.workspace.files import StackFiles
from infra import hints
from infra.catalogue.releases import Advisory, Release, catalogue, version_number
from infra.platforms import image_needs
from infra.settings.stack import Reading, Settings

PASSPHRASE = "passphrase"  # noqa: S105  # a file
_MEBIBYTE = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What the operator chose: the release, and where the archive goes; `backup` and `smoke` say what is done.

    Without `passphrase_file` the kit generates a passphrase and keeps it next to its archives.
    """

    target: str
    folder: Path
    passphrase_file: Path | None = None
    backup: bool = True
    smoke: bool = True


@dataclass(frozen=True, kw_only=True)
class Plan:
    """An upgrade that can be done. `settings` are those of now, `moved` the variables that change, `size` in bytes.

    `passed` are the releases after the one of now, up to the target; `pulled` and `built` the images that the engine
    lacks; `passphrase` is the file with that of the archive.
    """

    stack: str
    choice: Choice
    settings: Settings
    written: Written
    moves: tuple[Move, ...]
    passed: tuple[Release, ...]
    moved: tuple[tuple[Moved, str], ...]
    pulled: tuple[Wanted, ...]
    built: tuple[Wanted, ...]
    size: int
    passphrase: Path

    @property
    def old(self) -> Release:
        """The release of now."""
        return self.settings.dify

    @property
    def new(self) -> Release:
        """The release that the stack gets."""
        return self.passed[-1]

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps, in their order."""
        found = [Step(kind=Kind.FETCH)] if self.pulled else []
        if self.choice.backup:
            found.append(Step(kind=Kind.BACKUP))
        found += [Step(kind=Kind.MOVE, release=one.release, weaviate=one.weaviate) for one in self.moves]
        if self.choice.smoke:
            found.append(Step(kind=Kind.SMOKE))
        return tuple(found)

    @property
    def closed(self) -> tuple[Advisory, ...]:
        """The known vulnerabilities that the stack no longer has afterwards."""
        left = {one.id for one in self.new.advisories}
        return tuple(one for one in self.old.advisories if one.id not in left)


def make(pulumi: Pulumi, engine: Engine, choice: Choice) -> Plan:
    """Return the plan of an upgrade. Raises KitError where something keeps it from being done; changes nothing."""
    files = pulumi.files
    unfinished.refuse(files)
    settings = stack_settings.checked(files)
    known = catalogue(settings.catalogue)
    _refuse_target(known, settings, choice)
    written = _written(settings)
    moves = path.moves(known, written, choice.target, vector_store=settings.own_vector_store)
    _refuse_unwell(files, engine)
    moved = _check_settings(files, engine, settings, known, moves)
    size = data.size(files.stack)
    preflight.check_disk(engine)
    if choice.backup:
        _check_backup(pulumi, engine, choice, size)
    pulled, built = _images(settings, known, moves, engine)
    return Plan(
        stack=files.stack,
        choice=choice,
        settings=settings,
        written=written,
        moves=moves,
        passed=path.passed(known, settings.release, choice.target),
        moved=moved,
        pulled=pulled,
        built=built,
        size=size,
        passphrase=choice.passphrase_file or files.data.backups / PASSPHRASE,
    )


def _refuse_target(known: Mapping[str, Release], settings: Settings, choice: Choice) -> None:
    if choice.target not in known:
        raise UsageError(
            f"release {choice.target} is not in the catalogue",
            f"{hints.nearest(choice.target, known)} "
            f"`{hints.kit('release', 'list')}` shows all; docs/guides/releases.md imports another one",
        )
    now, then = version_number(settings.release), version_number(choice.target)
    if then > now:
        return
    if then == now:
        raise KitError(
            f"stack {settings.stack} has Dify {choice.target} already; nothing was changed",
            f"`{hints.kit('up', stack=settings.stack)}` deploys it",
        )
    raise KitError(
        f"stack {settings.stack} has Dify {settings.release}, and Dify cannot migrate data back to {choice.target}; "
        "nothing was changed",
        f"`{hints.kit('rollback', stack=settings.stack)}` takes the last upgrade back, by the archive that it made; an "
        "archive of that release is restored by `restore`",
    )


def _written(settings: Settings) -> Written:
    """Return what wrote the data. Raises KitError where that is not the release of the settings."""
    stack, written = settings.stack, data.written(settings.stack)
    up = hints.kit("up", stack=stack)
    if written is None:
        raise KitError(
            f"stack {stack} is not deployed: it has no data to migrate; nothing was changed",
            f"`{hints.assign('release', settings.release, stack=stack)}` with another release, then `{up}`",
        )
    if written.release != settings.release:
        raise KitError(
            f"stack {stack}: the settings say Dify {settings.release}, and its data is of {written.release}; "
            "nothing was changed",
            f"`{hints.assign('release', written.release, stack=stack)}` and `{up}`, then upgrade",
        )
    return written


def _refuse_unwell(files: StackFiles, engine: Engine) -> None:
    """Raise KitError where the stack does not run: what is wrong after an upgrade would not be of the upgrade."""
    stack, containers = files.stack, engine.containers(files.stack)
    sick = [f"{one.service} {wrong}" for one in containers if (wrong := one.sick())]
    if sick or not containers:
        raise KitError(
            f"stack {stack} is not healthy: {', '.join(sick) or 'it has no containers'}; nothing was changed",
            f"`{hints.kit('up', stack=stack)}` repairs it, then upgrade",
        )


def _check_settings(
    files: StackFiles,
    engine: Engine,
    settings: Settings,
    known: Mapping[str, Release],
    moves: tuple[Move, ...],
) -> tuple[tuple[Moved, str], ...]:
    """Return the variables that each release takes otherwise. Raises KitError where the settings do not fit one."""
    given = stack_settings.given(files, decrypt=True)
    found: list[tuple[Moved, str]] = []
    old = settings.dify
    readings: list[Reading] = []
    for move in moves:
        new = known[move.release]
        made = changes.changes(files, given.values, move, old, new)
        reading = changes.reading(files, given, made)
        if reading.problems:
            listed = "\n".join(f"  - {line}" for line in reading.problems)
            raise KitError(
                f"the settings of stack {files.stack} do not fit Dify {move.release}; nothing was changed:\n{listed}",
                stack_settings.HINT,
            )
        found += [(one, new.version) for one in changes.extra_moved(given.values, old, new)]
        given = changes.given_after(given, made)
        old = new
        readings.append(reading)
    # The engine has to have `preloaded` images of every place; the other guards say the same for each.
    for reading in readings if settings.images == "preloaded" else readings[-1:]:
        preflight.guard(files, reading, engine)
    return tuple(found)


def _check_backup(pulumi: Pulumi, engine: Engine, choice: Choice, size: int) -> None:
    """Raise KitError where the archive could not be written, or `rollback` not restore it."""
    files = pulumi.files
    if files.own_file():
        raise KitError(
            f"the settings of stack {files.stack} are a file of your own, {files.linked}, which `rollback` does not "
            "replace; nothing was changed",
            "make a backup and upgrade with --without-backup: the release is then changed in that file, and the way "
            "back is `restore` under another name",
        )
    making.source(pulumi, engine)
    settings_part.plain_settings(files, pulumi.environment)
    folder = choice.folder
    if folder != files.data.backups and not folder.is_dir():
        raise KitError(f"--to {folder}: there is no such directory; nothing was changed", "make it first")
    there = next(one for one in (folder, *folder.parents) if one.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        raise KitError(
            f"--to {folder}: you cannot write there; nothing was changed", "name another directory"
        )
    free = shutil.disk_usage(there).free
    if free < size:
        raise KitError(
            f"{free // _MEBIBYTE} MiB are free in {folder}, and the archive may need {size // _MEBIBYTE} MiB; "
            "nothing was changed",
            "make room, or name a directory on another disk: --to",
        )


def _images(
    settings: Settings, known: Mapping[str, Release], moves: tuple[Move, ...], engine: Engine
) -> tuple[tuple[Wanted, ...], tuple[Wanted, ...]]:
    """Return the images that the engine lacks: those that are pulled, and those that are built on this machine."""
    parts, source = image_needs.parts_of(settings), wanted.source_of(settings)
    needed: dict[str, Wanted] = {}
    for move in moves:
        release = known[move.release].with_weaviate(move.weaviate)
        needed |= {one.reference: one for one in wanted.wanted(parts, release, source)}
    there = set(engine.images(list(needed)))
    missing = [one for reference, one in needed.items() if reference not in there]
    # `preloaded` images are refused by a guard where they are missing.
    pulled = [one for one in missing if not one.build and source.mode != "preloaded"]
    return tuple(pulled), tuple(one for one in missing if one.build)
