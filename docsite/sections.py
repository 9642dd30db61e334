"""The sections of the site: their order, the order of pages within each, and the pages that list a folder."""

import posixpath
from collections.abc import Mapping, Sequence
from functools import partial

from dify_kit.workspace.files import CHECKOUT
from docsite.pages import Page

# What the navigation calls a section, and the folder of its pages.
SECTIONS: Mapping[str, str] = {
    "Cookbook": "cookbook",
    "Guides": "guides",
    "Concepts": "concepts",
    "Settings": "reference/settings",
    "Reference": "reference",
    "Releases": "releases",
    "Figures": "figures",
    "Decisions": "decisions",
    "Contributing": "contributing",
}
# Folders that pages link to as a whole: each gets a page that lists it.
LISTED: Mapping[str, str] = {
    "cookbook": "Short ways to a stack, by where it runs and what for.",
    "decisions": "Decisions that changed the folders, the flow or a contract.",
    "reference/settings": "The settings by group, as `Pulumi.yaml` declares them.",
}


def indexes(site: Sequence[Page]) -> list[Page]:
    """Return a page for each folder of LISTED, with a link to every page in it."""
    found = []
    names = {folder: name for name, folder in SECTIONS.items()}
    for folder, sentence in LISTED.items():
        # Its links start beside the folder, of which it is the page.
        source = f"docs/{folder}"
        lines = [
            f"- [{page.title}]({posixpath.relpath(page.source, posixpath.dirname(source))})"
            for page in site
            if posixpath.dirname(page.path) == folder
        ]
        text = "\n".join([f"# {names[folder]}", "", sentence, "", *lines, ""])
        found.append(Page(path=f"{folder}/index.md", source=source, text=text))
    return found


def ordered(site: Sequence[Page]) -> list[Page]:
    """Return the pages by section. In a section they follow the README's links; others come after, by name."""
    readme = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    return sorted(site, key=partial(_place, readme, {page.path: at for at, page in enumerate(site)}))


def _place(readme: str, given: Mapping[str, int], page: Page) -> tuple[int, int, int, int]:
    folder, _, name = page.path.rpartition("/")
    folders = ["", *SECTIONS.values()]
    linked = readme.find(f"({page.source})")
    return (
        folders.index(folder),
        name != "index.md",
        linked if linked >= 0 else len(readme),
        given[page.path],
    )
