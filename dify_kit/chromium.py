"""Finds a Chromium on this machine for the browser tests. Nothing is downloaded here."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from infra import hints

# From this one on, a page needs a permission before it may call a private address, and the tests give it.
OLDEST_MAJOR = 142
VERSION_SECONDS = 20
VARIABLE = "DIFY_KIT_BROWSER"
NAMES = ("chromium", "google-chrome-stable", "google-chrome", "chromium-browser", "microsoft-edge-stable")
PLACES = (
    Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"),
    Path("/Applications/Chromium.app/Contents/MacOS/Chromium"),
)


def _install() -> str:
    command = hints.kit("setup", "--browser")
    return f"`{command}` installs one, --browser PATH or the variable {VARIABLE} names one"


class BrowserError(Exception):
    """No usable browser was found; the message says what was found and how to install one."""


@dataclass(frozen=True, kw_only=True)
class Browser:
    """A Chromium-based browser: the path of its program, and its name with version."""

    path: str
    version: str

    def __str__(self) -> str:
        """Return name, version and path in one line."""
        return f"{self.version} ({self.path})"


def playwrights_own() -> str:
    """Return the path where `playwright install chromium` puts its browser; it need not exist."""
    # Imported late: most commands and most runs need no browser.
    from playwright.sync_api import sync_playwright  # noqa: PLC0415

    with sync_playwright() as playwright:
        return playwright.chromium.executable_path


def find_browser(given: str = "", own: Callable[[], str] = playwrights_own) -> Browser:
    """Return the browser named by `given` or by the environment, else the first one on this machine.

    Raises BrowserError when there is none, when it is too old, or when it is no Chromium.
    """
    named = given or os.environ.get(VARIABLE, "")
    if named:
        return examine(named)
    problems = []
    for path in _candidates(own):
        try:
            return examine(path)
        except BrowserError as problem:
            problems.append(str(problem))
    raise BrowserError("; ".join(problems) or f"there is no Chromium on this machine: {_install()}")


def _candidates(own: Callable[[], str]) -> Iterator[str]:
    yield from (found for name in NAMES if (found := shutil.which(name)))
    yield from (str(place) for place in PLACES if place.exists())
    # Last: finding this path starts Playwright.
    try:
        path = own()
    except Exception as problem:  # noqa: BLE001  # see below
        # The driver lacks a system library that a browser's package would bring; it raises nothing narrower.
        raise BrowserError(
            f"there is no Chromium on this machine, and Playwright does not start ({problem}): {_install()}"
        ) from None
    if Path(path).exists():
        yield path


def examine(path: str) -> Browser:
    """Read a browser's version. Raises BrowserError unless it is a Chromium that is new enough."""
    try:
        printed = subprocess.run(
            [path, "--version"], check=False, capture_output=True, text=True, timeout=VERSION_SECONDS
        )
    except OSError as problem:
        raise BrowserError(
            f"the browser {path} cannot be started: {problem.strerror}: {_install()}"
        ) from None
    except subprocess.TimeoutExpired:
        raise BrowserError(
            f"the browser {path} did not print its version within {VERSION_SECONDS} s: {_install()}"
        ) from None
    found = re.search(
        r"^((?:Chromium|Google Chrome|Microsoft Edge)\b\D*)(\d+)([.\d]*)", printed.stdout, re.MULTILINE
    )
    if not found:
        said = (printed.stderr.strip() or printed.stdout.strip() or "nothing").splitlines()[-1][:200]
        raise BrowserError(f"{path} is not Chromium: `--version` prints {said!r}: {_install()}")
    version = "".join(found.groups())
    if int(found.group(2)) < OLDEST_MAJOR:
        raise BrowserError(f"{version} ({path}) is too old, {OLDEST_MAJOR} or newer is needed: {_install()}")
    return Browser(path=path, version=version)
