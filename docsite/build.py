"""Build the site: lay the pages out in a folder of their own, and run Zensical there, strictly."""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from dify_kit.errors import KitError
from dify_kit.workspace.files import CHECKOUT
from docsite.llms import llms_txt
from docsite.pages import Page, on_site, written
from docsite.releases import upgrade_page
from docsite.sections import SECTIONS, indexes, ordered
from docsite.settings import setting_pages

CONFIGURATION = CHECKOUT / "docsite" / "zensical.toml"
STYLES = CONFIGURATION.with_name("site.css")
# Made by docsite/pictures.py.
PICTURES = "docs/pictures"
SECONDS = 120
# In every folder that was built: only such a one is replaced.
MARKER = ".dify-kit-site"


def pages() -> list[Page]:
    """Return every page of the site, in the order of its navigation."""
    found = [*written(CHECKOUT), *setting_pages(), upgrade_page()]
    return ordered([*found, *indexes(found)])


def build(out: Path, site: Sequence[Page] | None = None) -> None:
    """Build the site, of all pages unless others are given, into ``out``. Raises KitError with what Zensical reports.

    A folder at ``out`` is replaced when an earlier build made it, as its MARKER shows; any other is refused.
    """
    if out.exists() and not out.is_dir():
        raise KitError(f"{out}: is not a folder", "name another one")
    if out.exists() and any(out.iterdir()) and not (out / MARKER).is_file():
        raise KitError(
            f"{out}: holds something else than a documentation site of this command (no {MARKER})",
            "name another folder, or remove this one",
        )
    site = pages() if site is None else site
    with tempfile.TemporaryDirectory(prefix="dify-kit-site-") as scratch:
        work = Path(scratch)
        lay_out(site, work)
        try:
            done = subprocess.run(
                [sys.executable, "-m", "zensical", "build", "--strict", "--clean"],
                cwd=work,
                check=False,
                capture_output=True,
                text=True,
                timeout=SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise KitError(
                f"documentation site: not built within {SECONDS} s",
                "run the same command again when the machine has less to do",
            ) from None
        if done.returncode != 0:
            raise KitError(
                f"documentation site: {complaints(done.stdout + done.stderr)}", "correct these places"
            )
        shutil.rmtree(out, ignore_errors=True)
        # First the marker: what an interrupted build leaves can be replaced.
        out.mkdir(parents=True)
        (out / MARKER).touch()
        shutil.copytree(work / "site", out, dirs_exist_ok=True)
        # The Markdown of each page, for programs that read text: llms.txt links to it.
        shutil.copytree(work / "docs", out, dirs_exist_ok=True)
        (out / "llms.txt").write_text(llms_txt(site), encoding="utf-8")


def complaints(output: str) -> str:
    """Return the warnings of Zensical, each with its place, or the end of the output where there is none."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", output)
    found = re.findall(r"Warning: ([^\n]+)\n[^\n\[]*\[ ([^\]]+?) \]", plain)
    return ", ".join(f"{place}: {problem}" for problem, place in found) or plain.strip()[-1000:]


def lay_out(site: Sequence[Page], work: Path) -> None:
    """Write the pages and the configuration into a folder."""
    places = {page.source: page.path for page in site}
    pictures = sorted((CHECKOUT / PICTURES).glob("*"))
    places |= {f"{PICTURES}/{file.name}": f"pictures/{file.name}" for file in pictures}
    (work / "docs" / "pictures").mkdir(parents=True)
    for file in pictures:
        shutil.copy(file, work / "docs" / "pictures" / file.name)
    for page in site:
        file = work / "docs" / page.path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(on_site(page, places), encoding="utf-8")
    shutil.copy(STYLES, work / "docs" / STYLES.name)
    text = CONFIGURATION.read_text(encoding="utf-8")
    (work / CONFIGURATION.name).write_text(text.replace("nav = []", f"nav = {navigation(site)}"))


def navigation(site: Sequence[Page]) -> str:
    """Return the navigation as TOML: the first page, then a section for each of SECTIONS that has pages."""
    entries = [_entry(page) for page in site if "/" not in page.path]
    for name, folder in SECTIONS.items():
        below = [_entry(page) for page in site if page.path.rpartition("/")[0] == folder]
        if below:
            entries.append(f"{{ {json.dumps(name)} = [{', '.join(below)}] }}")
    return f"[{', '.join(entries)}]"


def _entry(page: Page) -> str:
    return f"{{ {json.dumps(page.title)} = {json.dumps(page.path)} }}"
