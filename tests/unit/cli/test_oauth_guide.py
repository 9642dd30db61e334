"""docs/guides/oauth.md: a client that is added gets a token and an answer, by the page's own commands."""

import subprocess
from pathlib import Path

from typer.testing import CliRunner

from dify_kit.__main__ import app
from tests.guide_blocks import named
from tests.unit.cli.conftest import Machine
from tests.unit.clients_upstream import Day, serving_clients

PAGE = "docs/guides/oauth.md"
BLOCK = "# The file ends with a line break"


def shell(day: Day, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run the page's block in a folder, against this server."""
    block = named(PAGE, "sh", BLOCK)
    assert "https://dify.example.com" in block
    script = "set -euo pipefail\n" + block.replace("https://dify.example.com", day.url)
    return subprocess.run(
        ["bash", "-c", script], cwd=folder, capture_output=True, text=True, timeout=30, check=False
    )


def test_added_client_gets_a_token_and_an_answer(machine: Machine, tmp_path: Path) -> None:
    machine.configure(oauth={"enabled": True, "tenants": {"acme": {"app": "echo-chat"}}})
    added = CliRunner().invoke(app, ["client", "add", "acme-bot", "--tenant", "acme", "--scope", "chat"])
    assert added.exit_code == 0, added.output
    (tmp_path / "secret.txt").write_text(added.stdout)

    with serving_clients(client=("acme-bot", added.stdout.removesuffix("\n"))) as day:
        done = shell(day, tmp_path)

    assert done.returncode == 0, done.stderr
    assert "You said: Hello" in done.stdout
    assert day.bearers == day.tokens
    assert len(day.tokens) == 1


def test_wrong_secret_ends_the_block(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("dks_other\n")

    with serving_clients(client=("acme-bot", "dks_right")) as day:
        done = shell(day, tmp_path)

    assert done.returncode != 0
    assert "401" in done.stderr
    assert day.requests == []
