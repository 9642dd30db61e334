"""The prose linter's rules: every word that the style page does not want is reported, and code is left alone."""

import ast
import json
import re
import subprocess
from pathlib import Path

import pytest

from dify_kit.workspace.files import CHECKOUT
from tests.vale import run, sources, texts

STYLE = CHECKOUT / "docs" / "contributing" / "STYLE.md"


def findings(text: str, extension: str = ".md") -> list[str]:
    """Return the words that Vale reports in a text."""
    done = run("--output=JSON", "--no-exit", f"--ext={extension}", text=text)
    assert done.returncode == 0, done.stderr
    return [alert["Match"].lower() for alerts in json.loads(done.stdout).values() for alert in alerts]


def unwanted() -> list[str]:
    """Return the words of the style page's last column."""
    table = STYLE.read_text(encoding="utf-8").split("## Words of this project")[1]
    rows = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("|")][2:]
    return [word for row in rows for word in re.findall(r"`([^`]+)`", row[-1])]


def test_every_unwanted_word_of_the_style_page_is_reported() -> None:
    words = unwanted()
    assert len(words) > 25

    # One run for all of them: a paragraph for each word.
    found = findings("\n\n".join(f"Then {word} follows." for word in words))

    assert [word for word in words if not any(word in match or match in word for match in found)] == []
    assert len(found) >= len(words)


def test_plain_english_passes() -> None:
    assert (
        findings(
            "nginx redirects plain HTTP sent to the TLS port. The range `0.0.0.0/0` matches every address."
        )
        == []
    )


@pytest.mark.parametrize(
    "text", ["The log says `nobody hears it`.", "```sh\necho nobody\n```", "[page](nobody.md)"]
)
def test_code_and_addresses_are_left_alone(text: str) -> None:
    assert findings(text) == []


@pytest.mark.parametrize(
    "text", ['"""Nobody hears."""\n', "# nobody hears\n", "def f():\n    # nobody hears\n"]
)
def test_comments_and_docstrings_are_read(text: str) -> None:
    assert findings(text, ".py") == ["nobody", "hears"]


def test_names_in_code_are_left_alone() -> None:
    assert findings("nobody = told(hears)\n", ".py") == []


def messages(source: Path) -> list[str]:
    """Return the strings of three words or more, with "..." for values."""
    tree = ast.parse(source.read_text(encoding="utf-8"))
    within = {part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in within:
            found.append(node.value)
        elif isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "..." for part in node.values]
            found.append("".join(map(str, parts)))
    return [text for text in found if len(text.split()) > 2]


def test_messages_follow_the_rules() -> None:
    # As plain text, and each in a paragraph of its own: an indented line would be code.
    texts_of_code = [" ".join(text.split()) for source in sources() for text in messages(source)]
    assert len(texts_of_code) > 300

    found = findings("\n\n".join(texts_of_code), ".txt")
    assert [text for text in texts_of_code if any(word in text.lower() for word in found)] == []


def test_every_page_is_read() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "*.md"], check=True, capture_output=True, text=True, cwd=CHECKOUT, timeout=30
    ).stdout.split()
    written = {CHECKOUT / name for name in tracked if not name.startswith("bench/results/")}

    assert written - set(texts()) == set()
    assert STYLE in texts()
    assert all(isinstance(path, Path) and path.is_file() for path in texts())
