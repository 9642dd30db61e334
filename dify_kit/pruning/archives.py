"""Archives that upgrades made in the data directory, except the newest of each stack and those that are needed."""

from collections.abc import Callable, Iterator
from pathlib import Path

from dify_kit.backup.retention import SUFFIX, time_of
from dify_kit.errors import KitError
from dify_kit.pruning.leftover import Kind, Leftover
from dify_kit.upgrade import journal
from dify_kit.workspace.files import DataDir, StackFiles


def leftovers(data: DataDir) -> Iterator[Leftover]:
    """Yield the archives that a newer one of the same stack follows, and that no upgrade goes back to.

    Raises KitError for a journal of an upgrade that cannot be read. Archives of stacks that are not here stay: they
    may be the only copy.
    """
    for stack in data.stack_names():
        upgrade = journal.load(StackFiles.look(stack))
        own = {
            path: when
            for path in data.backups.glob(f"*{SUFFIX}")
            if (when := time_of(path.name, stack)) is not None
        }
        newest = max(own, key=own.__getitem__, default=None)
        for path in sorted(own):
            if path == newest or (upgrade and upgrade.archive and Path(upgrade.archive) == path):
                continue
            yield Leftover(
                kind=Kind.ARCHIVE,
                name=str(path),
                size=path.stat().st_size,
                why=f"stack {stack} has a newer one, and its last upgrade does not go back to it",
                remove=_removing(path),
            )


def _removing(path: Path) -> Callable[[], None]:
    def remove() -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as problem:
            raise KitError(
                f"cannot remove {path}: {problem.strerror}", "check the rights of its directory"
            ) from None

    return remove
