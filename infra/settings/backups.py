"""`dify:backup`: where `dify-kit backup` writes to by default, when its timer runs, and which archives stay."""

import re
from dataclasses import dataclass

from infra.settings.reader import Section

MOST_KEPT = 1000
# A directory, or a prefix of a bucket: each archive has a name of its own there.
_PLACE = re.compile(r"/[^\0]*|s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/(?:[^\0]*/)?")
_TIME = re.compile(r"(?:[01]\d|2[0-3]):[0-5]\d")


@dataclass(frozen=True, kw_only=True)
class BackupPlan:
    """Backups of a stack: `to` is an absolute directory or `s3://BUCKET/PREFIX/`, `at` a time of day in UTC (`HH:MM`).

    `keep_*`: of so many days, weeks and months the newest archive stays; with three zeros all stay. `vectors`: whether
    the files of Weaviate or Qdrant are copied. `passphrase_file` is empty where the passphrase is typed.
    """

    to: str
    at: str
    keep_daily: int
    keep_weekly: int
    keep_monthly: int
    passphrase_file: str
    vectors: bool


def read_backup(section: Section) -> BackupPlan | None:
    """Read `dify:backup`; None without a place."""
    to, at, file = section.text("to"), section.text("at"), section.text("passphraseFile")
    if to and not _PLACE.fullmatch(to):
        section.problems.add(
            section.key("to"),
            to,
            "is neither an absolute path nor a prefix of a bucket",
            "use a directory such as /srv/backups, or s3://BUCKET/PREFIX/ with a slash at its end",
        )
    if not _TIME.fullmatch(at):
        section.problems.add(
            section.key("at"), at, "is no time of day", "use a time in UTC from 00:00 to 23:59, in quotes"
        )
    if file and not file.startswith("/"):
        section.problems.add(
            section.key("passphraseFile"),
            file,
            "is no absolute path",
            "use a path such as /root/backup-passphrase: a timer runs in another directory",
        )
    plan = BackupPlan(
        to=to,
        at=at,
        keep_daily=section.integer("keepDaily", 0, MOST_KEPT),
        keep_weekly=section.integer("keepWeekly", 0, MOST_KEPT),
        keep_monthly=section.integer("keepMonthly", 0, MOST_KEPT),
        passphrase_file=file,
        vectors=section.boolean("vectors"),
    )
    return plan if to else None
