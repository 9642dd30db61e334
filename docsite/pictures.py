"""`python -m docsite.pictures`: the pictures of the pages, of a deployed stack. `make pictures STACK=dev` calls it.

The report is the one that `make smoke` wrote. Nothing secret is in the pictures: the report is masked, and no page is
opened with a session.
"""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from playwright.sync_api import Browser, sync_playwright
from playwright.sync_api import Error as PlaywrightError

from dify_kit.app import DEFAULT_STACK
from dify_kit.benchmark.deployed import exports
from dify_kit.chromium import BrowserError, find_browser
from dify_kit.errors import KitError
from dify_kit.talk import fail, say
from dify_kit.workspace.files import CHECKOUT
from docsite.build import PICTURES
from infra import hints

FOLDER = CHECKOUT / PICTURES
WIDTH, HEIGHT = 1100, 820
BENCH_SECONDS = 180


def pages(stack: str, outputs: Mapping[str, Any], reports: Path) -> dict[str, str]:
    """Return name of a picture -> URL of its page. Raises KitError where the report is missing."""
    report = reports / f"smoke-{stack}.html"
    if not report.is_file():
        raise KitError(f"{report}: does not exist", f"`{hints.make('smoke', stack)}` writes it")
    return {"report": report.as_uri(), "console": str(outputs["consoleUrl"])}


def take(browser: Browser, url: str, file: Path) -> None:
    """Write the first screen of a page to a PNG file. Raises KitError with the URL when it cannot be opened."""
    try:
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, ignore_https_errors=True)
        page.goto(url)
        page.screenshot(path=file)
        page.close()
    except PlaywrightError as problem:
        raise KitError(
            f"no picture of {url}: {problem.message.splitlines()[0]}",
            "open this page in a browser; a stack has to answer at its publicUrl",
        ) from None


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the Chromium of this machine. Raises KitError when there is none, or when it does not start."""
    try:
        path = find_browser().path
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=path)
            try:
                yield browser
            finally:
                browser.close()
    except (BrowserError, PlaywrightError) as problem:
        raise KitError(
            f"no browser for the pictures: {str(problem).splitlines()[0]}",
            f"`{hints.kit('setup', '--browser')}` installs one",
        ) from None


def draw_chart(stack: str, file: Path) -> None:
    """Let `dify-kit bench` measure the stack's canary and draw its chart."""
    command = [sys.executable, "-m", "dify_kit", "bench", "--stack", stack, "--chart", str(file)]
    alone = f"run it by itself: `{hints.kit('bench', stack=stack)}`"
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=BENCH_SECONDS)
    except subprocess.TimeoutExpired:
        raise KitError(f"dify-kit bench did not end within {BENCH_SECONDS} s", alone) from None
    if done.returncode != 0:
        raise KitError(f"dify-kit bench failed: {done.stderr.strip()[-500:]}", alone)


def main(
    stack: Annotated[str, typer.Option(help="A deployed stack.")] = DEFAULT_STACK,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the pictures are written.")] = FOLDER,
    reports: Annotated[Path, typer.Option(metavar="DIR", help="Where the smoke tests' report is.")] = CHECKOUT
    / "reports",
) -> None:
    """Take the pictures of the documentation: report, console and chart of a deployed stack."""
    try:
        found = pages(stack, exports(stack), reports)
        out.mkdir(parents=True, exist_ok=True)
        with chromium() as browser:
            for name, url in found.items():
                take(browser, url, out / f"{name}.png")
        draw_chart(stack, out / "chart.svg")
    except KitError as problem:
        fail(problem)
        raise typer.Exit(problem.exit_code) from None
    say(f"pictures: {out}")


if __name__ == "__main__":
    typer.run(main)
