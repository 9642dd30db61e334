"""A Chromium for the smoke tests of the browser's view, installed where none is (Debian)."""

import platform
import sys
from pathlib import Path

from dify_kit.chromium import Browser, BrowserError, find_browser
from dify_kit.errors import KitError
from dify_kit.setup.commands import apt_install, done

# The second one is for Playwright's driver.
PACKAGES = ("chromium", "libatomic1")
INSTALL_SECONDS = 900


def ensure_browser() -> None:
    """Make sure that a browser is there that can be driven. Raises KitError with the next thing to try."""
    found = _found()
    if isinstance(found, str) and _has_package():
        apt_install(
            PACKAGES,
            hint=f"are Debian's package sources reachable? Otherwise {by_hand()}",
            seconds=INSTALL_SECONDS,
        )
        found = _found()
    if isinstance(found, str):
        raise KitError(found, by_hand())
    done("browser", str(found))


def _found() -> Browser | str:
    try:
        return find_browser()
    except BrowserError as problem:
        return str(problem)


def _has_package() -> bool:
    """Tell whether this is Debian. Ubuntu's package of the same name installs a snap, which no test can drive."""
    try:
        return platform.freedesktop_os_release()["ID"] == "debian"
    except OSError:
        return False


def by_hand() -> str:
    """Return how to get a browser on any system that Playwright knows."""
    playwright = Path(sys.executable).with_name("playwright")
    return (
        f"run `{playwright} install --with-deps chromium`, which downloads one, or install Chromium or Chrome "
        "by your system's own means"
    )
