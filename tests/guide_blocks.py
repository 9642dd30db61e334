"""The fenced blocks of the documentation, each with its mark: which test runs it or covers it, or why none does.

A mark is an HTML comment in the line before the block:

- `<!-- run by: tests/unit/x.py::test_name -->`: the test reads the block from the page and runs it;
- `<!-- covered by: tests/unit/x.py::test_name -->`: a test covers what the block does, without reading the page;
- `<!-- not run: the reason -->`.

Blocks of one kind that a test of all pages reads need none: `RUN_BY_LANGUAGE`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dify_kit.workspace.files import CHECKOUT

PAGES = sorted([CHECKOUT / "README.md", *(CHECKOUT / "docs").rglob("*.md")])
# All blocks of a language, or all of a page, that one test reads.
RUN_BY_LANGUAGE: Mapping[str, str] = {
    "yaml": "tests/unit/test_docs.py::test_example_settings_work",
}
RUN_BY_PAGE: Mapping[str, str] = {
    "docs/guides/clients.md": "tests/unit/test_clients_guide.py::test_every_program_of_the_page_answers",
}
# A drawing: nothing runs it.
DRAWINGS = ("mermaid",)
_BLOCK = re.compile(
    r"(?:^ *<!-- (?P<verb>run by|covered by|not run): (?P<text>[^\n]+?) -->\n\n?)?"
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<body>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block, run by `test` or covered by `covering`; `reason` says why it is neither. Empty without a mark."""

    page: str
    line: int
    language: str
    text: str
    test: str
    covering: str
    reason: str

    @property
    def place(self) -> str:
        """Where it is: page and line."""
        return f"{self.page}:{self.line}"


def blocks() -> list[Block]:
    """Return the blocks of all pages, in their order."""
    return [block for page in PAGES for block in blocks_of(name(page), page.read_text(encoding="utf-8"))]


def blocks_of(page: str, source: str) -> list[Block]:
    """Return the blocks of a page's text."""
    found = []
    for match in _BLOCK.finditer(source):
        language, verb, text = match["language"], match["verb"], match["text"] or ""
        test = "" if verb else RUN_BY_PAGE.get(page, RUN_BY_LANGUAGE.get(language, ""))
        reason = "a drawing" if language in DRAWINGS and not verb else ""
        found.append(
            Block(
                page=page,
                line=source.count("\n", 0, match.start("indent")) + 1,
                language=language,
                text=re.sub(rf"^{match['indent']}", "", match["body"], flags=re.MULTILINE),
                test=text if verb == "run by" else test,
                covering=text if verb == "covered by" else "",
                reason=text if verb == "not run" else reason,
            )
        )
    return found


def named(page: str, language: str, start: str) -> str:
    """Return the text of the only block of a page that starts like this. AssertionError where there is none."""
    source = (CHECKOUT / page).read_text(encoding="utf-8")
    found = [
        one.text for one in blocks_of(page, source) if one.language == language and one.text.startswith(start)
    ]
    assert len(found) == 1, f"{page}: {len(found)} blocks of {language} start with {start!r}"
    return found[0]


def name(page: Path) -> str:
    """Return a page's path in the checkout."""
    return str(page.relative_to(CHECKOUT))
