"""Two tenants as the guide to OAuth makes them: each has an app, a key, limits and a client of its own."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dify_kit.__main__ import app
from support.configuration import settings
from tests import oauth_guide
from tests.unit.cli.conftest import Machine, machine  # noqa: F401  # a fixture
from tests.unit.recording import DYNAMIC, run_program


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the home of a user who followed the guide."""
    directory = tmp_path / "home"
    directory.mkdir(exist_ok=True)
    monkeypatch.setenv("HOME", str(directory))
    oauth_guide.make_apps(directory)
    return directory


def test_each_tenant_has_limits_of_its_own(home: Path) -> None:
    found = settings({**oauth_guide.settings(), "canary": False})

    assert found.apps_dir == home / "dify-apps"
    assert found.oauth is not None
    limits = {one.name: (one.app, one.limits.rate, one.limits.concurrent) for one in found.oauth.tenants}
    assert {
        name: (app, rate.requests if rate else 0, most) for name, (app, rate, most) in limits.items()
    } == {
        "acme": ("acme-chat", 60, 10),
        "globex": ("globex-chat", 5, 5),
    }


def test_each_app_has_an_answer_of_its_own(home: Path) -> None:
    answers = {
        name: (home / "dify-apps" / f"{name}-chat.yml").read_text(encoding="utf-8")
        for name in ("acme", "globex")
    }

    assert all(f'answer: "{name}: {{{{#sys.query#}}}}"' in text for name, text in answers.items())


def test_each_tenant_has_the_key_of_its_own_app(home: Path) -> None:
    plain = {**oauth_guide.settings(), "appsDir": str(home / "dify-apps")}

    made = run_program(plain).of(DYNAMIC)

    assert made["tenant-acme"]["app_id"] == "app-acme-chat-id"
    assert made["tenant-globex"]["app_id"] == "app-globex-chat-id"
    assert {name for name in made if name.startswith("app-")} >= {"app-acme-chat", "app-globex-chat"}


@pytest.mark.usefixtures("home")
def test_the_commands_of_the_guide_add_a_client_to_each(machine: Machine) -> None:  # noqa: F811
    machine.configure("production", **oauth_guide.settings())

    *adding, deploying = oauth_guide.commands()
    done = [CliRunner().invoke(app, arguments[1:]) for arguments in adding]

    assert [one.exit_code for one in done] == [0, 0], [one.output for one in done]
    assert len({one.stdout for one in done}) == 2
    assert deploying == ["make", "up", "STACK=production"]
    clients = json.loads((machine.home / "stacks" / "clients.production.json").read_text())["clients"]
    assert {name: one["tenant"] for name, one in clients.items()} == {
        "acme-bot": "acme",
        "globex-bot": "globex",
    }
