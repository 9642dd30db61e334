"""What `status` says of a backup, a restore, an upgrade or a rollback that did not come to its end."""

from dify_kit.errors import KitError
from dify_kit.stack import cut_off_backup, unfinished
from dify_kit.upgrade import journal
from dify_kit.upgrade.journal import State
from dify_kit.watch.report import Status
from dify_kit.workspace.files import StackFiles
from infra import hints


def note(files: StackFiles, status: Status) -> None:
    """Add to a status what was begun with the stack and is not complete, unless a command is at work on it."""
    if files.locked():
        return
    if cut_off_backup.found(files):
        again = hints.kit("backup", stack=files.stack)
        status.add(
            "a backup was cut off: Redis rewrites none of its files, and a part of an archive may be left",
            f"{hints.kit('up', stack=files.stack)} puts that in order, and so does the next {again}",
        )
    try:
        unfinished.refuse(files)
        found = journal.load(files)
    except KitError as problem:
        status.add(problem.message, problem.hint)
        return
    if found is None or found.state is State.DONE:
        return
    on, back = found.on_and_back()
    if found.state is State.ROLLING_BACK:
        status.add(
            f"the way back from Dify {found.target} to {found.release} is not complete", f"{back} continues"
        )
        return
    status.add(
        f"the upgrade to Dify {found.target} is not complete: it stopped in {found.place()}",
        f"{on} continues there, {back} goes back to Dify {found.release}",
    )
