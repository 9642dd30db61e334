"""What `dify:backup` plans: the default of each option, and the units of systemd."""

import configparser
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dify_kit.__main__ import app
from dify_kit.backup import timers
from dify_kit.backup.planned import Chosen, choose
from dify_kit.backup.retention import Retention
from infra.settings.backups import BackupPlan
from tests.unit.cli.conftest import Machine

PLAN = BackupPlan(
    to="/srv/backups",
    at="03:30",
    keep_daily=7,
    keep_weekly=4,
    keep_monthly=12,
    passphrase_file="/root/passphrase",
    vectors=False,
)
PLANNED = {"to": "/srv/backups", "at": "03:30", "keepDaily": 7, "passphraseFile": "/root/passphrase"}
NOTHING = (None, None, None)


def chosen(
    plan: BackupPlan | None = PLAN,
    *,
    to: str = "",
    file: Path | None = None,
    vectors: bool | None = None,
    keep: tuple[int | None, int | None, int | None] = NOTHING,
) -> Chosen:
    return choose(plan, to=to, passphrase_file=file, vectors=vectors, keep=keep)


def test_settings_say_what_options_do_not() -> None:
    assert chosen() == Chosen(
        to="/srv/backups",
        passphrase_file=Path("/root/passphrase"),
        vectors=False,
        keep=Retention(daily=7, weekly=4, monthly=12),
    )


def test_options_take_precedence() -> None:
    found = chosen(file=Path("other"), vectors=True, keep=(None, 2, None))

    assert found.passphrase_file == Path("other")
    assert found.vectors
    assert found.keep == Retention(weekly=2)


def test_settings_delete_nothing_in_another_place() -> None:
    found = chosen(to="/mnt/usb")

    assert (found.to, found.keep) == ("/mnt/usb", Retention())
    assert chosen(to="/mnt/usb", keep=(3, None, None)).keep == Retention(daily=3)


def test_without_a_plan_the_archive_is_here_and_all_stay() -> None:
    assert chosen(None) == Chosen(to="", passphrase_file=None, vectors=True, keep=Retention())
    assert not chosen(None, vectors=False).vectors


# --- units of systemd --------------------------------------------------------------------------------------------


def timer(*options: str) -> Result:
    return CliRunner().invoke(app, ["backup", "timer", *options])


def unit(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",), comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # names of systemd have capitals
    parser.read(path, encoding="utf-8")
    return parser


def test_the_timer_runs_the_command_of_this_checkout_each_day(machine: Machine, tmp_path: Path) -> None:
    machine.configure("dev", backup=PLANNED)

    done = timer("--stack", "dev", "--out", str(tmp_path))

    assert done.exit_code == 0, done.stderr
    service, daily = tmp_path / "dify-backup-dev.service", tmp_path / "dify-backup-dev.timer"
    assert done.stdout.split() == [str(service), str(daily)]
    assert "enable --now dify-backup-dev.timer" in done.stderr
    found = unit(service)["Service"]
    checkout = machine.files("dev").checkout
    assert found["ExecStart"] == f'"{checkout}/.venv/bin/dify-kit" backup --stack dev'
    assert found["WorkingDirectory"] == str(checkout)
    assert found["Environment"] == f'"DIFY_KIT_HOME={machine.home}"'
    assert found["EnvironmentFile"] == f"-{machine.home}/backup-dev.env"
    assert ("User" in found) == (os.geteuid() == 0)
    assert unit(daily)["Timer"] == {"OnCalendar": "*-*-* 03:30:00 UTC", "Persistent": "true"}
    assert "passphrase" not in service.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["plain", "a place", '50% "quoted"'])
def test_names_of_directories_mean_themselves(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    machine.configure("dev", backup=PLANNED)
    home = tmp_path / name
    shutil.copytree(machine.home, home, symlinks=True)
    monkeypatch.setenv("DIFY_KIT_HOME", str(home))

    assert timer("--stack", "dev", "--out", str(tmp_path / "units")).exit_code == 0

    found = unit(tmp_path / "units" / "dify-backup-dev.service")["Service"]
    written = found["Environment"].removeprefix('"DIFY_KIT_HOME=').removesuffix('"')
    assert written.replace('\\"', '"').replace("%%", "%") == str(home)
    assert found["EnvironmentFile"].replace("%%", "%") == f"-{home}/backup-dev.env"


def test_systemd_accepts_the_units(machine: Machine, tmp_path: Path) -> None:
    analyse = shutil.which("systemd-analyze")
    machine.configure("dev", backup=PLANNED)
    program = machine.checkout / ".venv" / "bin" / "dify-kit"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text("#!/bin/sh\n", encoding="utf-8")
    program.chmod(0o755)
    assert timer("--stack", "dev", "--out", str(tmp_path)).exit_code == 0
    assert {path.suffix.removeprefix(".") for path in tmp_path.iterdir()} >= set(timers.SUFFIXES)
    if not analyse:
        # The units are parsed above; systemd's own check needs systemd.
        return

    done = subprocess.run(
        [
            analyse,
            "verify",
            "--man=no",
            *(str(tmp_path / f"dify-backup-dev.{one}") for one in timers.SUFFIXES),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    about_ours = [line for line in done.stderr.splitlines() if "dify-backup" in line]
    assert about_ours == [], done.stderr


@pytest.mark.parametrize(
    ("backup", "what", "key"),
    [
        ({}, "no place is planned", "backup.to"),
        ({"to": "/srv/backups"}, "a timer types no passphrase", "backup.passphraseFile"),
    ],
)
def test_a_timer_needs_a_place_and_a_passphrase(
    machine: Machine, tmp_path: Path, backup: dict[str, str], what: str, key: str
) -> None:
    machine.configure("dev", backup=backup)

    done = timer("--stack", "dev", "--out", str(tmp_path))

    assert done.exit_code == 1
    assert what in done.stderr
    assert f"set {key}" in done.stderr
    assert list(tmp_path.glob("dify-backup*")) == []
