"""A pretend service and a pretend release: rows in the public tables are all that the rest of the kit needs."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pulumi
import pytest
import yaml

from dify_kit.containers.docker_host import Container
from dify_kit.containers.stopping import rounds
from dify_kit.images.wanted import Source, wanted
from dify_kit.releases import kit
from infra.catalogue import images, networks, release_file, releases, selection, services, volumes
from infra.catalogue.images import Role
from infra.catalogue.releases import RELEASES
from infra.catalogue.service import HealthCheck, Keep, Limits, Mount, Network, Part, Service, Tier
from infra.edge.context import edge_context
from infra.platforms import image_needs
from infra.services.limits import limits_of
from support.configuration import settings
from tests.unit.recording import CONTAINER, DYNAMIC, IMAGE, NETWORK, VOLUME, run_program

VERSION = "1.18.0"
PRETEND = "reranker"
PORT = 7997
ROW = Service(
    image="reranker",
    tier=Tier.DIFY,
    part=Part.RELEASE,
    limits=Limits(memory=3000, pids=700),
    networks=(networks.APP, "models"),
    after=("redis", "no_such_service"),
    mounts=(Mount(volume="models", path="/models"),),
    port=PORT,
    holds_data=True,
    health=HealthCheck(command=("true",)),
    variables=PRETEND,
    stop_grace=7,
)


@pytest.fixture
def _tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add one row to each public table."""
    for module, table, row in (
        (services, "SERVICES", {PRETEND: ROW}),
        (images, "ROLES", {"reranker": Role(build="containers/redis", dify=True)}),
        (networks, "NETWORKS", {"models": Network(internal=True, service=PRETEND)}),
        (volumes, "VOLUMES", {"models": Keep.DATA}),
    ):
        before: Mapping[str, Any] = getattr(module, table)
        monkeypatch.setattr(module, table, MappingProxyType({**before, **row}))


@pytest.fixture
def catalogue(_tables: None, tmp_path: Path) -> Path:
    """A directory with the pretend release: 1.17.1 with the pretend service, a route to it, and a variable."""
    document: dict[str, Any] = yaml.safe_load(RELEASES["1.17.1"].file.read_text(encoding="utf-8"))
    if set(document["variables"]) == {"same_as"}:
        shared = RELEASES[document["variables"]["same_as"]].file
        document["variables"] = yaml.safe_load(shared.read_text(encoding="utf-8"))["variables"]
    document["version"] = VERSION
    document["services"].append(PRETEND)
    document["images"]["reranker"] = {"repository": "langgenius/dify-reranker", "tag": VERSION}
    document["routes"].append({"prefix": "/rerank", "group": "v1", "service": PRETEND})
    document["variables"][PRETEND] = {"RERANK_BATCH": {"type": "integer", "minimum": 1}}
    (tmp_path / f"{VERSION}.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    return tmp_path


def plain(catalogue: Path, **more: Any) -> dict[str, Any]:
    return {"catalogue": str(catalogue), "release": VERSION, **more}


def test_its_release_is_complete(catalogue: Path) -> None:
    file = catalogue / f"{VERSION}.yaml"

    assert release_file.problems(file) == []
    document = yaml.safe_load(file.read_text(encoding="utf-8"))
    del document["images"]["reranker"], document["variables"][PRETEND]
    file.write_text(yaml.safe_dump(document), encoding="utf-8")
    releases.load.cache_clear()
    releases._document.cache_clear()
    releases._variables.cache_clear()
    assert {line.split(": ")[1].split(" ")[0] for line in release_file.problems(file)} == {
        "images.reranker",
        f"variables.{PRETEND}",
    }


def test_the_program_runs_it(catalogue: Path) -> None:
    recorder = run_program(plain(catalogue, extraEnv={PRETEND: {"RERANK_BATCH": "8"}}))

    container = recorder.of(CONTAINER)[PRETEND]
    assert container["name"] == f"dify-unit-{PRETEND}"
    assert container["memory"] == 3000
    assert container["stopTimeout"] == 7
    assert container["envs"] == ["RERANK_BATCH=8"]
    assert {one["name"] for one in container["networksAdvanced"]} == {"dify-unit-app", "dify-unit-models"}
    assert [(one["volumeName"], one["containerPath"]) for one in container["volumes"]] == [
        ("dify-unit-models", "/models")
    ]
    assert recorder.of(NETWORK)["models"]["internal"] is True
    assert recorder.of(DYNAMIC)[f"{PRETEND}-pids"]["limit"] == 700
    assert f"{PRETEND}-ready" in recorder.of(DYNAMIC)
    assert len(recorder.of(VOLUME)["volume-models"]["labels"]) > 1


def test_the_edge_reaches_it(catalogue: Path) -> None:
    found = settings(plain(catalogue))

    services_behind = {one.name: one.port for one in edge_context(found, found.dify).services}

    assert services_behind[PRETEND] == PORT


def test_a_release_without_it_does_not(catalogue: Path) -> None:
    recorder = run_program(plain(catalogue) | {"release": "1.17.1"})

    assert PRETEND not in recorder.of(CONTAINER)
    assert "models" not in recorder.of(NETWORK)
    assert "volume-models" not in recorder.of(VOLUME)


def test_its_image_is_pulled_listed_and_built(catalogue: Path) -> None:
    chosen = plain(catalogue, images="registry", vectorStore="weaviate")
    found = settings(chosen)

    pulled = {one["name"] for one in run_program(chosen).of(IMAGE).values()}
    assert f"langgenius/dify-reranker:{VERSION}" in pulled
    listed = wanted(image_needs.parts_of(found), found.dify, Source())
    assert f"langgenius/dify-reranker:{VERSION}" in {one.reference for one in listed}
    assert "reranker" in images.local_builds()


def test_settings_accept_its_limits_and_variables(catalogue: Path) -> None:
    found = settings(plain(catalogue, resources={PRETEND: {"memory": 64, "pids": 99}}))

    assert (limits_of(PRETEND, found).memory, limits_of(PRETEND, found).pids) == (64, 99)
    for wrong in (
        {"extraEnv": {PRETEND: {"RERANK_BATCH": "0"}}},
        {"extraEnv": {PRETEND: {"RERANK_BATHC": "1"}}},
        {"resources": {PRETEND: {"memory": 1}}},
        {"release": "1.17.1", "resources": {PRETEND: {"memory": 64}}},
    ):
        with pytest.raises(pulumi.RunError, match=PRETEND):
            settings(plain(catalogue) | wrong)


def test_commands_and_smoke_tests_know_it(catalogue: Path) -> None:
    release = releases.catalogue(catalogue)[VERSION]

    assert "models" in selection.volume_names(Keep.DATA)
    assert selection.data_ports()[PRETEND] == PORT
    assert kit.topology(release).services[PRETEND].networks == {"default", "models"}
    running = [
        Container(id=name, name=name, service=name, state="running", job=False) for name in ("nginx", PRETEND)
    ]
    assert [[one.service for one in group] for group in rounds(running)] == [["nginx"], [PRETEND]]
