"""Takes an upgrade back: by the settings alone while its data is as it was, else by the archive that it made."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dify_kit.backup import restoring
from dify_kit.backup.passphrases import known as read_passphrase
from dify_kit.backup.settings_part import OF_THE_MACHINE
from dify_kit.deploying import bring_up
from dify_kit.errors import KitError
from dify_kit.stack import cut_off_backup, unfinished
from dify_kit.talk import say, step
from dify_kit.upgrade import data, journal
from dify_kit.upgrade.journal import Journal, State
from dify_kit.upgrade.running import Upgrade
from dify_kit.workspace.files import write_private
from infra import hints
from infra.catalogue.yaml_reader import read_yaml


@dataclass(frozen=True, kw_only=True)
class Way:
    """The way back. `restoring` says that the archive is restored, and `lost` from when on what was written is lost.

    Without it the data is as it was, and `deploy` says whether the settings have to be, too.
    """

    restoring: bool
    deploy: bool = True
    lost: str = ""


def require(upgrade: Upgrade) -> Journal:
    """Return the journal of the upgrade that can be taken back. Raises KitError without one."""
    files = upgrade.files
    found = journal.load(files)
    if found is None:
        raise KitError(
            f"stack {files.stack} has no upgrade to take back",
            f"`{hints.kit('restore', '--help')}` shows how a stack is made again from an archive of `backup`",
        )
    return found


def way(upgrade: Upgrade, found: Journal) -> Way:
    """Return how an upgrade is taken back. Raises KitError where it cannot be; changes nothing."""
    files = upgrade.files
    if not unfinished.archive_of(files):
        if not found.moved():
            return Way(restoring=False, deploy=False)
        if found.written.like(data.written(files.stack)):
            return Way(restoring=False)
    if not found.archive:
        raise KitError(
            f"the upgrade of stack {files.stack} made no backup (--without-backup), and Dify {found.target} has "
            "changed the data; nothing was changed now",
            f"restore the backup that you made: `{hints.kit('restore', '--help')}`",
        )
    if not Path(found.archive).exists():
        raise KitError(
            f"the archive {found.archive} is not there any more; nothing was changed",
            "bring it back to that place, or restore another one by `restore` with --replace",
        )
    return Way(restoring=True, lost=found.backed_up)


def since(way_back: Way) -> str:
    """Say from when on what was written is lost."""
    written = datetime.fromisoformat(way_back.lost)
    minutes = (datetime.now(tz=UTC) - written).total_seconds() / 60
    return f"{written:%Y-%m-%d %H:%M:%S} UTC, {minutes:.0f} minutes ago"


def settings_back(upgrade: Upgrade, found: Journal) -> None:
    """Put the settings back and deploy them, where the data is as it was. Raises KitError."""
    files = upgrade.files
    if found.state is State.ROLLING_BACK:
        say("data and settings of the archive are restored already")
    elif found.settings and files.own_file():
        # A file, or a link, of the operator's own stays what it is.
        files.config_file.write_text(found.settings, encoding="utf-8")
    elif found.settings:
        write_private(files.stored, found.settings)
    step(f"stack {files.stack} goes back to Dify {found.release}: its data is as it was")
    bring_up(upgrade.pulumi, upgrade.engine, deadline=upgrade.deadline, verbose=upgrade.verbose)


def restore(upgrade: Upgrade, found: Journal, passphrase_file: Path | None) -> None:
    """Restore the archive of an upgrade over the stack. Raises KitError; begun again, it starts over."""
    files = upgrade.files
    noted = Path(found.passphrase_file)
    passphrase = read_passphrase(passphrase_file or (noted if noted.exists() else None))
    archive = Path(found.archive)
    checked = restoring.examine(archive, passphrase)
    if checked.about.stack != files.stack or checked.about.release != found.release:
        raise KitError(
            f"{archive} is of stack {checked.about.stack} with Dify {checked.about.release}, and the upgrade was of "
            f"{files.stack} with {found.release}; nothing was changed",
            "bring the archive of the upgrade back to that place",
        )
    found.save(files, state=State.ROLLING_BACK)
    wish = restoring.Wish(
        archive=archive,
        passphrase=passphrase,
        stack=files.stack,
        replace=True,
        rollback=True,
        machine=_of_the_machine(found),
    )
    step(f"stack {files.stack} goes back to Dify {found.release}")
    restoring.restore(
        wish, checked, lambda: upgrade.engine, deadline=upgrade.deadline, verbose=upgrade.verbose
    )


def _of_the_machine(found: Journal) -> dict[str, object]:
    """Return the settings of before that belong to this machine: how it reaches its engine."""
    config = (read_yaml(found.settings) or {}).get("config") or {}
    return {key: config[key] for key in OF_THE_MACHINE if key in config}


def finish(upgrade: Upgrade, found: Journal) -> None:
    """Remove the journal: the upgrade is taken back. The archive stays, a part of one does not."""
    cut_off_backup.mend(upgrade.files, upgrade.engine)
    journal.remove(upgrade.files)
    if found.archive and Path(found.archive).exists():
        say(f"the archive stays: {found.archive}")
