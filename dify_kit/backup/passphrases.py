"""The passphrase of an archive: from a file, else from the terminal; never from an argument, which others can read."""

import sys
from pathlib import Path

import typer

from dify_kit.backup.sealing import check_passphrase
from dify_kit.errors import KitError, UsageError


def chosen(file: Path | None) -> str:
    """Return the passphrase for a new archive; one that is typed is asked for twice. Raises KitError."""
    if file:
        return check_passphrase(_read(file))
    typed = _typed("Passphrase of the archive")
    if typed != _typed("The same again"):
        raise KitError("the passphrases differ; nothing was written")
    return check_passphrase(typed)


def known(file: Path | None) -> str:
    """Return the passphrase of an archive that exists. Raises KitError."""
    return _read(file) if file else _typed("Passphrase of the archive")


def _read(file: Path) -> str:
    try:
        return file.expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as problem:
        raise KitError(f"--passphrase-file {file} cannot be read: {problem}", "name a text file") from None


def _typed(what: str) -> str:
    if not sys.stdin.isatty():
        raise UsageError(
            "the archive needs a passphrase, and standard input is no terminal",
            "name a file: --passphrase-file",
        )
    return str(typer.prompt(what, hide_input=True, err=True))
