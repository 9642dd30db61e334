"""The command line on a stack with `dify:platform kubernetes`: claims instead of volumes, and no Docker engine."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dify_kit.__main__ import app
from dify_kit.checks import guards, published
from dify_kit.containers.docker_host import Container
from dify_kit.errors import KitError
from dify_kit.stack import settings
from dify_kit.stack.cluster_objects import ClusterObjects, cluster_objects
from dify_kit.workspace.files import StackFiles
from infra.engine import cluster_changes
from infra.engine.cluster import Cluster, ClusterError
from tests.unit.cli.conftest import FakeEngine, Machine
from tests.unit.cluster_api import CONTEXT, Api, served


class FakeCluster:
    """A cluster with claims, to which everything else is allowed."""

    def __init__(self, claims: Mapping[str, dict[str, Any]]) -> None:
        self.held = dict(claims)

    def claims(self, namespace: str) -> dict[str, dict[str, Any]]:
        assert namespace == "dify-dev"
        return self.held

    def delete_claim(self, namespace: str, name: str) -> None:
        assert namespace == "dify-dev"
        del self.held[name]

    def namespace(self, name: str) -> dict[str, Any] | None:
        return {"metadata": {"name": name, "labels": {"dify-kit.stack": "other"}}}


def on_cluster(machine: Machine) -> StackFiles:
    machine.configure(platform="kubernetes", kubernetes={"context": "test", "registry": "preloaded"})
    return machine.files()


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    labelled = {"metadata": {"labels": {"dify-kit.stack": "dev"}}}
    cluster = FakeCluster({"postgres": labelled, "app-storage": labelled})
    monkeypatch.setattr(Cluster, "of", lambda _kubeconfig, _context: cluster)
    return cluster


def test_volumes_are_claims(machine: Machine, found: FakeCluster) -> None:
    objects = cluster_objects(on_cluster(machine))
    assert isinstance(objects, ClusterObjects)

    names = ["dify-dev-postgres", "dify-dev-app_storage", "dify-dev-redis"]
    assert objects.volumes(names) == names[:2]
    assert objects.volume_labels(names)["dify-dev-app_storage"] == {"dify-kit.stack": "dev"}
    objects.remove_volume("dify-dev-app_storage")
    assert set(found.held) == {"postgres"}
    assert objects.containers("dev") == []
    assert not objects.local()


def test_forget_deletes_claims_and_needs_no_engine(
    machine: Machine, found: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_engine() -> None:
        raise AssertionError("no Docker engine is needed")

    monkeypatch.setattr("dify_kit.commands.forget.DockerEngine", no_engine)
    on_cluster(machine)

    done = CliRunner().invoke(app, ["forget", "dev", "--delete-data", "--yes", "dev"])

    assert done.exit_code == 0, done.output
    assert "volume with its data: dify-dev-app_storage" in done.output
    assert found.held == {}
    assert not machine.files().configured()


def test_a_stack_on_docker_has_none(machine: Machine) -> None:
    machine.configure()

    assert cluster_objects(machine.files()) is None


def test_the_guard_of_the_cluster_takes_the_place_of_those_of_docker(
    machine: Machine, found: FakeCluster
) -> None:
    files = on_cluster(machine)
    made = list(guards.found(files, settings.read(files), FakeEngine()))

    assert found
    ((name, refusals),) = made
    assert name == "cluster"
    assert "is not this stack's" in refusals[0].problem


def test_a_cluster_that_refuses_is_an_error_with_its_fix(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_kubeconfig: object, _context: object) -> None:
        raise ClusterError("it does not answer", "start it")

    monkeypatch.setattr(Cluster, "of", refuse)
    objects = cluster_objects(on_cluster(machine))
    assert objects is not None
    with pytest.raises(KitError, match="does not answer") as refused:
        objects.volumes(["dify-dev-postgres"])
    assert refused.value.hint == "start it"


def test_no_port_of_this_machine_is_requested(machine: Machine) -> None:
    assert published.find(on_cluster(machine), FakeEngine()) is None


def test_a_store_is_stopped_by_its_scale_and_started_again(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_changes, "POLL_SECONDS", 0.05)
    scale = "/apis/apps/v1/namespaces/dify-dev/statefulsets/weaviate/scale"
    labels = {"dify-kit.stack": "dev", "dify-kit.service": "weaviate"}
    left = [{"metadata": {"name": "weaviate-0", "labels": labels}}]
    store = Container(id="w", name="weaviate-0", service="weaviate", job=False, state="running")
    with served(tmp_path) as kubeconfig:
        kubernetes = {"kubeconfig": str(kubeconfig), "context": CONTEXT, "registry": "preloaded"}
        machine.configure(platform="kubernetes", kubernetes=kubernetes)
        objects = cluster_objects(machine.files())
        assert objects is not None

        def pods(_path: str, _body: object) -> tuple[int, dict[str, Any]]:
            return 200, {"items": [left.pop()] if left else []}

        Api.answers["GET", "/api/v1/namespaces/dify-dev/pods"] = pods
        Api.answers["PATCH", scale] = (200, {})

        objects.pause(store)
        objects.resume(store)

    changed = [body for method, _, body in Api.requests if method == "PATCH"]
    assert changed == [{"spec": {"replicas": 0}}, {"spec": {"replicas": 1}}]
    assert left == []


def test_a_service_is_stopped_by_the_scale_of_its_deployment_and_a_job_is_left_alone(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_changes, "POLL_SECONDS", 0.05)
    space = "/apis/apps/v1/namespaces/dify-dev"
    pods = {
        name: {
            "metadata": {"name": name, "labels": {"dify-kit.stack": "dev", "dify-kit.service": service}},
            "spec": {"containers": [{"name": service}]},
            "status": {"phase": "Running"},
        }
        for name, service in (("web-1", "web"), ("migration-1", "migration"))
    }
    scaled: list[object] = []

    def listed(_path: str, _body: object) -> tuple[int, dict[str, Any]]:
        return 200, {"items": [pods[name] for name in pods if name != "web-1" or not scaled]}

    def scale(_path: str, body: object) -> tuple[int, dict[str, Any]]:
        scaled.append(body)
        return 200, {}

    def of(kind: str) -> dict[str, Any]:
        return {"metadata": {"name": kind, "labels": {"dify-kit.service": kind}}}

    with served(tmp_path) as kubeconfig:
        kubernetes = {"kubeconfig": str(kubeconfig), "context": CONTEXT, "registry": "preloaded"}
        machine.configure(platform="kubernetes", kubernetes=kubernetes)
        objects = cluster_objects(machine.files())
        assert objects is not None
        Api.answers["GET", "/api/v1/namespaces/dify-dev/pods"] = listed
        for name, pod in pods.items():
            Api.answers["GET", f"/api/v1/namespaces/dify-dev/pods/{name}"] = (200, pod)
        Api.answers["GET", f"{space}/deployments"] = (200, {"items": [of("web")]})
        Api.answers["GET", f"{space}/statefulsets"] = (200, {"items": []})
        Api.answers["GET", "/apis/batch/v1/namespaces/dify-dev/jobs"] = (200, {"items": [of("migration")]})
        Api.answers["GET", "/api/v1/namespaces/dify-dev/secrets"] = (200, {"items": []})
        Api.answers["PATCH", f"{space}/deployments/web/scale"] = scale

        for one in objects.workloads("dev"):
            objects.stop_container(one.id)

    assert scaled == [{"spec": {"replicas": 0}}]
