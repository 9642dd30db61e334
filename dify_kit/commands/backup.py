"""`dify-kit backup`: one encrypted archive of a stack that serves, and the proof that it can be restored."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from dify_kit.app import COMMANDS, DEFAULT_STACK, Group, Stack, app
from dify_kit.backup import making, passphrases, reading, verifying, writing
from dify_kit.backup.retention import Retention
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
_KEEP = (
    "After the new archive is complete, delete older ones of the stack there, except the newest of each of"
)
ArchiveName = Annotated[
    str, typer.Argument(metavar="ARCHIVE", help="A file, or an object as s3://BUCKET/NAME.")
]
backup_commands = typer.Typer(
    cls=Group,
    name="backup",
    invoke_without_command=True,
    help=COMMANDS["backup"],
)
app.add_typer(backup_commands)


@backup_commands.callback()
def backup(  # noqa: PLR0917  # Typer calls it by name
    context: typer.Context,
    stack: Stack = DEFAULT_STACK,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="FILE|DIRECTORY|s3://BUCKET/PREFIX/|-",
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
    keep_daily: Annotated[
        int, typer.Option("--keep-daily", min=0, metavar="N", help=f"{_KEEP} the last N days that have one.")
    ] = 0,
    keep_weekly: Annotated[
        int, typer.Option("--keep-weekly", min=0, metavar="N", help="The same for weeks, from Monday.")
    ] = 0,
    keep_monthly: Annotated[
        int, typer.Option("--keep-monthly", min=0, metavar="N", help="The same for months.")
    ] = 0,
) -> None:
    """Write databases, files, settings, secrets and keys of a stack into one archive that its passphrase opens.

    The stack serves meanwhile. The archive appears complete or not at all.
    """
    if context.invoked_subcommand:
        return
    wanted = Retention(daily=keep_daily, weekly=keep_weekly, monthly=keep_monthly)
    with locked(stack) as files, terminable():
        if wanted:
            writing.refuse_retention(to)
        require_configured(files)
        unfinished.refuse(files)
        target = writing.target_of(to, stack, datetime.now(tz=UTC))
        passphrase = passphrases.chosen(passphrase_file)
        found = making.source(Pulumi(files=files), engine_of(files, DockerEngine))
        step(f"backing up stack {stack}")
        making.write(found, target, passphrase, vectors=vectors)
        if target is None:
            return
        size = writing.size_of(target)
        shown = "" if size is None else f" ({size / MEBIBYTE:.1f} MiB)"
        private = ", readable by you alone" if isinstance(target, Path) else ""
        say(f"wrote {target}{shown}{private}")
        say(f"it holds every secret of the stack. Prove it: {hints.kit('backup', 'verify', str(target))}")
        typer.echo(target)
        writing.delete_expired(target, stack, wanted)


@backup_commands.command()
def verify(
    archive: ArchiveName,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Restore an archive into a stack that is removed again, compare rows and files, and run the smoke tests."""
    passphrase = passphrases.known(passphrase_file)
    try:
        with terminable(), reading.local(archive) as path:
            verifying.verify(path, passphrase)
    finally:
        sys.stdout.flush()
