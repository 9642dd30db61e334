"""What commands that work on one stack share: its name, its lock, and the hints that name it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from dify_kit.app import DEFAULT_STACK
from dify_kit.errors import KitError
from dify_kit.workspace.files import StackFiles
from infra import hints

Minutes = Annotated[
    float,
    typer.Option(
        "--timeout",
        envvar="DIFY_KIT_TIMEOUT_MINUTES",
        min=0.1,
        metavar="MINUTES",
        help="Stop in an orderly way after this time.",
    ),
]


@contextmanager
def locked(name: str) -> Iterator[StackFiles]:
    """Open a stack and hold its lock: one command at a time changes it."""
    files = StackFiles.open(name)
    with files.lock():
        yield files


def require_configured(files: StackFiles) -> None:
    """Raise KitError when the stack has no settings on this machine."""
    if not files.configured():
        raise KitError(
            f"stack {files.stack} does not exist on this machine (no {files.stored})",
            f"create it with `{hints.kit('up', stack=files.stack)}`, or restore the data directory {files.data.root}"
            f"{_others(files)}",
        )


def _others(files: StackFiles) -> str:
    known = files.data.stack_names()
    return f"; {hints.nearest(files.stack, known)}" if known else ""


def make_suffix(stack: str) -> str:
    """Return what a `make` command needs besides, to work on this stack."""
    return "" if stack == DEFAULT_STACK else f" STACK={stack}"
