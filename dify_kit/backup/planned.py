"""What a backup does, by the options of the command and by `dify:backup`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dify_kit.backup.retention import Retention
from infra.settings.backups import BackupPlan


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """Where one archive goes (empty: the working directory), and what stays there."""

    to: str
    passphrase_file: Path | None
    vectors: bool
    keep: Retention


def choose(
    plan: BackupPlan | None,
    *,
    to: str,
    passphrase_file: Path | None,
    vectors: bool | None,
    keep: Sequence[int | None],
) -> Chosen:
    """Return what the options say, and what the settings say where an option is missing.

    `keep` are days, weeks and months. The settings keep archives in their own place only: with `to`, or with one of
    these options, they delete none.
    """
    if plan is None:
        return Chosen(
            to=to, passphrase_file=passphrase_file, vectors=vectors is not False, keep=_retention(keep)
        )
    own = plan.keep_daily, plan.keep_weekly, plan.keep_monthly
    by_settings = not to and all(number is None for number in keep)
    return Chosen(
        to=to or plan.to,
        passphrase_file=passphrase_file or (Path(plan.passphrase_file) if plan.passphrase_file else None),
        vectors=plan.vectors if vectors is None else vectors,
        keep=_retention(own if by_settings else keep),
    )


def _retention(keep: Sequence[int | None]) -> Retention:
    daily, weekly, monthly = (number or 0 for number in keep)
    return Retention(daily=daily, weekly=weekly, monthly=monthly)
