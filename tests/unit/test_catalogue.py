"""The catalogue: its files say what the facts of real releases say, and a wrong file is named with its key."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from dify_kit.releases import facts as catalogue_facts
from infra.catalogue import releases
from infra.catalogue.releases import RELEASES, CatalogueError, load
from infra.catalogue.variables import Variable, problems, read

FACTS = Path(__file__).parents[1] / "facts"
SOURCES = {"1.12.1": "1.12.1", "1.14.2": "1.14.2", "1.17.0": "1.17-pre"}


def facts(name: str) -> Any:  # JSON
    return json.loads((FACTS / f"{name}.json").read_text(encoding="utf-8"))


def test_newest_release_comes_first() -> None:
    assert list(RELEASES) == ["1.17.1", "1.17.0", "1.14.2", "1.12.1"]


@pytest.mark.parametrize(("release", "source"), SOURCES.items())
def test_variables_are_those_that_tools_catalogue_makes_of_the_facts(release: str, source: str) -> None:
    made = catalogue_facts.section(
        catalogue_facts.variables(
            facts(f"compose-{source}"), facts(f"api-settings-{source}"), facts("plugin-daemon-0.6.10")
        )
    )

    assert RELEASES[release].file.read_text(encoding="utf-8").endswith(made)


@pytest.mark.parametrize("release", RELEASES)
def test_every_typed_setting_of_the_real_api_is_known_with_its_type(release: str) -> None:
    source = RELEASES[release].facts or release
    known = RELEASES[release].variables("api")

    for name, fact in facts(f"api-settings-{source}").items():
        if name.isupper():
            assert name in known
            if "enum" in fact:
                assert set(known[name].values) == {value for value in fact["enum"] if value is not None}


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize(
    "service", ["api", "web", "plugin-daemon", "sandbox", "agent-backend", "local-sandbox"]
)
def test_defaults_and_what_compose_sets_are_valid_by_the_same_table(release: str, service: str) -> None:

    for variable in RELEASES[release].variables(service).values():
        for value in (variable.default, variable.compose):
            if value not in {None, ""}:
                assert variable.problem(str(value)) is None, variable


def test_releases_of_the_same_code_share_their_variables() -> None:
    assert RELEASES["1.17.1"].variables("api") == RELEASES["1.17.0"].variables("api")


def test_worker_migration_and_websocket_read_what_api_reads() -> None:
    release = RELEASES["1.17.1"]

    for service in ("worker", "worker-beat", "api-websocket", "migration"):
        assert release.variables(service) == release.variables("api")


def test_every_release_has_the_images_that_its_services_run() -> None:
    from infra.catalogue.service import Tier  # noqa: PLC0415
    from infra.services.specs import specs  # noqa: PLC0415  # imports Pulumi
    from support.configuration import settings  # noqa: PLC0415

    for version, release in RELEASES.items():
        for store in ("weaviate", "qdrant", "pgvector"):
            found = settings({"release": version, "vectorStore": store, "images": "registry"})
            for spec in (*specs(Tier.DATA, found, release), *specs(Tier.DIFY, found, release)):
                assert spec.image in release.images, (version, spec.name)


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        (Variable(name="E", values=("A", "B")), "C", "not one of A, B"),
        (Variable(name="N", type="integer"), "", "whole number"),
        (Variable(name="N", type="integer"), "1.5", "whole number"),
        (Variable(name="N", type="integer"), "\uff11\uff12", "whole number"),
        (Variable(name="N", type="integer", above=0), "0", "not above 0"),
        (Variable(name="N", type="integer", minimum=1, maximum=3), "4", "more than 3"),
        (Variable(name="N", type="number", below=1), "1", "not below 1"),
        (Variable(name="N", type="number"), "much", "a number"),
        (Variable(name="B", type="boolean"), "maybe", "neither true nor false"),
        (Variable(name="B", type="boolean", go=True), "yes", "neither true nor false"),
        (Variable(name="U", type="url"), "sandbox:8194", "http"),
        (Variable(name="O", type="object"), "[1]", "JSON object"),
        (Variable(name="D", type="duration", go=True), "30", "duration"),
    ],
)
def test_a_value_that_the_service_refuses_is_a_problem(variable: Variable, value: str, words: str) -> None:
    assert words in (variable.problem(value) or "")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        (Variable(name="N", type="integer"), " 12 "),
        (Variable(name="N", type="integer", minimum=0), "0"),
        (Variable(name="N", type="number"), "5.0"),
        (Variable(name="B", type="boolean"), "Yes"),
        (Variable(name="B", type="boolean", go=True), "T"),
        (Variable(name="U", type="url"), "http://sandbox:8194"),
        (Variable(name="O", type="object"), "null"),
        (Variable(name="D", type="duration", go=True), "1m30s"),
        (Variable(name="S"), ""),
    ],
)
def test_a_value_that_the_service_takes_is_none(variable: Variable, value: str) -> None:
    assert variable.problem(value) is None


def test_an_unknown_name_comes_with_the_nearest_known_one() -> None:
    known = RELEASES["1.17.1"].variables("api")

    found = problems(
        known, {"SWAGER_UI_ENABLED": "false", "HTTPS_PROXY": "http://proxy:3128", "LOG_TZ": "UTC"}
    )

    assert found == {"SWAGER_UI_ENABLED": "no variable of this service: did you mean SWAGGER_UI_ENABLED?"}


def test_a_server_that_is_known_in_part_takes_names_that_are_like_none_of_the_known() -> None:
    known = RELEASES["1.17.1"].variables("weaviate")

    found = problems(known, {"ENABLE_API_BASED_MODULES": "true", "QUERY_DEFAULT_LIMIT": "25"}, complete=False)

    assert list(found) == ["QUERY_DEFAULT_LIMIT"]


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("version", "1.17.9", "version is '1.17.9'"),
        ("colour", "red", "colour: not a key of a release"),
        ("images", None, "images: missing"),
        (
            "images",
            {"api": {"repository": "x"}},
            "images.api: missing 1 required keyword-only argument: 'tag'",
        ),
        ("routes", [{"prefix": "/", "group": "web", "service": "web", "port": 1}], "routes[0]"),
        ("services", {"api": 1}, "services is"),
        ("variables", {"same_as": "9.9.9"}, "no file of that release"),
        ("variables", {"api": {"A": {"type": "text"}}}, "variables.api.A: type is 'text'"),
        ("variables", {"api": {"A": {"type": "integer", "least": 1}}}, "least: not a part of a variable"),
        ("variables", {"api": {"A": "integer"}}, "variables.api.A is 'integer'"),
    ],
)
def test_a_wrong_file_is_named_with_its_key(tmp_path: Path, key: str, value: object, words: str) -> None:
    document = yaml.safe_load((releases.CATALOGUE / "1.17.1.yaml").read_text(encoding="utf-8"))
    file = tmp_path / "1.17.1.yaml"
    file.write_text(yaml.safe_dump(document | {key: value}), encoding="utf-8")

    with pytest.raises(CatalogueError) as caught:
        load(file).variables("api")

    assert str(file) in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize(("text", "words"), [("- a", "holds no release"), ("{", "is not YAML")])
def test_a_file_that_is_no_release_says_so(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "1.18.0.yaml"
    file.write_text(text, encoding="utf-8")

    with pytest.raises(CatalogueError, match=words):
        load(file)


def test_a_release_is_one_file_that_nothing_else_has_to_know(tmp_path: Path) -> None:
    shutil.copytree(releases.CATALOGUE, tmp_path / "catalogue")
    text = (releases.CATALOGUE / "1.17.1.yaml").read_text(encoding="utf-8").replace("1.17.1", "1.18.0")
    (tmp_path / "catalogue" / "1.18.0.yaml").write_text(text, encoding="utf-8")

    found = releases.Releases(tmp_path / "catalogue")

    assert next(iter(found)) == "1.18.0"
    assert found["1.18.0"].images["api"].tag == "1.18.0"
    assert found["1.18.0"].variables("api")["DEPLOYMENT_EDITION"].values == (
        "COMMUNITY",
        "ENTERPRISE",
        "CLOUD",
    )


def test_the_ladder_of_weaviate_leaves_no_minor_release_out_and_ends_at_the_image() -> None:
    for release in RELEASES.values():
        if release.weaviate_ladder:
            minors = [int(tag.split(".")[1]) for tag in release.weaviate_ladder]
            assert minors == list(range(27, minors[-1] + 1))
            assert release.weaviate_ladder[-1] == release.images["weaviate"].tag


def test_an_entry_of_a_variable_is_read_with_its_bounds() -> None:
    assert read("A", {"type": "integer", "above": 0, "default": 5, "compose": True}) == Variable(
        name="A", type="integer", above=0, default="5", compose="true"
    )
