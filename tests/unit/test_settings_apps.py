"""Apps of one's own beside those of the kit."""

import shutil
from pathlib import Path

import pulumi
import pytest

from infra.resources.console import mark
from infra.settings.apps import CANARY, DIRECTORY, app_file, known_apps
from support.configuration import settings
from tests.unit.recording import DYNAMIC, run_program


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Give a directory with one app."""
    directory = tmp_path / "apps"
    directory.mkdir()
    # Another text than the kit's.
    text = app_file("echo-chat").read_text(encoding="utf-8").replace("Echo chat", "Support bot")
    (directory / "support-bot.yml").write_text(text, encoding="utf-8")
    return directory


def refusal(directory: Path, *apps: str) -> str:
    with pytest.raises(pulumi.RunError) as refused:
        settings({"appsDir": str(directory), "apps": list(apps)})
    return str(refused.value)


def test_apps_of_both_directories_are_imported(own: Path) -> None:
    found = settings({"appsDir": str(own), "apps": ["echo-chat", "support-bot"]})
    made = run_program({"appsDir": str(own), "apps": ["echo-chat", "support-bot"]}).of(DYNAMIC)

    assert found.apps == ("echo-chat", "support-bot")
    for name, file in (("support-bot", own / "support-bot.yml"), ("echo-chat", app_file("echo-chat"))):
        assert made[f"app-{name}"]["dsl"] == mark(file.read_text(encoding="utf-8"), name)[0]
        assert made[f"key-{name}"]["app_id"] == f"app-{name}-id"


def test_the_apps_of_the_smoke_tests_are_the_kits_own(own: Path) -> None:
    (own / "other.yml").write_text("x")
    assert app_file(CANARY, own) == DIRECTORY / f"{CANARY}.yml"
    assert CANARY not in known_apps(own)


def test_an_app_that_is_in_neither_directory_is_refused_with_those_that_are(own: Path) -> None:
    said = refusal(own, "suport-bot")

    assert (
        f"dify:apps: 'suport-bot': is a file neither in apps/ nor in {own}; did you mean support-bot" in said
    )


@pytest.mark.parametrize("name", ["echo-chat", "canary"])
def test_a_name_of_the_kits_own_is_refused(own: Path, name: str) -> None:
    shutil.copy(app_file("echo-chat"), own / f"{name}.yml")

    assert "has the name of an app of the kit; rename the file" in refusal(own)


@pytest.mark.parametrize("name", ["support bot", "-bot", "b\u00f6t", "x" * 64])
def test_a_name_that_cannot_name_an_app_is_refused(own: Path, name: str) -> None:
    (own / f"{name}.yml").write_text("x")

    assert "its name cannot name an app; use at most 63 letters" in refusal(own)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"app: [", "is not YAML in UTF-8"),
        (b"\xff\xfe", "is not YAML in UTF-8"),
        (b"", "has no app.mode or no app.name"),
        (b"app: {name: x}", "has no app.mode or no app.name"),
        (b"- app", "has no app.mode or no app.name"),
    ],
)
def test_a_file_that_is_no_app_is_refused_before_anything_is_created(
    own: Path, content: bytes, told: str
) -> None:
    (own / "broken.yml").write_bytes(content)

    assert told in refusal(own, "broken")
    # One that the stack does not import says nothing about the stack.
    assert settings({"appsDir": str(own), "apps": ["support-bot"]}).apps == ("support-bot",)


def test_a_tenant_may_have_an_app_of_ones_own(own: Path) -> None:
    tenants = {"acme": {"app": "support-bot"}}

    found = settings({"appsDir": str(own), "oauth": {"enabled": True, "tenants": tenants}}).oauth

    assert found is not None
    assert found.tenants[0].app == "support-bot"
