"""The pages of the site: which file of the checkout is which page, and their text with links that hold there."""

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dify_kit.errors import KitError

_FENCE = re.compile(r"(^ *```.*?^ *```$)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")
# From left to right: a link's label may hold code, and code that looks like a link is none.
_CODE_OR_LINK = re.compile(rf"`[^`\n]*`|{_LINK.pattern}")
_MARK = re.compile(r"^ *<!-- (?:run by|not run): [^\n]+ -->\n", re.MULTILINE)
_TITLE = re.compile(r"^# (.+)$", re.MULTILINE)
# Pages of the checkout outside of docs/, and where the site has them.
ELSEWHERE: Mapping[str, str] = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing/contributing.md",
    "SECURITY.md": "contributing/security.md",
    "CHANGELOG.md": "releases/changelog.md",
    "templates/README.md": "reference/templates.md",
    "bench/README.md": "figures/index.md",
}


@dataclass(frozen=True, kw_only=True)
class Page:
    """A page: its path on the site, where its links start in the checkout, and its Markdown as in the checkout."""

    path: str
    source: str
    text: str

    @property
    def title(self) -> str:
        """Return the first heading, without code marks. Raises KitError where there is none."""
        found = _TITLE.search(_FENCE.sub("", self.text))
        if found is None:
            raise KitError(f"{self.source}: the page has no title", "begin it with a line `# Title`")
        return found[1].replace("`", "")

    @property
    def summary(self) -> str:
        """Return the first sentence of the first paragraph, in one line and without links."""
        body = _FENCE.sub("", _MARK.sub("", self.text)).split("\n\n")
        paragraphs = [part for part in body if part.strip() and part.strip()[0] not in "#|-<>"]
        line = " ".join(_LINK.sub(r"\1", paragraphs[0]).split()) if paragraphs else self.title
        return re.split(r"(?<=\.)\s", line)[0].removesuffix(":")


def written(checkout: Path) -> list[Page]:
    """Return the pages that people write: those of docs/, results of benches, and the files of ELSEWHERE."""
    found = [
        *sorted((checkout / "docs").rglob("*.md")),
        *sorted((checkout / "bench" / "results").glob("*.md")),
    ]
    files = {str(path.relative_to(checkout)): path for path in found}
    files |= {name: checkout / name for name in ELSEWHERE}
    return [
        Page(path=_site_path(name), source=name, text=path.read_text(encoding="utf-8"))
        for name, path in files.items()
    ]


def _site_path(name: str) -> str:
    return ELSEWHERE.get(name) or name.replace("bench/results/", "figures/").removeprefix("docs/").lower()


def on_site(page: Page, places: Mapping[str, str]) -> str:
    """Return the page's Markdown for the site.

    ``places`` has the path on the site by the path in the checkout, for pages and folders. A link to anything else in
    the checkout becomes plain text, because the site has no such file. Marks of fenced blocks are left out, and content
    of list items is indented by the four columns that Python-Markdown requires.
    """
    parts = _FENCE.split(_MARK.sub("", page.text))
    parts[::2] = [_with_links(part, page, places) for part in parts[::2]]
    return re.sub(r"^   (?=\S|```)", "    ", "".join(_indented(part) for part in parts), flags=re.MULTILINE)


def _indented(part: str) -> str:
    """Return a fenced block of a list item with one more column; everything else as it is."""
    return re.sub(r"^(?=.)", " ", part, flags=re.MULTILINE) if part.startswith("   ```") else part


def _with_links(text: str, page: Page, places: Mapping[str, str]) -> str:
    def moved(match: re.Match[str]) -> str:
        label, link = match.groups()
        if link is None:
            return match[0]
        target, _, anchor = link.partition("#")
        if "://" in link or link.startswith("mailto:") or not target:
            return match[0]
        place = places.get(posixpath.normpath(posixpath.join(posixpath.dirname(page.source), target)))
        if place is None:
            return label
        relative = posixpath.relpath(place, posixpath.dirname(page.path) or ".")
        return f"[{label}]({relative}{'#' if anchor else ''}{anchor})"

    return _CODE_OR_LINK.sub(moved, text)
