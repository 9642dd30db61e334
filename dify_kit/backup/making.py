"""Makes an archive of a stack that serves: databases first, then files, so that the file of each row exists."""

import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from dify_kit.backup import settings_part, state_part, writing
from dify_kit.backup.archive import FORMAT, PIECE_BYTES, About, Manifest, Writer
from dify_kit.backup.buckets import Place
from dify_kit.backup.placing import store_of
from dify_kit.backup.postgres import SERVICES, Postgres, Rows
from dify_kit.backup.sealing import sealed
from dify_kit.backup.stores import ROOT, VolumeError, Volumes
from dify_kit.backup.trees import BrokenTreeError, Counted
from dify_kit.containers.docker_host import Container, Engine
from dify_kit.engine.cli import Pulumi
from dify_kit.errors import KitError
from dify_kit.stack import cut_off_backup, redis_files
from dify_kit.stack import settings as stack_settings
from dify_kit.talk import say, warn
from dify_kit.workspace.files import write_private
from infra import hints
from infra.catalogue.selection import volume_names
from infra.catalogue.service import Keep
from infra.settings.oauth_clients import clients_path
from infra.settings.proxy_keys import file_of
from infra.settings.stack import Settings

# Vector stores whose files agree with each other only while the server is stopped.
STOPPED_FOR_A_COPY = frozenset({"weaviate", "qdrant"})
# A file that shrinks while the engine reads it ends the copy of its volume.
_TRIES = 3
_REPORT_SECONDS = 5.0
_MEBIBYTE = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Source:
    """The stack that is backed up, on its engine or cluster."""

    pulumi: Pulumi
    engine: Engine
    volumes: Volumes
    settings: Settings
    containers: dict[str, Container]

    @property
    def stack(self) -> str:
        """The stack's name."""
        return self.pulumi.files.stack


def source(pulumi: Pulumi, engine: Engine) -> Source:
    """Return a stack that can be backed up. Raises KitError."""
    files = pulumi.files
    settings = stack_settings.checked(files)
    if settings.database is not None:
        raise KitError(
            f"stack {files.stack} has an external database (dify:database.host): `backup` does not reach it",
            "back it up with pg_dump or its provider's tools, together with the volumes: docs/guides/backup.md",
        )
    # Of several pods any one does, where there is one that runs.
    containers = {one.service: one for one in sorted(engine.workloads(files.stack), key=_runs)}
    needed = [name for name in SERVICES if name == SERVICES[0] or name == settings.own_vector_store]
    if missing := [name for name in needed if name not in containers or containers[name].state != "running"]:
        raise KitError(
            f"stack {files.stack} cannot be backed up: {', '.join(missing)} does not run",
            hints.kit("up", stack=files.stack),
        )
    return Source(
        pulumi=pulumi,
        engine=engine,
        volumes=store_of(settings),
        settings=settings,
        containers=containers,
    )


def _runs(container: Container) -> bool:
    return container.state == "running" and container.health in {"", "healthy"}


def left_out(settings: Settings, *, vectors: bool) -> tuple[str, ...]:
    """Return what an archive does not hold, and what follows."""
    found = []
    if settings.storage.type != "fs":
        found.append("uploaded files: they are in the bucket of dify:storage, which keeps them by itself")
    if settings.redis is not None:
        found.append("sessions and queues: they are in the Redis of dify:redis; users sign in again")
    if settings.vector_server is not None:
        found.append(
            "vectors: they are in the server of dify:vectorServer; back it up with its own tools at the same time, or "
            "index the documents again after a restore"
        )
    elif settings.vector_store in STOPPED_FOR_A_COPY and not vectors:
        found.append("vectors: documents of knowledge bases have to be indexed again after a restore")
    return tuple(found)


def write(found: Source, target: Path | Place | None, passphrase: str, *, vectors: bool = True) -> Manifest:
    """Write an encrypted archive of a stack to a file, an object, or standard output, and note it. Raises KitError.

    It appears complete or not at all.
    """
    files = found.pulumi.files
    cut_off_backup.mend(files, found.engine)
    with (
        cut_off_backup.noted(files, target if isinstance(target, Path) else None),
        writing.written(target) as raw,
        sealed(raw, passphrase) as stream,
    ):

        def writer_of(about: About) -> Writer:
            return Writer(stream, about, int(datetime.now(tz=UTC).timestamp()))

        manifest = make(found, writer_of, vectors=vectors)
    note(found.pulumi, target, manifest)
    return manifest


def make(found: Source, writer_of: Callable[[About], Writer], *, vectors: bool) -> Manifest:
    """Write an archive of a stack and return its manifest. Raises KitError; the caller removes what was written."""
    about = About(
        format=FORMAT,
        kit=version("dify-kit"),
        stack=found.stack,
        release=found.settings.release,
        images=found.settings.images,
        vector_store=found.settings.vector_store,
        postgres=_server(found, SERVICES[0]).query("postgres", "SHOW server_version")[0],
        created=datetime.now(tz=UTC).isoformat(timespec="seconds"),
        left_out=left_out(found.settings, vectors=vectors),
    )
    for line in about.left_out:
        warn(f"not in the archive: {line}")
    writer = writer_of(about)
    _stack(found, writer)
    for service in SERVICES:
        if service in found.containers:
            _databases(found, service, writer)
    for name in _volumes(found, vectors=vectors):
        with _still(found, name):
            _volume(found, name, writer)
    return writer.close()


def _stack(found: Source, writer: Writer) -> None:
    """Write settings, clients, keys, the files that settings name, and what the state knows of Dify."""
    files = found.pulumi.files
    config = settings_part.plain_settings(files, found.pulumi.environment)
    with tempfile.TemporaryFile() as tree:
        places = settings_part.files_tar(config, tree)
        tree.seek(0)
        if places:
            writer.add(writer.part("stack/files.tar", iter(lambda: tree.read(PIECE_BYTES), b"")))
    document = {"config": config, "files": places}
    writer.add(writer.part("stack/settings.json", [json.dumps(document).encode()]))
    lists = {
        "stack/proxy-keys.json": file_of(files.config_file, files.stack),
        "stack/clients.json": clients_path(files.stack, files.config_file),
    }
    for name, path in lists.items():
        if path.exists():
            writer.add(writer.part(name, [path.read_bytes()]))
    if found.pulumi.created():
        exported = json.loads(found.pulumi.run("stack", "export", "--show-secrets").stdout)
        resources = state_part.kept(exported.get("deployment") or {})
        writer.add(writer.part("stack/state.json", [json.dumps(resources).encode()]))
    say(f"settings, secrets and keys of stack {files.stack}")


def _server(found: Source, service: str) -> Postgres:
    return Postgres(container=found.containers[service].id, name=service)


def _databases(found: Source, service: str, writer: Writer) -> None:
    server = _server(found, service)
    for database in server.databases():
        rows = Rows()
        shown = f"database {database} of {service}"
        part = writer.part(f"databases/{service}/{database}.sql", told(shown, server.dump(database, rows)))
        writer.add(replace(part, rows=rows.tables))
        say(f"{shown}: {sum(rows.tables.values())} rows of {len(rows.tables)} tables, {_size(part.size)}")


def _volumes(found: Source, *, vectors: bool) -> list[str]:
    """Return the logical names of the volumes that are copied as files."""
    without = {"postgres"}
    if found.settings.own_vector_store not in STOPPED_FOR_A_COPY or not vectors:
        without.add("vector")
    names = [name for name in volume_names(Keep.DATA, Keep.RECORDS) if name not in without]
    there = found.engine.volumes([f"dify-{found.stack}-{name}" for name in names])
    return [name for name in names if f"dify-{found.stack}-{name}" in there]


@contextlib.contextmanager
def _still(found: Source, name: str) -> Iterator[None]:
    """Let nothing rewrite the files of a volume while it is copied, as far as its owner accepts that."""
    owner = redis_files.OWNERS.get(name)
    if owner and owner in found.containers:
        with redis_files.without_rewrites(found.containers[owner].id):
            yield
        return
    store = found.containers.get(found.settings.own_vector_store) if name == "vector" else None
    if store is None or store.state != "running":
        yield
        return
    warn(f"{store.service} is stopped while its files are copied: until then, knowledge bases find nothing")
    cut_off_backup.note_stopped(found.pulumi.files, store.service)
    found.engine.pause(store)
    began = time.monotonic()
    try:
        yield
    finally:
        try:
            found.engine.resume(store)
            cut_off_backup.note_stopped(found.pulumi.files, "")
            say(f"{store.service} was stopped for {time.monotonic() - began:.0f} s")
        except KitError as problem:
            again = hints.kit("up", stack=found.stack)
            warn(
                f"{store.service} was stopped and does not start again: {problem.message}; `{again}` starts it"
            )


def _volume(found: Source, name: str, writer: Writer) -> None:
    """Copy a volume; again, when a file of it shrank while it was read."""
    volume, problem = f"dify-{found.stack}-{name}", ""
    for attempt in range(_TRIES):
        # The attempts before stay in the archive, uncounted: a stream cannot be taken back.
        part = f"volumes/{name}{f'.{attempt}' if attempt else ''}.tar"
        try:
            with found.volumes.reading(volume) as blocks:
                counted = Counted(told(f"volume {name}", blocks), root=ROOT)
                written = writer.part(part, counted)
            census = counted.census()
        except VolumeError as broken:
            raise KitError(f"volume {volume} cannot be read: {broken}", "run the command again") from None
        except BrokenTreeError as broken:
            problem = str(broken)
            say(f"volume {name}: a file changed while it was read ({problem}); copying it again")
            continue
        writer.add(replace(written, files=census.files, bytes=census.bytes, digest=census.digest))
        say(f"volume {name}: {census.files} files, {_size(written.size)}")
        return
    raise KitError(
        f"volume {volume} changed in each of {_TRIES} copies: {problem}",
        "run the command again when less is written to it",
    )


def told(what: str, blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield blocks, and say every few seconds how far they are."""
    size, next_report = 0, time.monotonic() + _REPORT_SECONDS
    for block in blocks:
        size += len(block)
        if time.monotonic() > next_report:
            say(f"    {what}: {_size(size)} ...")
            next_report = time.monotonic() + _REPORT_SECONDS
        yield block


def _size(size: int) -> str:
    return f"{size / _MEBIBYTE:.1f} MiB"


def note(pulumi: Pulumi, target: Path | Place | None, manifest: Manifest) -> None:
    """Note when a stack was backed up last, and where to."""
    record = {"created": manifest.about.created, "target": str(target or "-")}
    write_private(pulumi.files.data.backup(pulumi.files.stack), json.dumps(record))
