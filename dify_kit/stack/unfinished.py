"""The mark of a stack that `restore` has begun and not finished: until then it must not run."""

import json
from typing import Any

from dify_kit.errors import KitError
from dify_kit.workspace.files import StackFiles, write_private
from infra import hints


def mark(files: StackFiles, archive: str, *, rollback: bool = False) -> None:
    """Note that a stack is being restored from an archive, by its path; `rollback` takes an upgrade back by it."""
    document = {"archive": archive, "rollback": rollback}
    write_private(files.data.restoring(files.stack), json.dumps(document))


def unmark(files: StackFiles) -> None:
    """Note that a stack is complete."""
    files.data.restoring(files.stack).unlink(missing_ok=True)


def archive_of(files: StackFiles) -> str:
    """Return the archive from which a stack is being restored; empty when none is."""
    found = _read(files)
    return "" if found is None else str(found.get("archive") or "the archive")


def _read(files: StackFiles) -> dict[str, Any] | None:
    try:
        found = json.loads(files.data.restoring(files.stack).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        found = {}
    return found if isinstance(found, dict) else {}


def refuse(files: StackFiles) -> None:
    """Raise KitError for a stack whose restore did not come to its end."""
    if archive := archive_of(files):
        words = ("rollback",) if (_read(files) or {}).get("rollback") else ("restore", archive)
        raise KitError(
            f"the restore of stack {files.stack} from {archive} did not finish: its data is not complete",
            f"run it again, it starts over: {hints.kit(*words, stack=files.stack)}; or remove it: "
            f"{hints.kit('down', '--delete-data', stack=files.stack)}, then "
            f"{hints.kit('forget', files.stack)}",
        )
