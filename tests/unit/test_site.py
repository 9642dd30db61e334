"""The documentation site: built strictly, without a broken link, searchable, and from this host alone."""

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from dify_kit.errors import KitError
from dify_kit.workspace.files import CHECKOUT
from docsite import build as site_build
from docsite.build import build, pages
from docsite.pages import Page, on_site
from docsite.settings import setting_pages
from infra.catalogue.project import declared
from infra.catalogue.releases import RELEASES
from tests.unit.test_docs import PAGES

# What a browser loads with a page, by element and attribute. `rel` of a link names pages as well.
LOADED: Mapping[str, str] = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}


@dataclass
class Reader(HTMLParser):
    """What a built page has: ids, links, addresses that it loads, and classes."""

    ids: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    classes: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Start the parser."""
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids |= {given[name] for name in ("id", "name") if name in given}
        self.classes |= set(given.get("class", "").split())
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if given.get(LOADED.get(tag, "")):
            self.loaded.append(given[LOADED[tag]])


def read(file: Path) -> Reader:
    reader = Reader()
    reader.feed(file.read_text(encoding="utf-8"))
    return reader


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` does it."""
    out = tmp_path_factory.mktemp("built") / "site"
    done = subprocess.run(
        [sys.executable, "-m", "docsite", str(out)],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=CHECKOUT,
    )
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def built(site: Path) -> Mapping[str, Reader]:
    return {str(file.relative_to(site)): read(file) for file in sorted(site.rglob("*.html"))}


def test_every_page_of_the_checkout_is_on_the_site(site: Path) -> None:
    sources = {page.source: page for page in pages()}

    for page in PAGES:
        name = str(page.relative_to(CHECKOUT))
        assert name in sources, f"{name}: not on the site"
        assert (site / sources[name].path).with_suffix(".html").is_file()


def test_every_link_leads_somewhere(site: Path, built: Mapping[str, Reader]) -> None:
    broken = []
    for name, page in built.items():
        # The page of an unknown address has absolute links, because it has no place of its own.
        for link in page.links if name != "404.html" else ():
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (site / name).parent / parts.path if parts.path else site / name
            target = (target / "index.html" if target.is_dir() else target).resolve()
            other = built.get(str(target.relative_to(site.resolve()))) if target.is_file() else None
            if not target.is_file() or (
                parts.fragment and other and unquote(parts.fragment) not in other.ids
            ):
                broken.append(f"{name}: {link}")

    assert broken == []
    assert sum(len(page.links) for page in built.values()) > 1000


def test_every_page_is_in_the_navigation(built: Mapping[str, Reader]) -> None:
    linked = {link.partition("#")[0].removeprefix("./") for link in built["index.html"].links}

    assert {page.path.removesuffix(".md") + ".html" for page in pages()} - linked - {"index.html"} == set()


def test_pages_load_nothing_from_another_host(site: Path, built: Mapping[str, Reader]) -> None:
    loaded = [address for page in built.values() for address in page.loaded]
    styles = "".join(file.read_text(encoding="utf-8") for file in site.rglob("*.css"))

    assert len(loaded) > len(built)
    assert [address for address in loaded if re.match(r"(?:[a-z]+:)?//", address)] == []
    assert re.findall(r"(?:@import|url\()\s*[\"']?(?:https?:)?//[^)\"']*", styles) == []
    # Zensical's script fetches programs of others for elements of these classes.
    assert [name for name, page in built.items() if page.classes & {"mermaid", "glightbox", "pyodide"}] == []


def test_search_has_every_page_and_setting(site: Path) -> None:
    items = json.loads((site / "search.json").read_text(encoding="utf-8"))["items"]
    found = {item["location"].partition("#")[0] for item in items}
    titles = {item["title"] for item in items}

    assert {page.path.removesuffix(".md") + ".html" for page in pages()} - found == set()
    assert set(declared()) - titles == set()


def test_llms_txt_lists_every_page_as_markdown(site: Path) -> None:
    text = (site / "llms.txt").read_text(encoding="utf-8")
    linked = re.findall(r"^- \[[^\]\n]+\]\(([^)\n]+)\): \S", text, re.MULTILINE)

    assert text.startswith("# dify-kit\n\n> ")
    assert sorted(["index.md", *linked]) == sorted(page.path for page in pages())
    assert [name for name in linked if not (site / name).is_file()] == []


def test_every_setting_has_a_place_on_the_page_of_one_group() -> None:
    headings = [
        key for page in setting_pages() for key in re.findall(r"^### (\w+)$", page.text, re.MULTILINE)
    ]

    assert sorted(headings) == sorted(declared())
    assert len(setting_pages()) > 15


def page_of(text: str) -> Page:
    return Page(path="guides/a.md", source="docs/guides/a.md", text=text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[b](../reference/b.md#part)", "[b](../reference/b.md#part)"),
        ("[start](../../README.md)", "[start](../index.md)"),
        ("[all](../decisions/)", "[all](../decisions/index.md)"),
        ("[`code`](../../infra/x.py) too", "`code` too"),
        ("`[x](../../infra/x.py)` [y](../../README.md)", "`[x](../../infra/x.py)` [y](../index.md)"),
        ("[out](https://vale.sh) [here](#part)", "[out](https://vale.sh) [here](#part)"),
        ("```sh\n[x](y.md)\n```\n", "```sh\n[x](y.md)\n```\n"),
        ("<!-- run by: tests/x.py::test_x -->\n```sh\nmake up\n```\n", "```sh\nmake up\n```\n"),
        ("1. One\n\n   ```sh\n   make up\n   ```\n", "1. One\n\n    ```sh\n    make up\n    ```\n"),
    ],
)
def test_pages_hold_on_the_site(text: str, expected: str) -> None:
    places = {
        "README.md": "index.md",
        "docs/decisions": "decisions/index.md",
        "docs/reference/b.md": "reference/b.md",
    }

    assert on_site(page_of(text), places) == expected


@pytest.mark.parametrize("link", ["guides/missing.md", "a.md#no-such-heading"])
def test_a_broken_link_ends_the_build(link: str, tmp_path: Path) -> None:
    site = [
        Page(path="index.md", source="README.md", text=f"# Start\n\nSee [this][1].\n\n[1]: {link}\n"),
        Page(path="a.md", source="docs/a.md", text="# A\n\nText.\n"),
    ]

    with pytest.raises(KitError, match=r"index\.md:\d+:\d+: "):
        build(tmp_path / "site", site)

    assert not (tmp_path / "site").exists()


# Other sites have an llms.txt too.
@pytest.mark.parametrize("name", ["mine.txt", "llms.txt", "index.html"])
def test_a_folder_with_other_files_is_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")

    with pytest.raises(KitError, match="holds something else"):
        build(tmp_path, [])
    with pytest.raises(KitError, match="is not a folder"):
        build(tmp_path / name, [])

    assert (tmp_path / name).read_text() == "mine"


SMALL = [Page(path="index.md", source="README.md", text="# Start\n\nText.\n")]


def test_a_site_of_an_earlier_build_is_replaced(tmp_path: Path) -> None:
    build(tmp_path, SMALL)
    (tmp_path / "old.html").write_text("old")

    build(tmp_path, SMALL)

    assert not (tmp_path / "old.html").exists()
    assert (tmp_path / "index.html").is_file()


def test_a_build_that_does_not_end_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site_build, "SECONDS", 0.05)

    with pytest.raises(KitError, match="not built within"):
        build(tmp_path / "site", SMALL)

    assert not (tmp_path / "site").exists()


def test_upgrades_compare_each_release_with_the_one_before(site: Path) -> None:
    text = (site / "releases" / "upgrade.md").read_text(encoding="utf-8")
    sections = dict(part.split("\n", 1) for part in text.split("\n## ")[1:])

    assert list(sections) == list(RELEASES)
    for version, before in pairwise(RELEASES):
        release, old = RELEASES[version], RELEASES[before]
        section = sections[version]
        assert f"From {before}:" in section
        assert all(f"`{service}`" in section for service in release.services ^ old.services)
        assert f"`{old.images['api'].tag}` | `{release.images['api'].tag}`" in section
        assert all(line in section for line in (*release.upgrade, *release.weaviate_ladder))
    assert all(
        one.id in sections[release.version] for release in RELEASES.values() for one in release.advisories
    )
