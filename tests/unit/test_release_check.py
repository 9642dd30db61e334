"""`dify-kit release check`: what the kit has otherwise than the official compose folder, and why."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from dify_kit.app import app, register
from dify_kit.releases import compose, kit, reasons
from dify_kit.releases.compare import GENERATED, PUBLISHED, Change, Difference, alike, differences
from dify_kit.releases.reasons import Reason, ReasonsError
from dify_kit.releases.topology import Topology
from infra.catalogue.published_defaults import PUBLISHED_DEFAULTS
from infra.catalogue.releases import RELEASES
from infra.catalogue.variables import Variable
from tests.compose_folder import lay_out

# Release of the catalogue -> facts of an official folder.
FOLDERS = {"1.12.1": "1.12.1", "1.14.2": "1.14.2", "1.17.0": "1.17-pre", "1.17.1": "1.17-pre"}
Explained = list[tuple[Difference, Reason | None]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        facts: lay_out(tmp_path_factory.mktemp("official") / facts, facts) for facts in set(FOLDERS.values())
    }


@pytest.fixture(scope="module")
def found(folders: dict[str, Path]) -> dict[str, Explained]:
    known = reasons.load()
    result = {}
    for version, facts in FOLDERS.items():
        release = RELEASES[version]
        listed = differences(compose.read(folders[facts]), kit.topology(release), release)
        result[version] = reasons.explained(listed, known, version)
    return result


@pytest.mark.parametrize("version", FOLDERS)
def test_every_difference_from_the_official_folder_has_a_reason(
    found: dict[str, Explained], version: str
) -> None:
    assert [difference for difference, reason in found[version] if reason is None] == []


def test_every_reason_explains_a_difference(found: dict[str, Explained]) -> None:
    used = {reason for listed in found.values() for _, reason in listed}

    assert [reason.text for reason in reasons.load() if reason not in used] == []


def test_every_pattern_of_a_reason_matches_a_difference(found: dict[str, Explained]) -> None:
    listed = [(difference, reason) for one in found.values() for difference, reason in one]
    unused = [
        (reason.text[:50], pattern)
        for reason in reasons.load()
        for patterns, field in ((reason.services, "service"), (reason.names, "name"))
        for pattern in patterns
        if not any(
            other == reason and reasons.matches(pattern, getattr(difference, field))
            for difference, other in listed
        )
    ]

    assert unused == []


def test_no_secret_is_in_a_difference(found: dict[str, Explained]) -> None:
    secrets = [secret for secret in PUBLISHED_DEFAULTS if secret != "dify-sandbox"]
    texts = [
        text for listed in found.values() for one, _ in listed for text in (one.official, one.kit) if text
    ]

    assert not [text for text in texts for secret in secrets if secret in text]
    assert {one.kit for one, _ in found["1.17.1"] if one.name == "SECRET_KEY"} == {GENERATED}
    assert {one.official for one, _ in found["1.17.1"] if one.name == "CELERY_BROKER_URL"} == {PUBLISHED}


@pytest.fixture(scope="module")
def deployed() -> Topology:
    return kit.topology(RELEASES["1.17.1"])


Edit = Callable[[dict[str, Any]], None]


def edited(folder: Path, target: Path, edit: Edit) -> Path:
    """Copy a folder with its compose file changed."""
    target.mkdir()
    for path in folder.rglob("*"):
        if path.is_file():
            place = target / path.relative_to(folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    file = target / "docker-compose.yaml"
    document = yaml.safe_load(file.read_text(encoding="utf-8"))
    edit(document["services"])
    file.write_text(yaml.safe_dump(document), encoding="utf-8")
    return target


def _set(service: str, name: str, value: str) -> Edit:
    return lambda services: services[service].setdefault("environment", {}).update({name: value})


PLANTED: list[tuple[str, Edit, tuple[str, str, str, str]]] = [
    (
        "a service that every stack runs",
        lambda services: services.update(scheduler={"image": "langgenius/dify-scheduler:1.17.1"}),
        ("service", "scheduler", "scheduler", "lacks"),
    ),
    (
        "a service that upstream gave up",
        lambda services: services.pop("sandbox"),
        ("service", "sandbox", "sandbox", "extra"),
    ),
    (
        "another image",
        lambda services: services["sandbox"].update(image="langgenius/dify-sandbox:0.2.16"),
        ("image", "sandbox", "image", "differs"),
    ),
    (
        "a variable that nobody knows",
        _set("api", "BRAND_NEW", "on"),
        ("variable", "api", "BRAND_NEW", "lacks"),
    ),
    (
        "another default",
        _set("api", "SQLALCHEMY_POOL_SIZE", "31"),
        ("variable", "api", "SQLALCHEMY_POOL_SIZE", "lacks"),
    ),
    ("another value", _set("worker", "LOG_TZ", "Europe/Paris"), ("variable", "worker", "LOG_TZ", "differs")),
    ("a variable of web", _set("web", "ALLOW_EMBED", "true"), ("variable", "web", "ALLOW_EMBED", "differs")),
    (
        "a mount",
        lambda services: services["api"]["volumes"].append("./plugins:/app/plugins"),
        ("mount", "api", "/app/plugins", "lacks"),
    ),
    (
        "a network",
        lambda services: services["web"].update(networks=["default", "ssrf_proxy_network"]),
        ("network", "web", "ssrf_proxy_network", "lacks"),
    ),
    (
        "a port",
        lambda services: services["api"].update(ports=["5001:5001"]),
        ("port", "api", "5001:5001", "lacks"),
    ),
    (
        "a health check",
        lambda services: services["plugin_daemon"].update(
            healthcheck={"test": ["CMD", "curl", "http://x/live"]}
        ),
        ("health", "plugin-daemon", "health", "differs"),
    ),
]


@pytest.mark.parametrize(
    ("edit", "expected"), [case[1:] for case in PLANTED], ids=[case[0] for case in PLANTED]
)
def test_a_difference_that_nobody_explained_is_found(
    folders: dict[str, Path],
    deployed: Topology,
    tmp_path: Path,
    edit: Edit,
    expected: tuple[str, str, str, str],
) -> None:
    folder = edited(folders["1.17-pre"], tmp_path / "folder", edit)

    listed = differences(compose.read(folder), deployed, RELEASES["1.17.1"])

    unexplained = [
        one for one, reason in reasons.explained(listed, reasons.load(), "1.17.1") if reason is None
    ]
    assert expected in [(one.kind, one.service, one.name, one.change) for one in unexplained]


def test_a_new_route_and_a_network_with_a_way_out_are_found(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = edited(folders["1.17-pre"], tmp_path / "folder", lambda _: None)
    template = folder / "nginx/conf.d/default.conf.template"
    text = template.read_text(encoding="utf-8")
    template.write_text(
        text.replace("location /mcp", "location /a2a { proxy_pass http://api:5001; }\n location /mcp"),
        encoding="utf-8",
    )
    file = folder / "docker-compose.yaml"
    document = yaml.safe_load(file.read_text(encoding="utf-8"))
    document["networks"]["ssrf_proxy_network"]["internal"] = False
    file.write_text(yaml.safe_dump(document), encoding="utf-8")

    result = run("check", str(folder), "--release", "1.17.1", "--json")

    assert result.exit_code == 1
    listed = [one for one in json.loads(result.stdout)["differences"] if one["reason"] is None]
    assert [(one["kind"], one["name"], one["change"], one["official"], one["kit"]) for one in listed] == [
        ("network", "ssrf_proxy_network", "differs", "with a way out", "internal"),
        ("route", "/a2a", "lacks", "api", None),
    ]


def run(*arguments: str) -> Result:
    register("release")
    return CliRunner().invoke(app, ["release", *arguments])


def test_the_table_counts_the_reasons_and_the_exit_code_says_that_all_have_one(
    folders: dict[str, Path],
) -> None:
    result = run("check", str(folders["1.14.2"]))

    assert result.exit_code == 0, result.stderr
    assert "Intended differences" in result.stdout
    assert re.search(r"^0 differences without a reason, \d{3,} with one$", result.stderr, re.MULTILINE)


def test_all_shows_each_difference_with_its_reason(folders: dict[str, Path]) -> None:
    result = run("check", str(folders["1.12.1"]), "--all")

    assert result.exit_code == 0, result.stderr
    assert "milvus-standalone" in result.stdout
    assert "Another vector store" in result.stdout


def test_a_folder_of_a_release_that_the_kit_does_not_know_says_what_would_be_needed(
    folders: dict[str, Path],
) -> None:
    result = run("check", str(folders["1.17-pre"]), "--json")

    told = json.loads(result.stdout)
    assert result.exit_code == 1
    assert told["release"] == "1.16.1"
    assert told["catalogued"] is False
    assert any(
        line.startswith("variables.web.NEXT_PUBLIC_ENABLE_AGENT_V2: new") for line in told["to_look_up"]
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["check", "/no/such/folder"], "neither a folder nor a file"),
        (["check", "{empty}"], "holds no docker-compose.yaml"),
        (["check", "{folder}", "--release", "9.9.9"], "not in the catalogue"),
        (["check", "{folder}", "--against", "/no/such.yaml"], "cannot be read"),
        (["check", "{folder}", "--release", "1.17.1", "--against", "x"], "two things"),
        (["list", "--catalogue", "{empty}"], "holds no <version>.yaml"),
    ],
)
def test_what_cannot_be_read_ends_with_2_and_says_why(
    folders: dict[str, Path], tmp_path: Path, arguments: list[str], words: str
) -> None:
    filled = [one.format(empty=tmp_path, folder=folders["1.12.1"]) for one in arguments]

    result = run(*filled)

    assert result.exit_code == 2
    assert words in result.stderr


@pytest.mark.parametrize("version", RELEASES)
def test_the_kits_own_files_lack_nothing(version: str) -> None:
    result = run("check", "--release", version, "--json")

    told = json.loads(result.stdout)
    assert (told["problems"], told["to_look_up"]) == ([], [])
    assert result.exit_code == 0


def test_a_file_that_lacks_something_says_what(tmp_path: Path) -> None:
    document = yaml.safe_load(RELEASES["1.17.0"].file.read_text(encoding="utf-8"))
    document["version"] = "1.18.0"
    document["unknown"] = ["dsl: look it up"]
    del document["variables"]["api"]["CELERY_BROKER_URL"]
    document["variables"]["plugin-daemon"]["DB_TYPE"]["values"] = ["mysql"]
    file = tmp_path / "1.18.0.yaml"
    file.write_text(yaml.safe_dump(document), encoding="utf-8")

    result = run("check", str(file), "--json")

    told = json.loads(result.stdout)
    assert result.exit_code == 1
    assert any("variables.api.CELERY_BROKER_URL: the kit sets it" in line for line in told["problems"])
    assert any("variables.plugin-daemon.DB_TYPE: the kit sets it" in line for line in told["problems"])
    assert told["to_look_up"] == ["dsl: look it up"]
    assert any(line.startswith("images.pgvector: no digest") for line in told["notes"])


def test_list_shows_every_release_with_where_it_comes_from(tmp_path: Path) -> None:
    file = tmp_path / "1.18.0.yaml"
    text = RELEASES["1.17.1"].file.read_text(encoding="utf-8")
    file.write_text(text.replace("version: 1.17.1", "version: 1.18.0", 1), encoding="utf-8")

    result = run("list", "--catalogue", str(tmp_path), "--json")

    told = json.loads(result.stdout)
    assert [one["release"] for one in told] == ["1.18.0", *RELEASES]
    assert told[0]["file"] == str(file)
    assert [one["release"] for one in told if one["default"]] == ["1.17.1"]
    assert "1.18.0" in run("list", "--catalogue", str(tmp_path)).stdout


@pytest.mark.parametrize(
    ("variable", "first", "second", "same"),
    [
        (None, "a", "a", True),
        (None, "", None, True),
        (None, "1", "01", False),
        (Variable(name="N", type="integer"), "10", "10.0", True),
        (Variable(name="N", type="integer"), "", "0", False),
        (Variable(name="N", type="integer", go=True), "", "0", True),
        (Variable(name="B", type="boolean"), "true", "1", True),
        (Variable(name="B", type="boolean"), "false", None, False),
        (Variable(name="B", type="boolean", go=True), "false", None, True),
        (Variable(name="B", type="boolean", go=True), "true", None, False),
        (Variable(name="U", type="url"), "http://x/", "http://x", True),
        (Variable(name="S"), "http://x/", "http://x", False),
        (Variable(name="O", type="object"), "null", None, True),
        (Variable(name="N", type="number"), "much", "1", False),
    ],
)
def test_values_are_alike_when_their_effect_is(
    variable: Variable | None, first: str | None, second: str | None, same: bool
) -> None:
    assert alike(variable, first, second) is same
    assert alike(variable, second, first) is same


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("text", "it is a map"),
        ({"reason": "x", "kind": "service", "colour": "red"}, "colour: no such key"),
        ({"kind": "service", "names": ["x"]}, "`reason` says why"),
        ({"reason": "x", "kind": "color", "names": ["x"]}, "kind is 'color'"),
        ({"reason": "x", "kind": "service", "change": "is"}, "change is is"),
        ({"reason": "x", "kind": "service"}, "explains everything"),
        ({"reason": "x", "kind": "service", "names": [1]}, "names is"),
        ({"reason": "x", "kind": "service", "names": ["x"], "since": "1.17"}, "since is"),
        ({"reason": "x", "kind": "service", "names": ["x"], "elsewhere": "yes"}, "elsewhere is"),
        ({"reason": "x", "kind": "image", "official": 1.5}, "official is"),
    ],
)
def test_a_wrong_entry_of_the_table_is_named(tmp_path: Path, entry: Any, words: str) -> None:
    file = tmp_path / "differences.yaml"
    file.write_text(yaml.safe_dump({"reasons": [entry]}), encoding="utf-8")

    with pytest.raises(ReasonsError, match=f"reason 1.*{re.escape(words)}"):
        reasons.load(file)


def test_a_reason_holds_for_its_releases_alone() -> None:
    difference = Difference(kind="mount", service="a", name="/x", change=Change.LACKS)
    reason = Reason(text="x", kind="mount", names=("/*",), since="1.14.0", before="1.17.0")

    assert [
        version
        for version in ("1.13.9", "1.14.0", "1.16.9", "1.17.0")
        if reason.explains(difference, version)
    ] == [
        "1.14.0",
        "1.16.9",
    ]
