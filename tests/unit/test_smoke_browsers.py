"""Finding a browser for the smoke tests, and the output of a run without one. Scripts stand for browsers."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dify_kit import chromium
from dify_kit.chromium import OLDEST_MAJOR, VARIABLE, Browser, BrowserError, examine, find_browser
from dify_kit.errors import KitError
from dify_kit.setup import browser as setup
from dify_kit.setup.browser import ensure_browser
from tests.unit.smoke_runs import CHECKOUT
from tests.unit.smoke_upstream import ALLOWED, KEY, serving

NEW = f"Chromium {OLDEST_MAJOR}.0.1.2 built on Debian GNU/Linux 12 (bookworm)"
OLD = f"Chromium {OLDEST_MAJOR - 1}.9.9.9"


def nowhere() -> str:
    return "/nowhere/chrome"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that is the whole PATH, on a machine without other browsers."""
    directory = tmp_path / "programs"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(chromium, "PLACES", (tmp_path / "Chrome.app",))
    return directory


def install(path: Path, says: str, *, code: int = 0) -> str:
    path.write_text(f"#!/bin/sh\necho '{says}'\nexit {code}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("name", ["chromium", "google-chrome", "chromium-browser"])
def test_a_browser_on_the_path_is_found(programs: Path, name: str) -> None:
    path = install(programs / name, NEW)

    found = find_browser(own=nowhere)

    assert found == Browser(path=path, version=f"Chromium {OLDEST_MAJOR}.0.1.2")
    assert str(found) == f"Chromium {OLDEST_MAJOR}.0.1.2 ({path})"


@pytest.mark.parametrize(
    ("says", "version"),
    [
        ("Chromium 156.0.8078.79 built on Debian GNU/Linux 12", "Chromium 156.0.8078.79"),
        ("Google Chrome 150.0.1.2 ", "Google Chrome 150.0.1.2"),
        ("Google Chrome for Testing 149.0.7827.55", "Google Chrome for Testing 149.0.7827.55"),
        ("Microsoft Edge 151.0.1.2", "Microsoft Edge 151.0.1.2"),
    ],
)
def test_browsers_made_of_chromium_will_do(programs: Path, says: str, version: str) -> None:
    assert examine(install(programs / "one", says)).version == version


def test_playwrights_own_browser_is_found_last(programs: Path, tmp_path: Path) -> None:
    own = install(tmp_path / "chrome", NEW)

    assert find_browser(own=lambda: own).path == own
    path = install(programs / "chromium", NEW)
    assert find_browser(own=lambda: own).path == path


def test_playwright_knows_where_it_would_put_its_browser() -> None:
    assert Path(chromium.playwrights_own()).is_absolute()


def test_the_browser_of_a_mac_is_found(programs: Path, tmp_path: Path) -> None:
    path = install(tmp_path / "Chrome.app", NEW)

    assert programs.is_dir()
    assert find_browser(own=nowhere).path == path


def test_a_browser_can_be_named(programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(programs / "chromium", NEW)
    named = install(tmp_path / "mine", NEW)
    other = install(tmp_path / "other", NEW)

    monkeypatch.setenv(VARIABLE, other)

    assert find_browser(named, nowhere).path == named
    assert find_browser("", nowhere).path == other


def test_a_missing_browser_is_reported_with_the_fix(programs: Path) -> None:
    assert programs.is_dir()
    with pytest.raises(
        BrowserError, match=r"^there is no Chromium on this machine: `dify-kit setup --browser`"
    ):
        find_browser(own=nowhere)


@pytest.mark.usefixtures("programs")
def test_a_playwright_that_does_not_start_is_no_browser_either() -> None:
    def broken() -> str:
        # What Playwright raises when its driver misses a system library.
        raise Exception("Connection closed while reading from the driver")  # noqa: TRY002

    with pytest.raises(BrowserError, match=r"Playwright does not start \(Connection closed.*setup --browser"):
        find_browser(own=broken)


def test_a_browser_that_is_too_old_is_passed_over(programs: Path) -> None:
    install(programs / "chromium", OLD)
    with pytest.raises(
        BrowserError, match=rf"^Chromium {OLDEST_MAJOR - 1}\.9\.9\.9 \(.*\) is too old, {OLDEST_MAJOR}"
    ):
        find_browser(own=nowhere)

    path = install(programs / "google-chrome", NEW)
    assert find_browser(own=nowhere).path == path


def test_a_named_browser_is_not_passed_over(programs: Path, tmp_path: Path) -> None:
    install(programs / "chromium", NEW)

    with pytest.raises(BrowserError, match="is too old"):
        find_browser(install(tmp_path / "old", OLD), nowhere)
    with pytest.raises(BrowserError, match="/nowhere cannot be started: No such file or directory"):
        find_browser("/nowhere", nowhere)


def test_a_program_that_is_no_chromium_is_refused(programs: Path) -> None:
    with pytest.raises(BrowserError, match=r"is not Chromium: `--version` prints 'Mozilla Firefox 150\.0'"):
        examine(install(programs / "firefox", "Mozilla Firefox 150.0"))
    with pytest.raises(BrowserError, match=r"is not Chromium: `--version` prints 'nothing'"):
        examine(install(programs / "silent", ""))


def test_a_browser_that_hangs_is_not_waited_for(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chromium, "VERSION_SECONDS", 0.2)
    path = programs / "hangs"
    path.write_text("#!/bin/sh\nwhile :; do :; done\n", encoding="utf-8")
    path.chmod(0o755)

    with pytest.raises(BrowserError, match=r"did not print its version within 0\.2 s"):
        examine(str(path))


# What a run says


def smoke(tmp_path: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    with serving() as upstream:
        return subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "smoke_tests", "-p", "no:cacheprovider"),
                *("-k", "browser or the_environment_answers", "--url", upstream.url),
                *("--allowed-origin", ALLOWED, "--reports", str(tmp_path / "reports"), *arguments),
            ],
            cwd=CHECKOUT,
            env=os.environ | {"DIFY_API_KEY": KEY, "NO_COLOR": "1", "COLUMNS": "400"} | environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def test_a_run_without_a_browser_says_so(tmp_path: Path) -> None:
    # An environment of Playwright's own with no browser in it, and a PATH without one.
    done = smoke(tmp_path, PATH=str(tmp_path), PLAYWRIGHT_BROWSERS_PATH=str(tmp_path))
    (page,) = (tmp_path / "reports").glob("*.html")
    reason = "there is no Chromium on this machine: `dify-kit setup --browser` installs one"

    assert done.returncode == 0, done.stdout[-3000:]
    assert "1 passed" in done.stdout
    assert "skipped" not in done.stdout
    assert f"browser: none, so the browser tests are not selected: {reason}" in done.stdout
    assert f"10 tests not selected: they need a browser: {reason}" in done.stdout
    assert reason in page.read_text(encoding="utf-8")


def test_a_run_can_do_without_a_browser(tmp_path: Path) -> None:
    done = smoke(tmp_path, "--browser", "none")

    assert done.returncode == 0, done.stdout[-3000:]
    assert "browser: none, so the browser tests are not selected: --browser none was given" in done.stdout
    assert "10 tests not selected: they need a browser: --browser none was given" in done.stdout


def test_a_browser_that_was_asked_for_has_to_be_there(tmp_path: Path) -> None:
    done = smoke(tmp_path, "--browser", "/nowhere")

    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "--browser /nowhere: the browser /nowhere cannot be started: No such file" in done.stderr


def test_a_browser_that_does_not_start_fails_the_run(tmp_path: Path) -> None:
    path = install(tmp_path / "chromium", NEW, code=3)
    done = smoke(tmp_path, "--browser", path)

    assert done.returncode == 1, done.stdout[-3000:]
    assert f"({path}) does not start: " in done.stdout
    assert "--browser none deselects these tests" in done.stdout
    assert re.search(r"\b1 passed, .*\b10 errors", done.stdout)


# Set-up


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What set-up asks apt for; it comes without effect."""
    asked: list[list[str]] = []
    monkeypatch.setattr(setup, "apt_install", lambda packages, **_: asked.append(packages))
    monkeypatch.setattr(setup, "find_browser", lambda: find_browser(own=nowhere))
    return asked


def test_a_browser_that_is_there_is_left_alone(
    programs: Path, installed: list[list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    path = install(programs / "chromium", NEW)

    ensure_browser()

    assert installed == []
    assert capfd.readouterr().err == f"✓ browser: Chromium {OLDEST_MAJOR}.0.1.2 ({path})\n"


def test_debians_browser_is_installed(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def apt_install(packages: list[str], **_: object) -> None:
        install(programs / packages[0], NEW)

    monkeypatch.setattr("platform.freedesktop_os_release", lambda: {"ID": "debian"})
    monkeypatch.setattr(setup, "apt_install", apt_install)
    monkeypatch.setattr(setup, "find_browser", lambda: find_browser(own=nowhere))

    ensure_browser()

    assert find_browser(own=nowhere).path == str(programs / "chromium")


def test_an_installation_without_a_browser_is_an_error(
    programs: Path, installed: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.freedesktop_os_release", lambda: {"ID": "debian"})

    with pytest.raises(KitError, match="there is no Chromium on this machine") as failed:
        ensure_browser()

    assert programs.is_dir()
    assert [list(packages) for packages in installed] == [["chromium", "libatomic1"]]
    assert "playwright install --with-deps chromium" in failed.value.hint


@pytest.mark.parametrize("system", ["ubuntu", "fedora"])
def test_elsewhere_set_up_says_what_to_run(
    programs: Path, installed: list[list[str]], monkeypatch: pytest.MonkeyPatch, system: str
) -> None:
    monkeypatch.setattr("platform.freedesktop_os_release", lambda: {"ID": system, "ID_LIKE": "debian"})

    with pytest.raises(KitError) as failed:
        ensure_browser()

    assert programs.is_dir()
    assert installed == []
    assert (
        f"run `{Path(sys.executable).with_name('playwright')} install --with-deps chromium`"
        in failed.value.hint
    )


def test_a_system_without_a_name_is_not_debian(
    programs: Path, installed: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> dict[str, str]:
        raise OSError("no os-release")

    monkeypatch.setattr("platform.freedesktop_os_release", fails)

    with pytest.raises(KitError):
        ensure_browser()

    assert programs.is_dir()
    assert installed == []
