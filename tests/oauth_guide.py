"""The two tenants of the guide to OAuth: its blocks, to be tried as they stand."""

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import yaml

from infra.catalogue.project import ROOT

GUIDE = ROOT / "docs" / "guides" / "oauth.md"
_SECTION = re.compile(r"^### Two tenants\n(.*?)^## ", re.MULTILINE | re.DOTALL)
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(kind: str) -> list[str]:
    """Return the blocks of one language in the section."""
    [section] = _SECTION.findall(GUIDE.read_text(encoding="utf-8"))
    return [text for language, text in _BLOCK.findall(section) if language == kind]


def make_apps(home: Path) -> None:
    """Run the commands that copy the apps, for a user with this home."""
    subprocess.run(
        ["sh", "-e", "-c", blocks("sh")[0]],
        cwd=ROOT,
        env={"HOME": str(home), "PATH": os.environ["PATH"]},
        check=True,
        timeout=10,
    )


def settings() -> dict[str, Any]:
    """Return the settings of the section, without their namespace."""
    [text] = blocks("yaml")
    return {key.removeprefix("dify:"): one for key, one in yaml.safe_load(text)["config"].items()}


def commands() -> list[list[str]]:
    """Return the commands that add clients and deploy, without redirections."""
    return [shlex.split(line.partition(">")[0]) for line in blocks("sh")[1].splitlines()]
