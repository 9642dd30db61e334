"""Makes a stack again from an archive.

The archive is read three times: once to compare every hash before anything is changed, then for the volumes, then
for the databases, whose server runs by then. Until the end, a mark in the data directory says that the stack is not
complete.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dify_kit.backup import moving, settings_part, state_part
from dify_kit.backup.archive import About, Manifest, check, parts
from dify_kit.backup.making import told
from dify_kit.backup.placing import store_of
from dify_kit.backup.postgres import SERVICES, Postgres
from dify_kit.backup.stores import ROOT, Volumes, filled
from dify_kit.backup.trees import BrokenTreeError, Census, count
from dify_kit.checks import preflight
from dify_kit.containers.docker_host import Engine
from dify_kit.deploying import bring_up, take_down
from dify_kit.engine.cli import Outcome, Pulumi, require_success
from dify_kit.engine.recovery import recover
from dify_kit.errors import KitError
from dify_kit.images import node_images
from dify_kit.stack import forget, leftovers, setting_path, unfinished
from dify_kit.stack import settings as stack_settings
from dify_kit.stack.cluster_objects import ClusterObjects, cluster_objects
from dify_kit.stack.protection import refuse_data_loss
from dify_kit.stack.volumes import find as find_volumes
from dify_kit.talk import say, step, warn
from dify_kit.workspace import secrets
from dify_kit.workspace.files import PROJECT, StackFiles, write_private
from infra import hints
from infra.catalogue.releases import version_number
from infra.catalogue.selection import volume_names
from infra.catalogue.service import Keep
from infra.guards.volumes import labels
from infra.settings import stack as reader
from infra.settings.given import Given
from infra.settings.program import DATA_TIER_ALONE
from infra.settings.stack import Settings

DOWN_SECONDS, DATA_TIER_SECONDS = 1800.0, 1800.0


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a restore is to make: a stack of this name, from an archive.

    `source` is how messages name the archive, where that is no path of this machine. `release` is newer than the
    archive's, or empty for the same. `settings` replace those of the archive, None removes one; then `parts` are set,
    each at its path. `replace` deletes the stack of this name that is there. `rollback` says that this takes an upgrade
    back: of a protected stack too, and `rollback` starts over. `machine` are settings of this machine, which no archive
    has, by their whole keys. `without` are volumes that are not restored.
    """

    archive: Path
    passphrase: str
    stack: str
    source: str = ""
    release: str = ""
    settings: Mapping[str, object] = field(default_factory=dict)
    parts: Sequence[tuple[setting_path.Path, object]] = ()
    replace: bool = False
    rollback: bool = False
    machine: Mapping[str, object] = field(default_factory=dict)
    without: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Checked:
    """An archive that was read to its end: its manifest and the small parts that make the stack."""

    manifest: Manifest
    small: Mapping[str, bytes]

    @property
    def about(self) -> About:
        """What the archive is of."""
        return self.manifest.about


def examine(archive: Path, passphrase: str) -> Checked:
    """Read an archive to its end and compare everything with its manifest. Raises KitError; changes nothing."""
    small: dict[str, bytes] = {}
    found: dict[str, Census | BrokenTreeError] = {}

    def inspect(name: str, content: Iterator[bytes]) -> None:
        if name.startswith("stack/"):
            small[name] = b"".join(content)
        elif name.startswith("volumes/"):
            try:
                found[name] = count(told(name, content), root=ROOT)
            except BrokenTreeError as problem:
                # Of a copy that was made again, which the manifest then has instead.
                found[name] = problem
        else:
            for _ in told(name, content):
                pass

    step(f"checking {archive}")
    manifest = check(archive, passphrase, inspect)
    for name, census in found.items():
        part = manifest.parts.get(name)
        if part and census != Census(files=part.files, bytes=part.bytes, digest=part.digest):
            raise KitError(
                f"{archive} is damaged: {name} does not hold the {part.files} files of {part.bytes} bytes that its "
                "manifest says; nothing was changed",
                "use another copy of the archive",
            )
    _refuse_unknown(archive, manifest)
    if "stack/settings.json" not in small:
        raise KitError(f"{archive} has no settings; nothing was changed", "use another copy of the archive")
    about = manifest.about
    say(f"stack {about.stack}, Dify {about.release}, dify-kit {about.kit}, of {about.created}: complete")
    for line in about.left_out:
        warn(f"not in the archive: {line}")
    return Checked(manifest=manifest, small=small)


def _refuse_unknown(archive: Path, manifest: Manifest) -> None:
    """Raise KitError for a volume or a database server that no stack has."""
    known = {f"volumes/{name}" for name in volume_names(Keep.DATA, Keep.RECORDS) if name != "postgres"}
    known |= {f"databases/{service}" for service in SERVICES}
    for name in manifest.parts:
        kind, _, rest = name.partition("/")
        owner = f"{kind}/{rest.partition('/')[0].partition('.')[0]}"
        if kind != "stack" and owner not in known:
            raise KitError(
                f"{archive} has {name}, which this version of the kit does not know; nothing was changed",
                f"use dify-kit {manifest.about.kit} or newer",
            )


def release_of(about: About, wanted: str) -> str:
    """Return the release that the restored stack runs. Raises KitError for an older one."""
    if wanted and version_number(wanted) < version_number(about.release):
        raise KitError(
            f"--release {wanted}: the archive is of Dify {about.release}, which has no way back; nothing was changed",
            f"leave the option out, or name {about.release} or newer",
        )
    return wanted or about.release


def platform_of(checked: Checked, parts: Sequence[tuple[setting_path.Path, object]]) -> str:
    """Return the platform of the stack that is made, before its settings are checked."""
    return moving.platform_of({}, parts, json.loads(checked.small["stack/settings.json"])["config"])


def restore(
    wish: Wish,
    checked: Checked,
    docker: Callable[[], Engine],
    *,
    deadline: float,
    verbose: bool = False,
) -> Outcome:
    """Make the stack of a wish and return how its last deployment ended. The caller holds the stack's lock.

    `docker` connects to the Docker engine, where the new stack or the one that is replaced is on one. Raises KitError.
    Before anything is changed where the archive, the settings or what is there do not fit; until its data is complete
    the stack stays marked as unfinished, and the same command starts over; then `up` continues.
    """
    files = StackFiles.open(wish.stack)
    # What runs the stack of this name that is there, which may be another platform.
    before = cluster_objects(files) if files.configured() else None
    settings, engine = _planned(wish, checked, files, docker)
    node_images.ensure(settings)
    _remove(wish, files, before or (docker() if files.configured() else engine))
    pulumi = Pulumi(files=files)
    # What a run that was cut off left in the new place.
    _forget(wish, pulumi, engine)
    config = _config(wish, checked, files.data.restored(wish.stack), say=warn)
    _write_settings(checked, config, files)
    if not pulumi.created():
        pulumi.run("stack", "init", "--no-select")
    _fill(wish, checked, store_of(settings), labels(settings))
    step(f"starting the data tier of stack {wish.stack}")
    _data_tier(pulumi, engine, deadline=min(deadline, DATA_TIER_SECONDS), verbose=verbose)
    _load(wish, checked, engine)
    _import_state(checked, pulumi, settings)
    # The data is complete. What is left is a deployment like any other, which `up` continues.
    unfinished.unmark(files)
    try:
        return bring_up(pulumi, engine, deadline=deadline, verbose=verbose)
    except KitError as problem:
        continues = hints.kit("up", stack=wish.stack)
        raise type(problem)(
            f"the data of stack {wish.stack} is restored and complete, and its deployment is not: {problem.message}",
            f"`{continues}` continues from here{f'. {problem.hint}' if problem.hint else ''}",
        ) from None


def _remove(wish: Wish, files: StackFiles, engine: Engine) -> None:
    """Delete the stack that is there, with its data, where there is one."""
    if files.configured():
        take_down(files, engine, deadline=DOWN_SECONDS)
    # From here on data is deleted.
    unfinished.mark(files, wish.source or str(wish.archive), rollback=wish.rollback)
    _forget(wish, Pulumi(files=files), engine)


def _forget(wish: Wish, pulumi: Pulumi, engine: Engine) -> None:
    """Delete what is there, except the mark that the stack is not complete, and what `rollback` needs."""
    data = pulumi.files.data
    kept = [data.restoring(wish.stack), *([data.upgrade(wish.stack)] if wish.rollback else [])]
    forget.forget(pulumi, engine, forget.find(pulumi, engine), delete_data=True, keep=kept)


def _refuse_other_data(wish: Wish, files: StackFiles, engine: Engine) -> None:
    """Raise KitError where a stack of that name is there that may not be replaced."""
    find_volumes(engine, wish.stack).refuse_foreign()
    if files.own_file():
        raise KitError(
            f"the settings of stack {wish.stack} are a file of your own, {files.linked}; nothing was changed",
            "move it away first, or restore under another name with --stack",
        )
    if unfinished.archive_of(files):
        return
    if wish.rollback:
        return
    if wish.replace:
        refuse_data_loss(files, "it is not replaced")
        return
    if files.configured():
        raise KitError(
            f"stack {wish.stack} exists already ({files.config_file}); nothing was changed",
            f"restore under another name with --stack, or delete it and all of its data for the archive's: --replace "
            f"{wish.stack}",
        )
    leftovers.refuse(files, engine, Pulumi(files=files).state())


def _planned(
    wish: Wish, checked: Checked, files: StackFiles, docker: Callable[[], Engine]
) -> tuple[Settings, Engine]:
    """Return the settings of the new stack, and what will run it.

    Raises KitError when what is there, the settings, this machine or the cluster do not do; changes nothing.
    """
    with _planned_files(files) as folder:
        config = _config(wish, checked, folder)
        own = {key.partition(":")[2]: value for key, value in config.items() if key.startswith(f"{PROJECT}:")}
        given = Given.of(
            {key: settings_part.readable(value) for key, value in own.items()},
            [key for key, value in own.items() if settings_part.holds_secret(value)],
        )
        reading = reader.read(given, files.stack, settings_file=files.config_file)
        chosen = reading.settings.kubernetes
        if chosen and not reading.sound("kubernetes"):
            stack_settings.sound(reading, hint=stack_settings.LIST)
        engine = ClusterObjects(stack=wish.stack, chosen=chosen) if chosen else docker()
        _refuse_other_data(wish, files, engine)
        settings = stack_settings.sound(reading, hint=stack_settings.LIST)
        preflight.guard(files, reading, engine)
    return settings, engine


@contextmanager
def _planned_files(files: StackFiles) -> Iterator[Path]:
    """Yield an empty directory for the files that the settings name, which may be keys, and remove it."""
    folder = files.data.planned(files.stack)
    forget.remove_path(folder)
    try:
        yield folder
    finally:
        forget.remove_path(folder)


def _config(
    wish: Wish, checked: Checked, folder: Path, *, say: Callable[[str], None] = lambda _line: None
) -> dict[str, Any]:
    """Return the settings of the new stack. The files that they name are written below `folder`.

    `say` is called with a line for each setting of another platform that is left out.
    """
    document = json.loads(checked.small["stack/settings.json"])
    config: dict[str, Any] = {**document["config"], **wish.machine}
    config[f"{PROJECT}:release"] = release_of(checked.about, wish.release)
    platform = moving.platform_of(wish.settings, wish.parts, config)
    config, lines = moving.moved(config, platform)
    for line in lines:
        say(line)
    for key, value in wish.settings.items():
        if value is None:
            config.pop(f"{PROJECT}:{key}", None)
        else:
            config[f"{PROJECT}:{key}"] = value
    for path, value in wish.parts:
        config = setting_path.put(config, (f"{PROJECT}:{path[0]}", *path[1:]), value)
    if content := checked.small.get("stack/files.tar"):
        places = {inner: place for inner, place in document["files"].items() if place[0] in config}
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        settings_part.extract_files(content, places, config, folder)
    return config


def _write_settings(checked: Checked, config: Mapping[str, Any], files: StackFiles) -> None:
    """Write settings, clients and keys, encrypted with the passphrase of this data directory."""
    passphrase = secrets.passphrase_of(Pulumi(files=files).environment)
    if passphrase is None:
        raise KitError(
            "there is no passphrase for the secrets of stacks", "set PULUMI_CONFIG_PASSPHRASE_FILE"
        )
    document = settings_part.sealed_document(config, passphrase)
    for part, name in (("stack/proxy-keys.json", "proxy-keys"), ("stack/clients.json", "clients")):
        if part in checked.small:
            write_private(files.data.stacks / f"{name}.{files.stack}.json", checked.small[part].decode())
    write_private(files.stored, yaml.safe_dump(document, sort_keys=False))
    files.link()
    say(f"settings and secrets of stack {files.stack}: {files.stored}")


def _fill(wish: Wish, checked: Checked, store: Volumes, own: Mapping[str, str]) -> None:
    """Make the volumes and fill them. Raises KitError when one then holds something else than the archive."""
    for part, content in parts(wish.archive, wish.passphrase, checked.manifest):
        kind, _, file = part.name.partition("/")
        # A copy that was made again has its number after the name.
        name = file.partition(".")[0]
        if kind != "volumes" or name in wish.without:
            continue
        volume = f"dify-{wish.stack}-{name}"
        census = filled(store, volume, own, told(f"volume {name}", content), part.size)
        if census != Census(files=part.files, bytes=part.bytes, digest=part.digest):
            raise KitError(
                f"volume {volume} holds {census.files} files of {census.bytes} bytes after it was filled, and the "
                f"archive {part.files} of {part.bytes}",
                "run the same command again: it starts over",
            )
        say(f"volume {name}: {census.files} files, each as in the archive")


def _data_tier(pulumi: Pulumi, engine: Engine, *, deadline: float, verbose: bool) -> None:
    recover(pulumi, engine, deploying=True)
    alone = Pulumi(files=pulumi.files, environment=pulumi.environment | {DATA_TIER_ALONE: "1"})
    outcome = alone.stream("up", "--yes", "--skip-preview", deadline=deadline, verbose=verbose)
    require_success(outcome, f"starting the data tier of stack {pulumi.files.stack}", pulumi.files.stack)


def _load(wish: Wish, checked: Checked, engine: Engine) -> None:
    """Load the databases. Raises KitError when a table then has another number of rows than in the archive."""
    containers = {one.service: one.id for one in engine.workloads(wish.stack) if one.state == "running"}
    for part, content in parts(wish.archive, wish.passphrase, checked.manifest):
        kind, _, rest = part.name.partition("/")
        if kind != "databases":
            continue
        service, _, file = rest.partition("/")
        database = file.removesuffix(".sql")
        if service not in containers:
            raise KitError(f"{service} does not run", "run the same command again: it starts over")
        server = Postgres(container=containers[service], name=service)
        server.load(database, told(f"database {database}", content))
        rows = server.rows(database, list(part.rows))
        if wrong := [table for table, number in part.rows.items() if rows.get(table) != number]:
            raise KitError(
                f"database {database} has {rows.get(wrong[0])} rows in {wrong[0]} after the load, and the archive "
                f"{part.rows[wrong[0]]}",
                "run the same command again: it starts over",
            )
        say(f"database {database}: {sum(rows.values())} rows of {len(rows)} tables, as in the archive")


def _import_state(checked: Checked, pulumi: Pulumi, settings: Settings) -> None:
    """Give the state what it knew of Dify's apps and keys. By standard input: the document has secrets."""
    resources = json.loads(checked.small.get("stack/state.json", b"[]"))
    exported = json.loads(pulumi.run("stack", "export", "--show-secrets").stdout)
    if not resources:
        return
    deployment = state_part.merged(
        exported["deployment"],
        resources,
        old=checked.about.stack,
        new=pulumi.files.stack,
        reference=moving.references(settings),
    )
    pulumi.run("stack", "import", stdin=json.dumps({**exported, "deployment": deployment}))
    say(f"apps and keys of Dify that the stack knows: {len(resources)} entries of its state")
