"""Carries an upgrade out, step by step, from the beginning or from where it was cut off."""

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dify_kit.backup import making, restoring
from dify_kit.backup.passphrases import known as read_passphrase
from dify_kit.backup.retention import SUFFIX
from dify_kit.backup.sealing import check_passphrase
from dify_kit.containers.docker_host import Engine
from dify_kit.deploying import bring_up
from dify_kit.engine.cli import Pulumi
from dify_kit.errors import CancelledError, KitError
from dify_kit.images import wanted
from dify_kit.smoke.run import run as run_smoke
from dify_kit.smoke.termination import terminable
from dify_kit.stack import changing
from dify_kit.stack import settings as stack_settings
from dify_kit.talk import say, step
from dify_kit.upgrade import changes
from dify_kit.upgrade.away import watching
from dify_kit.upgrade.journal import Journal, Kind, State
from dify_kit.upgrade.plan import Plan
from dify_kit.workspace.files import DataDir, StackFiles, write_private
from infra.platforms import image_needs

SMOKE_SECONDS = 1800.0
_PASSPHRASE_BYTES = 24
_MEBIBYTE = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Upgrade:
    """What an upgrade works with. `deadline` in seconds is that of each deployment."""

    pulumi: Pulumi
    engine: Engine
    deadline: float
    verbose: bool = False

    @property
    def files(self) -> StackFiles:
        """The stack's files."""
        return self.pulumi.files


def begin(upgrade: Upgrade, plan: Plan) -> Journal:
    """Write the journal of an upgrade that nothing was done of. Raises KitError."""
    files, choice, now = upgrade.files, plan.choice, datetime.now(tz=UTC)
    archive, passphrase_file = "", ""
    if choice.backup:
        if not choice.passphrase_file:
            _generate_passphrase(files.data, plan.passphrase)
        passphrase_file = str(plan.passphrase)
        check_passphrase(read_passphrase(Path(passphrase_file)))
        choice.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        archive = str(choice.folder / f"dify-{files.stack}-{plan.old.version}-{now:%Y%m%d-%H%M%S}{SUFFIX}")
    return Journal(
        stack=files.stack,
        began=now.isoformat(timespec="seconds"),
        release=plan.old.version,
        weaviate_version=plan.settings.weaviate_version,
        written=plan.written,
        target=choice.target,
        steps=plan.steps,
        archive=archive,
        passphrase_file=passphrase_file,
    ).save(files)


def _generate_passphrase(data: DataDir, path: Path) -> None:
    """Make the passphrase of archives that are made without another one, once."""
    data.backups.mkdir(mode=0o700, exist_ok=True)
    if not path.exists():
        write_private(path, secrets.token_urlsafe(_PASSPHRASE_BYTES) + "\n")


def carry_out(upgrade: Upgrade, journal: Journal, *, resumed: bool) -> Journal:
    """Do the steps that are left, and return the journal with all done. Raises KitError with both ways from there."""
    files = upgrade.files
    work: Mapping[Kind, Callable[[Upgrade, Journal], Journal]] = {
        Kind.FETCH: _fetch,
        Kind.BACKUP: _back_up,
        Kind.MOVE: _move,
        Kind.SMOKE: _smoke,
    }
    if resumed and not journal.moved():
        # A backup that was killed may have left a vector store stopped, and containers of its own.
        step(f"putting stack {files.stack} in order")
        bring_up(upgrade.pulumi, upgrade.engine, deadline=upgrade.deadline, verbose=upgrade.verbose)
    while journal.at < len(journal.steps):
        journal = journal.save(files)
        step(f"{journal.place()}")
        began = time.monotonic()
        try:
            journal = work[journal.step.kind](upgrade, journal)
        except KitError as problem:
            raise _stopped(journal, problem) from None
        except KeyboardInterrupt:
            raise _stopped(journal, CancelledError("it was interrupted")) from None
        seconds = {**journal.seconds, str(journal.at): round(time.monotonic() - began, 1)}
        journal = journal.save(files, at=journal.at + 1, seconds=seconds)
    return journal.save(files, state=State.DONE)


def _stopped(journal: Journal, problem: KitError) -> KitError:
    """Return the error of a step, with both ways from there."""
    on, back = journal.on_and_back()
    if journal.step.kind is Kind.SMOKE:
        ways = f"`{on}` tests again, and with --without-smoke ends the upgrade here"
    else:
        ways = f"`{on}` continues there"
    changed = "" if journal.moved() else "; nothing of the stack was changed"
    return type(problem)(
        f"the upgrade of stack {journal.stack} to Dify {journal.target} stopped in {journal.place()}{changed}: "
        f"{problem.message}",
        f"{ways}; `{back}` goes back to Dify {journal.release}{f'. {problem.hint}' if problem.hint else ''}",
    )


def _fetch(upgrade: Upgrade, journal: Journal) -> Journal:
    """Get the images of all places of the path before anything of the stack changes."""
    settings, known = stack_settings.checked(upgrade.files), changes.known(upgrade.files)
    parts, source = image_needs.parts_of(settings), wanted.source_of(settings)
    store = wanted.ImageStore()
    for one in journal.steps:
        if one.kind is not Kind.MOVE:
            continue
        release = known[one.release].with_weaviate(one.weaviate)
        for image in wanted.wanted(parts, release, source):
            if not image.build and store.find(image.reference) is None:
                store.fetch(image)
                say(f"  + {image.reference}")
    return journal


def _back_up(upgrade: Upgrade, journal: Journal) -> Journal:
    """Write the archive, unless it is complete already, and read it to its end."""
    archive = Path(journal.archive)
    passphrase = read_passphrase(Path(journal.passphrase_file))
    if not archive.exists():
        found = making.source(upgrade.pulumi, upgrade.engine)
        with terminable():
            making.write(found, archive, passphrase)
    # It is the way back: it has to open, with this passphrase.
    checked = restoring.examine(archive, passphrase)
    size = archive.stat().st_size / _MEBIBYTE
    say(f"backed up: {archive} ({size:.1f} MiB); its passphrase is in {journal.passphrase_file}")
    return journal.save(upgrade.files, backed_up=checked.about.created)


def _move(upgrade: Upgrade, journal: Journal) -> Journal:
    """Write the settings of a place, and deploy it."""
    files, one = upgrade.files, journal.step
    known = changes.known(files)
    given = stack_settings.given(files, decrypt=True)
    before = known[_release_before(journal)]
    made = changes.changes(files, given.values, one.move, before, known[one.release])
    if not journal.settings:
        # As they are stored, secrets encrypted: `rollback` puts them back while the data is as it was.
        journal = journal.save(files, settings=files.config_file.read_text(encoding="utf-8"))
    if made:
        changing.apply(upgrade.pulumi, made)
    away = watching(files, upgrade.engine)
    try:
        with away:
            bring_up(upgrade.pulumi, upgrade.engine, deadline=upgrade.deadline, verbose=upgrade.verbose)
    finally:
        # Also of a deployment that failed: the next attempt adds to it.
        journal = journal.save(files, away=round(journal.away + away.seconds, 1))
    return journal


def _release_before(journal: Journal) -> str:
    """Return the release that the settings were of before the step that runs."""
    earlier = [one.release for one in journal.steps[: journal.at] if one.kind is Kind.MOVE]
    return earlier[-1] if earlier else journal.release


def _smoke(upgrade: Upgrade, journal: Journal) -> Journal:
    ended = run_smoke(upgrade.files.stack, [], deadline=SMOKE_SECONDS, quiet=False)
    if ended.code or ended.cancelled:
        raise KitError(
            f"stack {journal.stack} runs Dify {journal.target}, and its smoke tests failed: {ended.summary}"
        )
    return journal


def without_smoke(journal: Journal) -> Journal:
    """Return a journal whose smoke tests are left out."""
    steps = tuple(one for one in journal.steps if one.kind is not Kind.SMOKE)
    return Journal(**{**vars(journal), "steps": steps})
