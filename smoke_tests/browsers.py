"""Finding a Chromium on this machine, for the tests of the browser's view. Nothing is downloaded here."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

# From this one on, a page needs a permission before it may call a private address, and the tests give it.
OLDEST_MAJOR = 142
VERSION_SECONDS = 20
VARIABLE = "DIFY_KIT_BROWSER"
NAMES = ("chromium", "google-chrome-stable", "google-chrome", "chromium-browser", "microsoft-edge-stable")
PLACES = (
    Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"),
    Path("/Applications/Chromium.app/Contents/MacOS/Chromium"),
)
INSTALL = "`make browser` installs one, --browser PATH or the variable " + VARIABLE + " names one"


class BrowserError(Exception):
    """There is no browser that can be driven; the message says what was found, and what helps."""


@dataclass(frozen=True, kw_only=True)
class Browser:
    """A Chromium, or a browser made of it: its program, and what it says of itself."""

    path: str
    version: str

    def __str__(self) -> str:
        """Name it in a line."""
        return f"{self.version} ({self.path})"


def playwrights_own() -> str:
    """Return where `playwright install chromium` puts its browser, whether one is there or not."""
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
    raise BrowserError("; ".join(problems) or f"there is no Chromium on this machine: {INSTALL}")


def _candidates(own: Callable[[], str]) -> Iterator[str]:
    yield from (found for name in NAMES if (found := shutil.which(name)))
    yield from (str(place) for place in PLACES if place.exists())
    # Asked last: Playwright has to be started to know.
    try:
        path = own()
    except Exception as problem:  # noqa: BLE001  # see below
        # The driver lacks a system library that a browser's package would bring; it raises nothing narrower.
        raise BrowserError(
            f"there is no Chromium on this machine, and Playwright does not start ({problem}): {INSTALL}"
        ) from None
    if Path(path).exists():
        yield path


def examine(path: str) -> Browser:
    """Ask a browser for its version. Raises BrowserError when it does not tell one that is new enough."""
    try:
        told = subprocess.run(
            [path, "--version"], check=False, capture_output=True, text=True, timeout=VERSION_SECONDS
        )
    except OSError as problem:
        raise BrowserError(f"the browser {path} cannot be started: {problem.strerror}: {INSTALL}") from None
    except subprocess.TimeoutExpired:
        raise BrowserError(
            f"the browser {path} did not tell its version within {VERSION_SECONDS} s: {INSTALL}"
        ) from None
    found = re.search(
        r"^((?:Chromium|Google Chrome|Microsoft Edge)\b\D*)(\d+)([.\d]*)", told.stdout, re.MULTILINE
    )
    if not found:
        said = (told.stderr.strip() or told.stdout.strip() or "nothing").splitlines()[-1][:200]
        raise BrowserError(f"{path} is no Chromium; asked for its version, it says {said!r}: {INSTALL}")
    version = "".join(found.groups())
    if int(found.group(2)) < OLDEST_MAJOR:
        raise BrowserError(f"{version} ({path}) is too old, {OLDEST_MAJOR} or newer is needed: {INSTALL}")
    return Browser(path=path, version=version)
