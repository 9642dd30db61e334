"""The service and the timer of systemd that back a stack up each day."""

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

import jinja2

from dify_kit.errors import KitError
from dify_kit.workspace.files import StackFiles
from infra import hints
from infra.settings.backups import BackupPlan

SYSTEM, USER = Path("/etc/systemd/system"), Path("~/.config/systemd/user")
SUFFIXES = ("service", "timer")


@dataclass(frozen=True, kw_only=True)
class Written:
    """The units that were written, and the commands that start the timer."""

    units: tuple[Path, ...]
    commands: tuple[str, ...]


def write(files: StackFiles, plan: BackupPlan | None, out: Path | None) -> Written:
    """Write the units of a stack for the user who runs this. Raises KitError where the settings lack something."""
    stack = files.stack
    if plan is None:
        raise KitError(
            "dify:backup.to is empty: no place is planned for archives",
            hints.assign("backup.to", "/srv/backups", stack=stack),
        )
    if not plan.passphrase_file:
        raise KitError(
            "dify:backup.passphraseFile is empty: a timer types no passphrase",
            hints.assign("backup.passphraseFile", "/root/backup-passphrase", stack=stack),
        )
    root = os.geteuid() == 0
    directory = out or (SYSTEM if root else USER.expanduser())
    name = f"dify-backup-{stack}"
    written = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for suffix in SUFFIXES:
            path = directory / f"{name}.{suffix}"
            path.write_text(_unit(suffix, files, plan, user=_user() if root else ""), encoding="utf-8")
            written.append(path)
    except OSError as problem:
        raise KitError(
            f"{directory} cannot be written: {problem.strerror}", "name another directory: --out"
        ) from None
    systemctl = "systemctl" if root else "systemctl --user"
    return Written(
        units=tuple(written),
        commands=(f"{systemctl} daemon-reload", f"{systemctl} enable --now {name}.timer"),
    )


def _user() -> str:
    return pwd.getpwuid(os.geteuid()).pw_name


def _unit(suffix: str, files: StackFiles, plan: BackupPlan, *, user: str) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701  # units are no HTML
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"path": one_path, "word": word}
    return environment.get_template(f"dify-backup.{suffix}.j2").render(
        stack=files.stack,
        checkout=files.checkout,
        program=files.checkout / ".venv" / "bin" / "dify-kit",
        home=files.data.root,
        variables=files.data.root / f"backup-{files.stack}.env",
        at=plan.at,
        user=user,
    )


def one_path(value: object) -> str:
    """Return a path for a line of a unit that has one path; `%` means itself."""
    return str(value).replace("%", "%%")


def word(value: object) -> str:
    """Return a word of a command or of an assignment in a unit, quoted."""
    text = one_path(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
