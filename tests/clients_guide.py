"""The programs of docs/guides/clients.md, saved and started as the guide tells its readers to."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright._impl._driver import compute_driver_executable

from tests.clients_environment import GUIDE, Versions, python

PROGRAM_SECONDS = 180
CLOCK = Path(__file__).with_name("clients_clock.py")
LANGUAGES = ("sh", "python", "js")


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
        assert language in LANGUAGES, f"nothing runs {language!r} of {named[1]}"
        found.append(Program(name=named[1], language=language, text=text))
    return found


def save(folder: Path) -> None:
    """Save every program under its name."""
    for program in programs():
        (folder / program.name).write_text(program.text, encoding="utf-8")


def run(
    program: Program, folder: Path, variables: Mapping[str, str], versions: Versions = "pinned"
) -> "subprocess.CompletedProcess[str]":
    """Run a saved program with these variables; of the others it sees what starting it takes."""
    return _run([_runner(program.language, versions), program.name], folder, variables)


def run_by_clock(
    kind: str,
    steps: Sequence[tuple[str, int]],
    folder: Path,
    variables: Mapping[str, str],
    versions: Versions,
) -> dict[str, Any]:
    """Call a saved Python client, `sync` or `async`, with a clock that sleeping moves; return what happened."""
    shutil.copy(CLOCK, folder)
    command = [_runner("python", versions), CLOCK.name, kind, json.dumps(steps)]
    done = _run(command, folder, variables)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _runner(language: str, versions: Versions) -> str:
    """Return what runs a file. Playwright brings a node: all machines run the same one."""
    if language == "js":
        return compute_driver_executable()[0]
    if language == "python":
        return str(python(versions))
    bash = shutil.which("bash")
    assert bash, "the shell programs need bash"
    return bash


def _run(
    command: Sequence[str], folder: Path, variables: Mapping[str, str]
) -> "subprocess.CompletedProcess[str]":
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return subprocess.run(
        command,
        cwd=folder,
        env=kept | dict(variables),
        capture_output=True,
        text=True,
        timeout=PROGRAM_SECONDS,
        check=False,
    )
