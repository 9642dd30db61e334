"""tools/bootstrap: when it does something, what it asks uv for, and what a failure looks like.

It runs as a user runs it, in a checkout of its own, with a uv that is played by a script.
"""

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from dify_kit.workspace.files import CHECKOUT

# `venv` makes an interpreter, `pip install` the command line; everything is written down.
FAKE_UV = """#!/bin/sh
if [ "$1" = --version ]; then echo "uv ${FAKE_UV_VERSION:-0.13.9} (test)"; exit 0; fi
echo "$@" >>"$HOME/uv.calls"
echo "certs=$UV_SYSTEM_CERTS index=$UV_DEFAULT_INDEX venv=$VIRTUAL_ENV" >>"$HOME/uv.environment"
[ "$2" = "${FAKE_UV_BREAKS_AT:-nothing}" ] && { echo "hash mismatch" >&2; exit 2; }
sleep "${FAKE_UV_SECONDS:-0}"
mkdir -p .venv/bin
case "$1 $2" in
"venv "*) ln -sf PYTHON .venv/bin/python ;;
"pip install") : >.venv/bin/dify-kit ;;
esac
"""


@dataclass(frozen=True, kw_only=True)
class Checkout:
    """A checkout with the files that bootstrap reads, and a home directory."""

    root: Path
    home: Path

    def command(self, **environment: str) -> tuple[list[str], dict[str, str]]:
        return [sys.executable, str(self.root / "tools/bootstrap")], {
            "HOME": str(self.home),
            "PATH": f"{self.home / 'programs'}:/usr/bin:/bin",
            **environment,
        }

    def run(self, **environment: str) -> subprocess.CompletedProcess[str]:
        command, env = self.command(**environment)
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, env=env)

    @property
    def calls(self) -> list[list[str]]:
        calls = self.home / "uv.calls"
        return [line.split() for line in calls.read_text().splitlines()] if calls.exists() else []

    @property
    def link(self) -> Path:
        return self.home / ".local/bin/dify-kit"

    @property
    def verbs(self) -> list[str]:
        return [call[1] if call[0] == "pip" else call[0] for call in self.calls]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """Give a fresh clone on a machine that has uv."""
    checkout = Checkout(root=tmp_path / "clone", home=tmp_path / "home")
    (checkout.root / "tools").mkdir(parents=True)
    (checkout.home / "programs").mkdir(parents=True)
    (checkout.root / "tools/bootstrap").write_bytes((CHECKOUT / "tools/bootstrap").read_bytes())
    (checkout.root / "requirements.lock").write_text("rich==14.0.0\n")
    (checkout.root / "pyproject.toml").write_text("[project]\n")
    uv = checkout.home / "programs/uv"
    uv.write_text(FAKE_UV.replace("PYTHON", sys.executable))
    uv.chmod(0o755)
    return checkout


def test_a_fresh_clone_gets_exactly_the_locked_packages(checkout: Checkout) -> None:
    done = checkout.run()

    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert checkout.verbs == ["venv", "sync", "install"]
    sync, install = checkout.calls[1:]
    assert {"--require-hashes", "requirements.lock"} <= set(sync)
    assert {"--no-deps", "--no-build-isolation", "--editable"} <= set(install)
    assert [line[0] for line in done.stderr.splitlines()] == ["→", "✓"] * 3 + ["✓", "h"]


def test_the_second_run_does_nothing_quickly_and_silently(checkout: Checkout) -> None:
    checkout.run()
    began = time.monotonic()

    done = checkout.run()

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert time.monotonic() - began < 1
    assert len(checkout.calls) == 3


@pytest.mark.parametrize("changed", ["requirements.lock", "pyproject.toml", "tools/bootstrap"])
def test_a_changed_input_installs_again_into_the_same_environment(checkout: Checkout, changed: str) -> None:
    checkout.run()
    with (checkout.root / changed).open("a") as file:
        file.write("\n")

    assert checkout.run().returncode == 0

    assert checkout.verbs == ["venv", "sync", "install", "sync", "install"]


def test_an_interpreter_that_was_upgraded_away_is_replaced(checkout: Checkout) -> None:
    checkout.run()
    python = checkout.root / ".venv/bin/python"
    python.unlink()
    python.symlink_to("/nowhere/python3.9")

    assert checkout.run().returncode == 0

    assert checkout.verbs[3:] == ["venv", "sync", "install"]
    assert "--clear" in checkout.calls[3]


@pytest.mark.parametrize("breaks_at", ["sync", "install"])
def test_a_failed_installation_says_why_and_is_not_taken_for_done(checkout: Checkout, breaks_at: str) -> None:
    failed = checkout.run(FAKE_UV_BREAKS_AT=breaks_at)

    assert failed.returncode == 1
    assert "hash mismatch" in failed.stderr
    assert failed.stderr.splitlines()[-2].startswith("error: ")
    assert failed.stderr.splitlines()[-1].startswith("hint: ")
    before = len(checkout.calls)
    assert checkout.run().returncode == 0
    assert checkout.verbs[before:] == ["sync", "install"]


def test_a_failure_after_a_change_forgets_the_older_success(checkout: Checkout) -> None:
    checkout.run()
    lock = checkout.root / "requirements.lock"
    before = lock.read_text()
    lock.write_text("rich==15.0.0\n")
    assert checkout.run(FAKE_UV_BREAKS_AT="install").returncode == 1
    lock.write_text(before)
    calls = len(checkout.calls)

    checkout.run()

    assert checkout.verbs[calls:] == ["sync", "install"]


def test_two_runs_at_once_install_once(checkout: Checkout) -> None:
    command, env = checkout.command(FAKE_UV_SECONDS="0.3")
    runs = [subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) for _ in range(2)]

    said = [run.communicate(timeout=60)[1] for run in runs]

    assert [run.returncode for run in runs] == [0, 0]
    assert checkout.verbs == ["venv", "sync", "install"]
    assert sum("waiting" in text for text in said) == 1


def test_uv_trusts_the_system_and_asks_the_index_that_pip_asks(checkout: Checkout) -> None:
    config = checkout.home / ".config/pip/pip.conf"
    config.parent.mkdir(parents=True)
    config.write_text("[global]\nindex-url = https://packages.example.com/simple\n")

    checkout.run(VIRTUAL_ENV="/somewhere/else")

    told = set((checkout.home / "uv.environment").read_text().splitlines())
    assert told == {"certs=true index=https://packages.example.com/simple venv="}


def test_an_index_chosen_for_uv_stays(checkout: Checkout) -> None:
    checkout.run(PIP_INDEX_URL="https://pip.example.com", UV_DEFAULT_INDEX="https://uv.example.com")

    assert "index=https://uv.example.com " in (checkout.home / "uv.environment").read_text()


def test_an_old_uv_is_not_used(checkout: Checkout) -> None:
    newer = checkout.home / ".local/bin/uv"
    newer.parent.mkdir(parents=True)
    newer.write_text(FAKE_UV.replace("PYTHON", sys.executable).replace("0.13.9", "0.9.0"))
    newer.chmod(0o755)
    (checkout.home / "programs/uv").write_text("#!/bin/sh\necho 'uv 0.4.1'\n")

    assert checkout.run().returncode == 0
    assert checkout.verbs == ["venv", "sync", "install"]


def test_the_command_is_on_path(checkout: Checkout) -> None:
    done = checkout.run(PATH=f"{checkout.home / 'programs'}:{checkout.home / '.local/bin'}:/usr/bin:/bin")

    assert checkout.link.readlink() == checkout.root / ".venv/bin/dify-kit"
    assert done.stderr.splitlines()[-1] == f"✓ dify-kit: {checkout.link}"


def test_a_directory_that_is_not_on_path_is_named_with_the_way_to_add_it(checkout: Checkout) -> None:
    assert 'run `export PATH="$HOME/.local/bin:$PATH"`' in checkout.run().stderr.splitlines()[-1]


def test_a_deleted_link_is_made_again(checkout: Checkout) -> None:
    checkout.run()
    checkout.link.unlink()

    assert checkout.run().returncode == 0
    assert checkout.link.is_symlink()


@pytest.mark.parametrize("kind", ["file", "link", "dangling link", "directory"])
def test_what_has_the_name_already_is_left_alone(checkout: Checkout, kind: str) -> None:
    checkout.link.parent.mkdir(parents=True)
    match kind:
        case "file":
            checkout.link.write_text("mine")
        case "link":
            checkout.link.symlink_to("/bin/true")
        case "dangling link":
            checkout.link.symlink_to("/nowhere/dify-kit")
        case _:
            checkout.link.mkdir()
    before = checkout.link.lstat().st_ino

    done = checkout.run()

    assert done.returncode == 0
    assert checkout.link.lstat().st_ino == before
    assert f"Run {checkout.root / '.venv/bin/dify-kit'} instead" in done.stderr.splitlines()[-1]
    assert checkout.run().stderr == ""


def test_the_link_of_a_deleted_checkout_is_replaced(checkout: Checkout) -> None:
    checkout.link.parent.mkdir(parents=True)
    checkout.link.symlink_to("/nowhere/clone/.venv/bin/dify-kit")

    checkout.run()

    assert checkout.link.readlink() == checkout.root / ".venv/bin/dify-kit"


def test_a_home_that_cannot_be_written_does_not_stop_the_installation(checkout: Checkout) -> None:
    (checkout.home / ".local").write_text("a file")

    done = checkout.run()

    assert done.returncode == 0
    assert "cannot be made" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("target", ["wheel", "sdist"])
def test_no_distribution_is_built_that_could_not_run(tmp_path: Path, target: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=CHECKOUT,
    )

    assert done.returncode == 1
    assert "dify-kit runs from its checkout" in done.stderr
    assert list(tmp_path.iterdir()) == []
