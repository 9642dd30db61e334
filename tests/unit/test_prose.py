"""The prose linter's rules: every word that the style page does not want is reported, and code is left alone."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from dify_kit.workspace.files import CHECKOUT
from tests.vale import run, texts

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


def test_every_page_is_read() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "*.md"], check=True, capture_output=True, text=True, cwd=CHECKOUT, timeout=30
    ).stdout.split()
    written = {CHECKOUT / name for name in tracked if not name.startswith("bench/results/")}

    assert written - set(texts()) == set()
    assert STYLE in texts()
    assert all(isinstance(path, Path) and path.is_file() for path in texts())
