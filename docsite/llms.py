"""`llms.txt`: the site's table of contents for language models, by the convention of llmstxt.org."""

from collections.abc import Sequence

from docsite.pages import Page
from docsite.sections import SECTIONS


def llms_txt(site: Sequence[Page]) -> str:
    """Return the file: title and summary of the first page, then every page by section, linked as Markdown."""
    first = site[0]
    lines = [f"# {first.title}", "", f"> {first.summary}", ""]
    for name, folder in SECTIONS.items():
        below = [page for page in site if page.path.rpartition("/")[0] == folder]
        if below:
            lines += [f"## {name}", ""]
            lines += [f"- [{page.title}]({page.path}): {page.summary}" for page in below]
            lines.append("")
    return "\n".join(lines)
