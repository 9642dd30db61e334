"""Running installers: what is said, and what a failure looks like."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dify_kit.errors import KitError
from dify_kit.setup import commands
from dify_kit.setup.commands import apt_install, as_root, cache_directory, run_step


def python(script: str) -> list[str]:
    return [sys.executable, "-c", script]


def test_a_step_returns_what_it_said_and_reports_itself(capfd: pytest.CaptureFixture[str]) -> None:
    output = run_step("counting", python("print('one'); print('two')"), hint="", seconds=30)

    assert output.split() == ["one", "two"]
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.splitlines()[0] == "→ counting ..."
    assert said.err.splitlines()[1].startswith("✓ counting: ")


def test_a_failed_step_shows_its_last_words_and_the_hint() -> None:
    script = "import sys\nfor n in range(40): print('line', n)\nsys.exit(7)"

    with pytest.raises(KitError) as failed:
        run_step("counting", python(script), hint="count slower", seconds=30)

    lines = failed.value.message.splitlines()
    assert lines[0] == "counting: exit code 7"
    assert lines[-1].strip() == "line 39"
    assert len(lines) == 1 + commands.LAST_LINES
    assert failed.value.hint == "count slower"


def test_a_step_that_hangs_is_ended_at_its_deadline(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    script = (
        f"import os, pathlib, time; pathlib.Path({str(mark)!r}).write_text(str(os.getpid())); "
        "print('half way', flush=True); time.sleep(60)"
    )
    began = time.monotonic()

    with pytest.raises(KitError, match=r"not finished within 1 s\n  half way"):
        run_step("sleeping", python(script), hint="", seconds=1)

    assert time.monotonic() - began < 20
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), 0)


def test_an_interrupt_ends_the_installer_too(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    child = (
        f"import os, pathlib, time; pathlib.Path({str(mark)!r}).write_text(str(os.getpid())); time.sleep(60)"
    )
    # A shell may have started the tests with SIGINT ignored.
    script = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from dify_kit.setup.commands import run_step\n"
        f"run_step('sleeping', [sys.executable, '-c', {child!r}], hint='', seconds=60)"
    )
    with subprocess.Popen(python(script), stderr=subprocess.PIPE, text=True) as installer:
        deadline = time.monotonic() + 20
        while not (mark.exists() and mark.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        # To the parent only: the terminal's group is not what ends the child here.
        installer.send_signal(signal.SIGINT)
        said = installer.communicate(timeout=20)[1]

    assert said.rstrip().endswith("KeyboardInterrupt")
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), 0)


def test_a_program_that_is_missing_is_a_kit_error() -> None:
    with pytest.raises(KitError, match="no-such-program"):
        run_step("calling", ["/nowhere/no-such-program"], hint="install it", seconds=5)


def test_the_heartbeat_tells_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commands, "HEARTBEAT_SECONDS", 0.2)
    script = "import time\nfor n in range(8): print(n, flush=True); time.sleep(0.1)"

    run_step("counting", python(script), hint="", seconds=30, detail=lambda text: f"{len(text.split())} of 8")

    beats = [line for line in capfd.readouterr().err.splitlines() if " of 8" in line]
    assert len(beats) >= 2
    assert beats[0].startswith("  counting: 0 s, ")


def test_root_needs_no_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)

    assert as_root(["apt-get", "update"]) == ["apt-get", "update"]


def test_without_root_and_sudo_the_error_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(KitError, match="sudo is not installed") as failed:
        as_root(["apt-get", "update"])
    assert "as root" in failed.value.hint


def test_sudo_asks_nobody_in_ci(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "sudo").write_text("#!/bin/sh\n")
    (tmp_path / "sudo").chmod(0o755)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CI", "true")

    assert as_root(["true"]) == ["sudo", "--non-interactive", "true"]


def test_apt_is_asked_for_only_where_there_is_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(KitError, match="neither Debian nor Ubuntu") as failed:
        apt_install(["docker.io"], hint="install it by hand", seconds=5)
    assert failed.value.hint == "install it by hand"


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ("/var/cache/me", "/var/cache/me/dify-kit"),
        ("", "/home/me/.cache/dify-kit"),
        ("relative", "/home/me/.cache/dify-kit"),
    ],
)
def test_the_cache_follows_the_xdg_specification(
    monkeypatch: pytest.MonkeyPatch, chosen: str, expected: str
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("XDG_CACHE_HOME", chosen)

    assert cache_directory() == Path(expected)
