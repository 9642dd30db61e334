"""Files that hosted services read: they call what a person calls, and know the places that they name."""

import json
import re
import tomllib
from functools import cache
from typing import Any

import pytest
import yaml

from dify_kit.workspace.files import CHECKOUT
from infra.catalogue.releases import CATALOGUE
from tests import vale
from tests.clients_environment import pins

VERSION = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


def read(name: str) -> Any:  # YAML
    return yaml.safe_load((CHECKOUT / name).read_text(encoding="utf-8"))


@cache
def renovate() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((CHECKOUT / "renovate.json").read_text(encoding="utf-8"))
    return found


def python_pattern(javascript: str) -> re.Pattern[str]:
    """Return a pattern of renovate.json, without its slashes, in Python's syntax."""
    return re.compile(javascript.strip("/").replace("(?<", "(?P<"))


def managed(name: str) -> list[dict[str, str | None]]:
    """Return what the custom managers of renovate.json find in a file."""
    text = (CHECKOUT / name).read_text(encoding="utf-8")
    return [
        found.groupdict()
        for manager in renovate()["customManagers"]
        if any(python_pattern(pattern).search(name) for pattern in manager["managerFilePatterns"])
        for pattern in manager["matchStrings"]
        for found in python_pattern(pattern).finditer(text)
    ]


@pytest.mark.parametrize("file", sorted(path.name for path in CATALOGUE.glob("[0-9]*.yaml")))
def test_the_dependency_bot_knows_every_image_of_the_catalogue(file: str) -> None:
    name = f"infra/catalogue/{file}"
    images = read(name)["images"].values()

    assert managed(name) == [
        {"depName": image["repository"], "currentValue": image["tag"], "currentDigest": image.get("digest")}
        for image in images
    ]


def test_the_dependency_bot_knows_the_version_of_vale() -> None:
    assert managed("tests/vale.py") == [{"currentValue": vale.VERSION}]
    modules = [line.split()[:2] for line in (vale.MODULE / "go.mod").read_text(encoding="utf-8").splitlines()]
    assert ["github.com/vale-cli/vale/v3", f"v{vale.VERSION}"] in modules


def test_the_dependency_bot_knows_the_packages_of_the_clients_to_copy() -> None:
    found = managed("docs/guides/clients.md")

    assert {str(one["depName"]): one["currentValue"] for one in found} == pins()


def test_git_ignores_the_files_of_a_stack() -> None:
    ignored = (CHECKOUT / ".gitignore").read_text(encoding="utf-8").splitlines()

    assert {"/Pulumi.*.yaml", "/clients.*.json", "/proxy-keys.*.json"} <= set(ignored)


def test_hosted_ci_runs_make_test() -> None:
    (github,) = read(".github/workflows/test.yml")["jobs"].values()
    gitlab = read(".gitlab-ci.yml")["test"]

    assert [step["run"] for step in github["steps"] if "run" in step] == ["make test"]
    assert gitlab["script"] == ["make test"]


WEEKLY = ["newest", "drills", "test-cluster"]


def test_hosted_ci_runs_the_long_tests_on_a_schedule() -> None:
    workflow = read(".github/workflows/weekly.yml")
    (github,) = workflow["jobs"].values()
    gitlab = read(".gitlab-ci.yml")

    assert [step["run"] for step in github["steps"] if "run" in step] == ["make ${{ matrix.target }}"]
    assert github["strategy"]["matrix"] == {"target": WEEKLY}
    assert not github["strategy"]["fail-fast"]
    # PyYAML reads the key `on` as true.
    assert workflow[True]["schedule"]
    assert gitlab["weekly"]["script"] == ['make "$TARGET"']
    assert gitlab["weekly"]["parallel"]["matrix"] == [{"TARGET": WEEKLY}]
    assert gitlab["weekly"]["rules"] == [{"if": '$CI_PIPELINE_SOURCE == "schedule"'}]
    assert gitlab["test"]["rules"] == [{"if": '$CI_PIPELINE_SOURCE != "schedule"'}]


def test_what_make_test_leaves_out_is_run_each_week() -> None:
    """Every test of the integration folders is in `make test` or in a weekly target: a marker leaves out no other."""
    recipes = (CHECKOUT / "Makefile").read_text(encoding="utf-8")

    chosen = re.search(r'-m "([^"]+)"', recipes)[1]  # type: ignore[index]
    on_cluster = re.search("^ON_CLUSTER = (.+)$", recipes, re.MULTILINE)[1]  # type: ignore[index]
    excluded = set(re.findall(r"not (\w+)", chosen.replace("$(ON_CLUSTER)", on_cluster)))

    assert excluded == {"browser", "cluster", "drill"}
    for marker in excluded:
        assert re.search(rf"-m {marker}\b", recipes)
    assert set(re.findall(r"^([a-z-]+):", recipes, re.MULTILINE)) >= {*WEEKLY, "browsing"}


def test_pre_commit_runs_what_make_lint_runs() -> None:
    (repository,) = read(".pre-commit-config.yaml")["repos"]
    (hook,) = repository["hooks"]

    assert repository["repo"] == "local"
    assert hook["entry"].split()[0] == "make"
    assert hook["entry"].split()[-1] == "lint"
    assert not hook["pass_filenames"]


def test_forms_for_issues_have_unique_fields() -> None:
    for path in (CHECKOUT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text(encoding="utf-8"))
        if path.name != "config.yml":
            fields = [part["id"] for part in form["body"] if part["type"] != "markdown"]
            assert form["name"]
            assert form["description"]
            assert len(fields) == len(set(fields)) > 1


def test_the_version_has_its_section_and_its_fixes() -> None:
    changelog = (CHECKOUT / "CHANGELOG.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## (.+)$", changelog, re.MULTILINE)
    minor = ".".join(VERSION.split(".")[:2])

    assert sections[0] == "Unreleased"
    assert re.fullmatch(rf"{re.escape(VERSION)} - \d{{4}}-\d\d-\d\d", sections[1])
    assert f"| {minor}.x | yes |" in (CHECKOUT / "SECURITY.md").read_text(encoding="utf-8")
