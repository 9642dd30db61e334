"""`dify-kit backup`: one encrypted archive of a stack that serves, and the proof that it can be restored."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from dify_kit.app import COMMANDS, DEFAULT_STACK, Group, Stack, app
from dify_kit.backup import making, passphrases, verifying, writing
from dify_kit.backup.archive import About, Writer
from dify_kit.backup.sealing import sealed
from dify_kit.commands.selected import locked, require_configured
from dify_kit.containers.docker_host import DockerEngine
from dify_kit.engine.cli import Pulumi
from dify_kit.smoke.termination import terminable
from dify_kit.stack import unfinished
from dify_kit.stack.cluster_objects import engine_of
from dify_kit.talk import say, step
from infra import hints

MEBIBYTE = 1 << 20
PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        envvar="DIFY_KIT_BACKUP_PASSPHRASE_FILE",
        metavar="FILE",
        help="File with the passphrase of the archive. [default: ask at the terminal]",
    ),
]
backup_commands = typer.Typer(
    cls=Group,
    name="backup",
    invoke_without_command=True,
    help=COMMANDS["backup"],
)
app.add_typer(backup_commands)


@backup_commands.callback()
def backup(
    context: typer.Context,
    stack: Stack = DEFAULT_STACK,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="FILE|DIRECTORY|-",
            help="Where the archive goes; - is standard output. [default: here]",
        ),
    ] = "",
    passphrase_file: PassphraseFile = None,
    vectors: Annotated[
        bool,
        typer.Option(
            "--vectors/--without-vectors",
            help="Copy the files of Weaviate or Qdrant, which stop for as long as that takes.",
        ),
    ] = True,
) -> None:
    """Write databases, files, settings, secrets and keys of a stack into one archive that its passphrase opens.

    The stack serves meanwhile. The archive appears complete or not at all.
    """
    if context.invoked_subcommand:
        return
    with locked(stack) as files, terminable():
        require_configured(files)
        unfinished.refuse(files)
        target = writing.target_of(to, stack, datetime.now(tz=UTC))
        passphrase = passphrases.chosen(passphrase_file)
        pulumi = Pulumi(files=files)
        found = making.source(pulumi, engine_of(files, DockerEngine))
        step(f"backing up stack {stack}")
        with writing.written(target) as raw, sealed(raw, passphrase) as stream:

            def writer_of(about: About) -> Writer:
                return Writer(stream, about, int(datetime.now(tz=UTC).timestamp()))

            manifest = making.make(found, writer_of, vectors=vectors)
        making.note(pulumi, target, manifest)
        if target is None:
            return
        say(f"wrote {target} ({target.stat().st_size / MEBIBYTE:.1f} MiB), readable by you alone")
        say(f"it holds every secret of the stack. Prove it: {hints.kit('backup', 'verify', str(target))}")
        typer.echo(target)


@backup_commands.command()
def verify(
    archive: Annotated[Path, typer.Argument(metavar="ARCHIVE", help="The archive to prove.")],
    passphrase_file: PassphraseFile = None,
) -> None:
    """Restore an archive into a stack that is removed again, compare rows and files, and run the smoke tests."""
    passphrase = passphrases.known(passphrase_file)
    try:
        with terminable():
            verifying.verify(archive.expanduser().absolute(), passphrase)
    finally:
        sys.stdout.flush()
