"""`dify-kit backup`: one encrypted archive of a stack that serves, and the proof that it can be restored."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from dify_kit.app import COMMANDS, DEFAULT_STACK, Group, Stack, app
from dify_kit.backup import making, passphrases, planned, reading, timers, verifying, writing
from dify_kit.commands.selected import locked, require_configured
from dify_kit.containers.docker_host import DockerEngine
from dify_kit.engine.cli import Pulumi
from dify_kit.smoke.termination import terminable
from dify_kit.stack import settings as stack_settings
from dify_kit.stack import unfinished
from dify_kit.stack.cluster_objects import engine_of
from dify_kit.talk import say, step
from dify_kit.workspace.files import StackFiles
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
            help="Where the archive goes; - is standard output. [default: dify:backup.to, else here]",
        ),
    ] = "",
    passphrase_file: PassphraseFile = None,
    vectors: Annotated[
        bool | None,
        typer.Option(
            "--vectors/--without-vectors",
            help="Copy the files of Weaviate or Qdrant, which stop for as long as that takes. [default: as "
            "dify:backup.vectors says]",
            show_default=False,
        ),
    ] = None,
    keep_daily: Annotated[
        int | None,
        typer.Option("--keep-daily", min=0, metavar="N", help=f"{_KEEP} the last N days that have one."),
    ] = None,
    keep_weekly: Annotated[
        int | None,
        typer.Option("--keep-weekly", min=0, metavar="N", help="The same for weeks, from Monday."),
    ] = None,
    keep_monthly: Annotated[
        int | None, typer.Option("--keep-monthly", min=0, metavar="N", help="The same for months.")
    ] = None,
) -> None:
    """Write databases, files, settings, secrets and keys of a stack into one archive that its passphrase opens.

    The stack serves meanwhile. The archive appears complete or not at all.
    """
    if context.invoked_subcommand:
        return
    with locked(stack) as files, terminable():
        require_configured(files)
        plan = planned.choose(
            stack_settings.checked(files).backup,
            to=to,
            passphrase_file=passphrase_file,
            vectors=vectors,
            keep=(keep_daily, keep_weekly, keep_monthly),
        )
        if plan.keep:
            writing.refuse_retention(plan.to)
        unfinished.refuse(files)
        target = writing.target_of(plan.to, stack, datetime.now(tz=UTC))
        passphrase = passphrases.chosen(plan.passphrase_file)
        found = making.source(Pulumi(files=files), engine_of(files, DockerEngine))
        step(f"backing up stack {stack}")
        making.write(found, target, passphrase, vectors=plan.vectors)
        if target is None:
            return
        size = writing.size_of(target)
        shown = "" if size is None else f" ({size / MEBIBYTE:.1f} MiB)"
        private = ", readable by you alone" if isinstance(target, Path) else ""
        say(f"wrote {target}{shown}{private}")
        say(f"it holds every secret of the stack. Prove it: {hints.kit('backup', 'verify', str(target))}")
        typer.echo(target)
        writing.delete_expired(target, stack, plan.keep)


@backup_commands.command()
def timer(
    stack: Stack = DEFAULT_STACK,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Where the units go. [default: systemd's of this user, or of the system]",
        ),
    ] = None,
) -> None:
    """Write a service and a timer of systemd that run `backup` each day at dify:backup.at, by the settings alone."""
    files = StackFiles.open(stack)
    require_configured(files)
    written = timers.write(files, stack_settings.checked(files).backup, out)
    for path in written.units:
        typer.echo(path)
    say("start it:")
    for line in written.commands:
        say(f"  {line}")


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
