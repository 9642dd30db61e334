"""The recipes of CONTRIBUTING.md: every step names a file that exists and that its example needed."""

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from dify_gateway.scopes import SCOPES
from dify_kit.workspace.files import CHECKOUT

CODE = ("infra", "dify_kit", "gateway", "smoke_tests", "templates", "standin", "Pulumi.yaml")
RECIPES = (
    "A setting",
    "A route group",
    "A Dify release",
    "A service",
    "A template",
    "A command",
    "A smoke test",
    "A scope",
    "An upstream preset",
)
# What an example is called in the files of its steps, where that is not its plain name in quotes.
MARKS: Mapping[str, str] = {
    "triggers": r'"triggers"|`(?:\w+[.])?triggers`|^ +triggers:|group: triggers\b',
    "addressConnections": r"\baddress_?[cC]onnections\b",
    "mcp": r"\bmcp\b",
    "local-sandbox": (r'"local_sandbox\w*"|\blocal_sandbox:|LOCAL_SANDBOX|\blocal-sandbox\b'),
    "1.14.2": r"\b1\.14\.2\b",
    "starting.conf.j2": r"`[a-z/]*/starting\.conf\.j2`",
    "usage": r'"usage"|^## usage$',
    "test_console.py": r"\btest_console\.py\b|\bconsole\b",
    "anthropic": r'"anthropic"|`anthropic`|ANTHROPIC_API_KEY',
}
# Code that has an example's name for another reason.
UNRELATED: Mapping[str, tuple[str, ...]] = {
    # An explanation, and reasons why a service differs from the one of the compose file.
    "local-sandbox": ("infra/guards/containers.py", "infra/catalogue/differences.yaml"),
    # The zones of an address's concurrent requests, and an nginx that no client is connected to.
    "addressConnections": ("infra/edge/limits.py", "infra/edge/roles.py"),
    # The stand-in's own blueprint.
    "triggers": ("standin/",),
    # Advisories of an older release name the release that fixes them.
    "1.14.2": ("infra/catalogue/1.12.1.yaml",),
    # Prices of a vendor, and Dify's own list of model providers.
    "anthropic": ("dify_kit/costs/", "infra/catalogue/1."),
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One recipe: its example, and the files that its steps name, with the example filled in."""

    title: str
    example: str
    files: tuple[str, ...]

    @property
    def mark(self) -> re.Pattern[str]:
        plain = rf'"{re.escape(self.example)}"|`{re.escape(self.example)}`'
        return re.compile(MARKS.get(self.example, plain), re.MULTILINE)


@cache
def recipes() -> dict[str, Recipe]:
    """Return the recipes of CONTRIBUTING.md by their title."""
    text = (CHECKOUT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = re.split(r"^## ", text, flags=re.MULTILINE)[2]
    assert section.startswith("Recipes\n")
    found = {}
    for part in re.split(r"^### ", section, flags=re.MULTILINE)[1:]:
        title, _, body = part.partition("\n")
        example = re.search(r"^Example: `([^`]+)`", body, re.MULTILINE)
        assert example, f"{title}: no example"
        # The files of a step stand before its colon.
        steps = re.findall(r"^\d+\. ((?:.|\n(?!\d|\n))+)", body, re.MULTILINE)
        names = [name for step in steps for name in re.findall(r"`([^`]+)`", re.split(r":\s", step)[0])]
        files = tuple(re.sub(r"<\w+>", example[1], name) for name in names)
        found[title] = Recipe(title=title, example=example[1], files=files)
    return found


def tracked(*places: str) -> list[str]:
    """Return the project's files below some places."""
    listed = ["git", "ls-files", "--", *places]
    return subprocess.run(
        listed, check=True, capture_output=True, text=True, cwd=CHECKOUT, timeout=30
    ).stdout.splitlines()


def test_every_usual_change_has_its_recipe() -> None:
    assert tuple(recipes()) == RECIPES


@pytest.mark.parametrize("title", RECIPES)
def test_each_step_names_files_that_exist(title: str) -> None:
    recipe = recipes()[title]

    assert len(recipe.files) >= 2
    assert [name for name in recipe.files if not (CHECKOUT / name).is_file()] == []


@pytest.mark.parametrize("title", RECIPES)
def test_each_step_was_needed_for_the_example(title: str) -> None:
    recipe = recipes()[title]
    # A module is named in Python's spelling.
    names = (recipe.example, recipe.example.replace("-", "_"))
    own = [name for name in recipe.files if any(one in Path(name).name for one in names)]
    others = [name for name in recipe.files if name not in own]

    assert [
        name for name in others if not recipe.mark.search((CHECKOUT / name).read_text(encoding="utf-8"))
    ] == []


@pytest.mark.parametrize("title", [title for title in RECIPES if title not in {"A smoke test", "A command"}])
def test_no_code_that_the_example_needed_is_missing(title: str) -> None:
    recipe = recipes()[title]
    unrelated = UNRELATED.get(recipe.example, ())

    found = {
        name
        for name in tracked(*CODE)
        if recipe.mark.search((CHECKOUT / name).read_text(encoding="utf-8", errors="replace"))
        and not name.startswith(unrelated)
    }

    assert found - set(recipe.files) == set()


@pytest.mark.parametrize(
    "page", ["docs/guides/oauth.md", "docs/reference/cli.md", "docs/reference/gateway.md"]
)
def test_pages_name_every_scope(page: str) -> None:
    text = (CHECKOUT / page).read_text(encoding="utf-8")

    assert [scope for scope in SCOPES if f"`{scope}`" not in text] == []
