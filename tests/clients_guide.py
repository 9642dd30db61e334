"""The programs of docs/guides/clients.md, saved and started as the guide tells its readers to."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from playwright._impl._driver import compute_driver_executable

GUIDE = Path(__file__).parents[1] / "docs" / "guides" / "clients.md"
PROGRAM_SECONDS = 30
# Language of a fenced block -> what runs a file of it.
# Playwright brings a node with it: none has to be on the machine, and all machines run the same one.
RUNNERS: Mapping[str, str] = {
    "sh": "bash",
    "python": sys.executable,
    "js": compute_driver_executable()[0],
}


@dataclass(frozen=True, kw_only=True)
class Program:
    """A block of the guide; its first line names the file."""

    name: str
    language: str
    text: str


def fenced() -> list[tuple[str, str]]:
    """Return language and text of every fenced block."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def programs() -> list[Program]:
    """Return the guide's programs: all its blocks. One without a name or a runner is an error."""
    found = []
    for language, text in fenced():
        named = re.match(r"(?:#|//) ([\w.-]+): ", text)
        assert named, f"the first line names no file: {text[:60]!r}"
        assert language in RUNNERS, f"nothing runs {language!r} of {named[1]}"
        found.append(Program(name=named[1], language=language, text=text))
    return found


def save(folder: Path) -> None:
    """Save every program under its name."""
    for program in programs():
        (folder / program.name).write_text(program.text, encoding="utf-8")


def run(program: Program, folder: Path, variables: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    """Run a saved program with these variables; of the others it sees what starting it takes."""
    runner = shutil.which(RUNNERS[program.language])
    assert runner, f"{program.name} needs {RUNNERS[program.language]}"
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return subprocess.run(
        [runner, program.name],
        cwd=folder,
        env=kept | dict(variables),
        capture_output=True,
        text=True,
        timeout=PROGRAM_SECONDS,
        check=False,
    )
