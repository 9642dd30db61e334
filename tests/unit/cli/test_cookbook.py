"""docs/cookbook/: `init` accepts the settings of each recipe, as the page writes them."""

from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from dify_kit.__main__ import app
from support.certificates import issue
from tests import oauth_guide
from tests.guide_blocks import Block, blocks, named
from tests.unit.cli.conftest import Machine
from tests.unit.cli.test_settings_of_commands import PASSPHRASE, encrypt
from tests.unit.test_guide_blocks import place, rehearsed

SETTINGS_TEST = "tests/unit/cli/test_cookbook.py::test_init_accepts_the_settings_of_a_recipe"
RECIPES = [one for one in blocks() if one.page.startswith("docs/cookbook/") and one.test == SETTINGS_TEST]


def test_every_recipe_with_settings_is_found() -> None:
    assert len(RECIPES) == 5


@pytest.mark.parametrize("block", RECIPES, ids=place)
def test_init_accepts_the_settings_of_a_recipe(block: Block, machine: Machine, tmp_path: Path) -> None:
    home, folder, ca = Path.home(), tmp_path / "rehearsal", tmp_path / "ca.pem"
    for directory in (home, folder):
        directory.mkdir(exist_ok=True)
    ca.write_text(issue(ca=True, name="company").pem, encoding="ascii")
    oauth_guide.make_apps(home)
    text = block.text.replace("/etc/company/ca.pem", str(ca)).replace("~", str(home))
    [words] = [words for words in rehearsed(text, folder) if words[:2] == ["dify-kit", "init"]]

    done = CliRunner().invoke(app, words[1:])

    assert done.exit_code == 0, done.output
    stored = yaml.safe_load((machine.home / "stacks" / f"Pulumi.{words[2]}.yaml").read_text())["config"]
    given = {word.partition("=")[0] for option, word in pairwise(words) if option == "--set"}
    assert {f"dify:{key}" for key in given} <= stored.keys()
    assert ("dify:publicUrl" in stored) == ("--public-url" in words)


def test_a_server_of_ones_own_is_added_to_a_stack(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", PASSPHRASE)
    monkeypatch.setenv("LLM_API_KEY", "any-text")
    encrypt(machine, {}, set())
    block = named("docs/cookbook/models.md", "sh", "dify-kit set llm.upstreams")
    upstream, key, enabled, check, up = rehearsed(block, tmp_path)

    done = [CliRunner().invoke(app, words[1:]) for words in (upstream, key)]
    assert [one.exit_code for one in done] == [0, 0], [one.output for one in done]
    # Pulumi, which encrypts, is a fake here.
    assert machine.calls()[-1]["args"][2:5] == ["--secret", "--path", "dify:llmKeys.mine"]
    settings = yaml.safe_load(machine.files().stored.read_text())["config"]
    encrypt(machine, {"llm": settings["dify:llm"], "llmKeys": '{"mine": "any-text"}'}, {"llmKeys"})
    last = CliRunner().invoke(app, enabled[1:])

    assert last.exit_code == 0, last.output
    stored = yaml.safe_load(machine.files().stored.read_text())["config"]["dify:llm"]
    assert stored["enabled"] is True
    assert stored["models"] == {"tiny-1": ["mine"]}
    assert (check, up) == (["dify-kit", "keys", "check"], ["make", "up"])


@pytest.mark.parametrize("page", ["docs/cookbook/try-out.md", "docs/guides/models.md"])
def test_the_example_app_is_added_to_a_deployed_stack(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: str
) -> None:
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", PASSPHRASE)
    change, up = rehearsed(named(page, "sh", "dify-kit set apps"), tmp_path)
    encrypt(machine, {}, set())

    early = CliRunner().invoke(app, change[1:])
    encrypt(
        machine,
        {"llm": {"enabled": True}, "llmKeys": '{"holysheep": "hs-0123456789-0123456789"}'},
        {"llmKeys"},
    )
    done = CliRunner().invoke(app, change[1:])

    assert early.exit_code == 1
    assert "uses the default model, and this stack has none" in " ".join(early.output.split())
    assert done.exit_code == 0, done.output
    stored = yaml.safe_load(machine.files().stored.read_text())["config"]
    assert stored["dify:apps"] == ["echo-chat", "llm-chat"]
    assert up == ["make", "up"]
