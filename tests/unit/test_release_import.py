"""`dify-kit release import`: a catalogue file from an official compose folder."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from dify_kit.app import app, register
from infra.catalogue import release_file, releases
from infra.catalogue.published_defaults import PUBLISHED_DEFAULTS
from infra.catalogue.releases import RELEASES
from tests.compose_folder import FACTS, facts, lay_out

# Of a catalogue file, what no folder knows.
BY_HAND = ("advisories", "upgrade", "unknown", "facts")


def run(*arguments: object) -> Result:
    register("release")
    return CliRunner().invoke(app, ["release", *map(str, arguments)])


def imported(folder: Path, version: str, *more: object) -> tuple[dict[str, Any], Result]:
    out = folder.parent / f"{version}.yaml"
    result = run("import", folder, "--version", version, "--out", out, *more)
    assert out.is_file(), result.stderr
    document: dict[str, Any] = yaml.safe_load(out.read_text(encoding="utf-8"))
    return document, result


def typed_facts(source: str) -> list[object]:
    return [
        "--settings",
        FACTS / f"api-settings-{source}.json",
        "--daemon",
        FACTS / "plugin-daemon-0.6.10.json",
    ]


@pytest.mark.parametrize(
    ("version", "source"), {"1.12.1": "1.12.1", "1.14.2": "1.14.2", "1.17.0": "1.17-pre"}.items()
)
def test_a_folder_with_its_facts_gives_the_kits_own_file(tmp_path: Path, version: str, source: str) -> None:
    shipped = yaml.safe_load(RELEASES[version].file.read_text(encoding="utf-8"))

    made, result = imported(lay_out(tmp_path / "docker", source), version, *typed_facts(source))

    assert result.exit_code == 0, result.stderr
    if source != "1.12.1":
        # The facts were resolved without the folder's own .env, whose word is the last.
        own = facts(source)["env_example"]
        for name in ("CELERY_WORKER_AMOUNT", "UV_CACHE_DIR"):
            shipped["variables"]["api"][name]["compose"] = own[name]
    assert made.pop("variables") == shipped.pop("variables")
    assert sorted(map(str, made.pop("routes"))) == sorted(map(str, shipped.pop("routes")))
    assert {key: value for key, value in made.items() if key not in BY_HAND} == {
        key: value for key, value in shipped.items() if key not in BY_HAND
    }


def test_a_newer_release_takes_its_images_from_the_folder_and_its_types_from_the_base(tmp_path: Path) -> None:
    folder = lay_out(tmp_path / "docker", "1.17-pre")
    file = folder / "docker-compose.yaml"
    text = (
        file.read_text(encoding="utf-8").replace(":1.16.1", ":1.19.0").replace("0.6.10-local", "0.6.14-local")
    )
    document = yaml.safe_load(text)
    services = document["services"]
    services["weaviate"]["image"] = "semitechnologies/weaviate:1.40.0"
    services["scheduler"] = {"image": "langgenius/dify-scheduler:1.19.0"}
    services["api"]["environment"] |= {"PASSWORD_PEPPER": "", "DB_POOL_MODE": "3"}
    file.write_text(yaml.safe_dump(document), encoding="utf-8")
    template = folder / "nginx/conf.d/default.conf.template"
    template.write_text(
        template.read_text(encoding="utf-8").replace(
            "location /mcp", "location /a2a { proxy_pass http://api:5001; }\n location /mcp"
        ),
        encoding="utf-8",
    )

    made, result = imported(folder, "1.19.0")

    images = made["images"]
    assert {images[role]["tag"] for role in ("api", "web", "agent_backend", "local_sandbox")} == {"1.19.0"}
    assert images["plugin_daemon"] == {"repository": "langgenius/dify-plugin-daemon", "tag": "0.6.14-local"}
    assert images["weaviate"] == {"repository": "semitechnologies/weaviate", "tag": "1.40.0"}
    # Upstream's `latest` and Redis 6 are not taken over.
    base = RELEASES["1.17.1"]
    for role in ("nginx", "squid", "redis", "busybox", "certbot"):
        assert (images[role]["tag"], images[role].get("digest")) == (
            base.images[role].tag,
            base.images[role].digest,
        )
    variables = made["variables"]
    assert variables["api"]["SQLALCHEMY_POOL_SIZE"]["type"] == "integer"
    assert variables["api"]["PASSWORD_PEPPER"] == {"type": "string"}
    assert "NGINX_PORT" not in variables["api"]
    assert "PASSWORD_PEPPER" not in variables["plugin-daemon"]
    assert not [route for route in made["routes"] if route["prefix"] == "/a2a"]
    unknown = "\n".join(made["unknown"])
    for line in (
        "services.scheduler: the kit has no description",
        "routes./a2a: leads to api; left out",
        "variables.api.PASSWORD_PEPPER: new",
        "variables.api.DB_POOL_MODE: new",
        "weaviate_ladder: ",
        "dsl: 0.7.0 is that of 1.17.1",
    ):
        assert line in unknown
        assert line in result.stderr
    assert "images.api" not in unknown
    assert not [secret for secret in PUBLISHED_DEFAULTS if secret in unknown]


def test_what_was_imported_can_be_deployed_and_says_what_to_look_up(tmp_path: Path) -> None:
    imported(lay_out(tmp_path / "docker", "1.17-pre"), "1.18.0")
    file = tmp_path / "1.18.0.yaml"

    assert release_file.problems(file) == []
    release = releases.load(file)
    assert release.unknown
    # The folder is of 1.16.1: its images are those of the release that was asked for, and that is said.
    assert any(line.startswith("images.api.tag: the folder names 1.16.1") for line in release.unknown)
    told = json.loads(run("check", file, "--json").stdout)
    assert told["problems"] == []
    assert told["to_look_up"] == list(release.unknown)


def test_the_folder_against_its_own_import_lacks_nothing(tmp_path: Path) -> None:
    folder = lay_out(tmp_path / "docker", "1.14.2")
    imported(folder, "1.14.2", *typed_facts("1.14.2"))

    result = run("check", folder, "--against", tmp_path / "1.14.2.yaml", "--json")

    assert json.loads(result.stdout)["unexplained"] == 0
    assert result.exit_code == 0


def test_a_base_may_be_named(tmp_path: Path) -> None:
    made, _ = imported(lay_out(tmp_path / "docker", "1.14.2"), "1.15.0", "--base", "1.17.1")

    assert made["dsl"] == "0.7.0"


def test_without_out_the_file_goes_to_stdout_and_talk_to_stderr(tmp_path: Path) -> None:
    result = run("import", lay_out(tmp_path / "docker", "1.12.1"), "--version", "1.12.2")

    assert yaml.safe_load(result.stdout)["version"] == "1.12.2"
    assert "to look up" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{folder}", "--version", "1.18"], "three numbers"),
        (["{folder}", "--version", "1.18.0", "--out", "{folder}/x.yaml"], "is called 1.18.0.yaml"),
        (["{folder}", "--version", "1.18.0", "--out", "{there}"], "is there already"),
        (["{folder}", "--version", "1.18.0", "--base", "9.9.9"], "not in the catalogue"),
        (["{folder}", "--version", "1.18.0", "--settings", "/no/such.json"], "/no/such.json"),
        (["{folder}", "--version", "1.18.0", "--daemon", "{list}"], "maps the name"),
        (["/no/such/folder", "--version", "1.18.0"], "holds no docker-compose.yaml"),
    ],
)
def test_a_wrong_call_ends_with_2_and_says_why(tmp_path: Path, arguments: list[str], words: str) -> None:
    folder = lay_out(tmp_path / "docker", "1.12.1")
    there = tmp_path / "1.18.0.yaml"
    there.write_text("", encoding="utf-8")
    (tmp_path / "list.json").write_text("[]", encoding="utf-8")
    filled = [one.format(folder=folder, there=there, list=tmp_path / "list.json") for one in arguments]

    result = run("import", *filled)

    assert result.exit_code == 2
    assert words in result.stderr
