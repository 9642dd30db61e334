"""A catalogue file of the operator's own: what it may hold, and one clear error for each wrong shape."""

import re
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml

from dify_kit.errors import KitError
from dify_kit.stack.create import Choices, ImageSource, generate_secrets, settings_of
from dify_kit.stack.settings import check_planned
from dify_kit.workspace.files import DataDir, StackFiles
from infra.catalogue import release_file, releases
from infra.catalogue.releases import RELEASES, CatalogueError
from infra.catalogue.service import Tier
from infra.platforms.images import reference
from infra.services.environment import environment
from infra.services.specs import specs
from infra.settings.stack import Settings
from support.configuration import configure, resolved, settings

Change = dict[str, Any]
REMOVED = object()


def document(version: str = "1.18.0") -> dict[str, Any]:
    """Return the document of a release that the kit does not have: like 1.17.1, with its own images."""
    found: dict[str, Any] = yaml.safe_load(RELEASES["1.17.1"].file.read_text(encoding="utf-8"))
    found["version"] = version
    for role in ("api", "web", "agent_backend", "local_sandbox"):
        found["images"][role] = {"repository": f"langgenius/dify-{role}".replace("_", "-"), "tag": version}
    return found


def written(directory: Path, changes: Change | None = None, version: str = "1.18.0") -> Path:
    """Write a file with some values changed, by their path, and return it."""
    found = document(version)
    for path, value in (changes or {}).items():
        *parents, last = [int(part) if part.isdigit() else part for part in re.split(r"\.(?=[a-z])|/", path)]
        place: Any = found
        for part in parents:
            place = place[part]
        if value is REMOVED:
            del place[last]
        else:
            place[last] = value
    file = directory / f"{version}.yaml"
    file.write_text(yaml.safe_dump(found), encoding="utf-8")
    return file


# (what is changed, the key that the error names, a part of the reason)
WRONG: list[tuple[Change, str, str]] = [
    ({"colour": "red"}, "colour", "not a key of a release"),
    ({"images": REMOVED}, "images", "missing"),
    ({"images": ["api"]}, "images", "a map"),
    ({"images/api": REMOVED}, "images.api", "is missing"),
    ({"images/squid": REMOVED}, "images.squid", "is missing"),
    ({"images/postgres": REMOVED}, "images.postgres", "is missing"),
    ({"images/api": "langgenius/dify-api:1.18.0"}, "images.api", "a map"),
    ({"images/api/tag": REMOVED}, "images.api", "tag"),
    ({"images/api/colour": "red"}, "images.api", "colour"),
    ({"images/nginx/tag": 1.30}, "images.nginx.tag", "1.3"),
    ({"images/api/tag": "latest"}, "images.api.tag", "name a version"),
    ({"images/api/tag": "1.18.0@sha256:0"}, "images.api.tag", "is '1.18.0@sha256:0'"),
    ({"images/api/repository": ["x"]}, "images.api.repository", "it is text"),
    ({"images/api/digest": "sha256:short"}, "images.api.digest", "64 hexadecimal"),
    ({"images/apo": {"repository": "x", "tag": "y"}}, "images.apo", "no such role"),
    ({"services": "api"}, "services", "a list"),
    ({"services/0": "agent_frontend"}, "services[0]", "the kit runs"),
    ({"services/0": "api"}, "services", "listed twice"),
    ({"services/0": ["api"]}, "services[0]", "the kit runs"),
    ({"services": ["api", "web"]}, "services", "plugin-daemon is missing"),
    ({"routes": {"/v1": "api"}}, "routes", "a list"),
    ({"routes/0": "/v1"}, "routes[0]", "a map"),
    ({"routes/0/prefix": "v1"}, "routes[0].prefix", "a path"),
    ({"routes/0/prefix": "/v1 { return 200; }"}, "routes[0].prefix", "a path"),
    ({"routes/1/prefix": "/console/api"}, "routes[1].prefix", "listed twice"),
    ({"routes/0/group": "konsole"}, "routes[0].group", "one of"),
    ({"routes/0/service": "nobody"}, "routes[0].service", "not one of this release's services"),
    ({"routes/0/colour": "red"}, "routes[0]", "colour"),
    ({"routes": [{"prefix": "/v1", "group": "v1", "service": "api"}]}, "routes", "prefix: /,"),
    ({"version": "1.18.1"}, "version", "file's name"),
    ({"dsl": 0.7}, "dsl", "write it in quotes"),
    ({"celery_app": ["x"]}, "celery_app", "it is text"),
    ({"replaces": "yes"}, "replaces", "true or false"),
    ({"upgrade": "by hand"}, "upgrade", "a list"),
    ({"upgrade_from": "1.14"}, "upgrade_from", "the version of an older release"),
    ({"upgrade_from": "1.18.0"}, "upgrade_from", "the version of an older release"),
    ({"upgrade_from": ["1.14.2"]}, "upgrade_from", "the version of an older release"),
    ({"weaviate_ladder": [1.27]}, "weaviate_ladder[0]", "write it in quotes"),
    ({"renamed": {"A": "B"}}, "renamed.A", "a map"),
    ({"renamed": {"A": {"name": "B C"}}}, "renamed.A.name", "the variable's name"),
    ({"renamed": {"A": {"name": "B", "values": "x"}}}, "renamed.A.values", "maps"),
    ({"advisories": [{"id": "CVE"}]}, "advisories[0]", "fixed_in"),
    ({"advisories": [{"id": "CVE", "fixed_in": 2, "summary": "x"}]}, "advisories[0].fixed_in", "it is text"),
    ({"variables": {"same_as": "9.9.9"}}, "variables.same_as", "no file of that release"),
    ({"variables": {"api": ["A"]}}, "variables.api", "maps names"),
    ({"variables": {"api": {"A": "string"}}}, "variables.api.A", "a map"),
    ({"variables": {"api": {"A": {"type": "text"}}}}, "variables.api.A", "type is 'text'"),
    ({"variables": {"api": {"A": {"kind": "string"}}}}, "variables.api.A", "kind"),
    ({"variables": {"api": {"A": {"minimum": "low"}}}}, "variables.api.A", "minimum"),
    ({"variables": {"api": {"A B": {}}}}, "variables.api.A B", "not a variable's name"),
    ({"variables": {"worker": {"A": {}}}}, "variables.worker", "those of api"),
    ({"variables": {"api": {"A": {}}}}, "variables.plugin-daemon", "is missing"),
]


@pytest.mark.parametrize(("changes", "key", "words"), WRONG)
def test_a_wrong_shape_is_named_with_file_key_and_reason(
    tmp_path: Path, changes: Change, key: str, words: str
) -> None:
    file = written(tmp_path, changes)

    found = release_file.problems(file)

    assert any(line.startswith(f"{file}: ") and key in line and words in line for line in found), found


@pytest.mark.parametrize("text", ["", "[1, 2]", "version: [", "\x00", "version: 1.18.0\n"])
def test_a_file_that_is_no_release_at_all_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "1.18.0.yaml"
    file.write_text(text, encoding="utf-8")

    assert [line for line in release_file.problems(file) if line.startswith(f"{file}: ")]


@pytest.mark.parametrize("version", RELEASES)
def test_the_kits_own_files_hold_to_it(version: str) -> None:
    assert release_file.problems(RELEASES[version].file) == []


def test_every_problem_is_named_at_once(tmp_path: Path) -> None:
    file = written(tmp_path, {"images/api/tag": 1.18, "services/0": "x", "routes/0/group": "y"})

    assert len(release_file.problems(file)) >= 3


def refused(plain: dict[str, Any]) -> str:
    configure(plain)
    with pytest.raises(pulumi.RunError) as caught:
        settings(plain)
    return str(caught.value)


def test_a_stack_may_name_a_release_of_its_own_catalogue(tmp_path: Path) -> None:
    written(tmp_path, {"variables": {"same_as": "1.17.1"}})

    found = settings(
        {"catalogue": str(tmp_path), "release": "1.18.0", "images": "registry", "vectorStore": "qdrant"}
    )

    assert found.dify.version == "1.18.0"
    assert reference("api", found, found.dify) == "langgenius/dify-api:1.18.0"
    assert {spec.name for spec in specs(Tier.DIFY, found, found.dify)} >= {"agent-backend", "local-sandbox"}
    assert found.dify.number == 1_018_000


def test_a_variable_that_only_the_own_release_reads_may_be_set(tmp_path: Path) -> None:
    found = document()
    found["variables"] = yaml.safe_load(RELEASES["1.17.0"].file.read_text(encoding="utf-8"))["variables"]
    found["variables"]["api"]["PASSWORD_PEPPER"] = {"type": "string"}
    (tmp_path / "1.18.0.yaml").write_text(yaml.safe_dump(found), encoding="utf-8")
    plain = {"extraEnv": {"api": {"PASSWORD_PEPPER": "kept"}}}

    own = settings({**plain, "catalogue": str(tmp_path), "release": "1.18.0"})

    assert resolved(environment("api", own, own.dify))["PASSWORD_PEPPER"] == "kept"
    assert "PASSWORD_PEPPER" in refused(plain)


def test_the_kits_releases_stay_beside_those_of_the_catalogue(tmp_path: Path) -> None:
    written(tmp_path)

    assert list(releases.catalogue(tmp_path)) == ["1.18.0", *RELEASES]
    assert settings({"catalogue": str(tmp_path)}).dify == RELEASES["1.17.1"]


def test_a_file_takes_the_place_of_the_kits_own_only_when_it_says_so(tmp_path: Path) -> None:
    file = written(tmp_path, version="1.17.1", changes={"images/api/tag": "1.17.1-fixed"})
    plain = {"catalogue": str(tmp_path), "images": "registry", "vectorStore": "qdrant"}

    message = refused(plain)

    assert "dify:catalogue" in message
    assert f"{file}: replaces is missing" in message


def test_a_file_that_replaces_the_kits_own_is_the_one_that_runs(tmp_path: Path) -> None:
    written(tmp_path, version="1.17.1", changes={"images/api/tag": "1.17.1-fixed", "replaces": True})

    found = settings({"catalogue": str(tmp_path), "images": "registry", "vectorStore": "qdrant"})

    assert found.dify.images["api"].tag == "1.17.1-fixed"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images/api/tag": REMOVED}, "images.api"),
        ({"services/0": "x"}, "services[0]"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_settings_name_file_and_key_of_a_broken_file(tmp_path: Path, changes: Change, words: str) -> None:
    file = written(tmp_path, changes)

    message = refused({"catalogue": str(tmp_path), "release": "1.18.0"})

    assert "dify:release: '1.18.0'" in message
    assert f"{file}: " in message
    assert words in message


def test_a_broken_file_that_no_stack_names_stops_nothing(tmp_path: Path) -> None:
    written(tmp_path, {"services/0": "x"})

    assert settings({"catalogue": str(tmp_path)}).release == "1.17.1"


@pytest.mark.parametrize("given", ["relative", "/no/such/directory", ""])
def test_a_catalogue_is_the_absolute_path_of_a_directory(given: str) -> None:
    if given:
        assert "absolute path" in refused({"catalogue": given})
    else:
        assert settings({"catalogue": given}).catalogue is None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("dify-1.18.0.yaml", "not the name of a release"),
        ("1.18.0.yml", "not the name"),
        ("README.md", "holds no"),
    ],
)
def test_a_catalogue_whose_files_would_be_overlooked_is_refused(
    tmp_path: Path, name: str, words: str
) -> None:
    (tmp_path / name).write_text("version: 1.18.0\n", encoding="utf-8")

    with pytest.raises(CatalogueError, match=words):
        releases.catalogue(tmp_path)
    assert words in refused({"catalogue": str(tmp_path)})


def planned(directory: Path, release: str = "") -> Settings:
    """Return the settings of a new stack that is given a catalogue."""
    files = StackFiles(stack="dev", data=DataDir(root=directory / "data"), checkout=directory)
    choices = Choices(release=release, extra={"catalogue": str(directory)})
    return check_planned(files, settings_of(choices, ImageSource.REGISTRY), generate_secrets())


def test_init_takes_a_release_of_the_catalogue_that_it_is_given(tmp_path: Path) -> None:
    written(tmp_path)

    assert planned(tmp_path, "1.18.0").dify.version == "1.18.0"
    assert planned(tmp_path).dify.version == "1.17.1"


def test_init_names_the_fault_of_a_catalogue(tmp_path: Path) -> None:
    with pytest.raises(KitError, match=r"dify:catalogue: .*holds no"):
        planned(tmp_path)
