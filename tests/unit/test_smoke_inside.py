"""Services of a stack on a cluster from inside: their state in Docker's terms, and testinfra's way to them."""

import shutil
from typing import Any

import pytest

from infra.engine import cluster
from infra.engine.cluster import Workload
from smoke_tests.inside import Pods, host_of, inside_or_reason, no_shell
from tests.unit.test_pod_runtime import AT, FakeCluster, pod


class Workloads(FakeCluster):
    """A cluster with one workload."""

    found: dict[str, Any] | None = None

    def workload(self, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
        assert (namespace, name) == ("dify-a", "api")
        del kind
        return self.found

    def logs(self, namespace: str, pod: str, container: str, *, lines: int) -> str:
        del namespace, lines
        return f"last words of {container} in {pod}\n"


def use(monkeypatch: pytest.MonkeyPatch, found: dict[str, Any] | None) -> None:
    fake = Workloads([pod("api-2", ready=False), pod("api-1")], code=0, reply=b"said")
    fake.found = found
    monkeypatch.setattr(cluster.Workload, "cluster", lambda _self: fake)


def job() -> str:
    return str(Workload(kubeconfig="/k", context="c", namespace="dify-a", kind="Job", name="api"))


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({"succeeded": 1}, ("exited", 0)),
        ({"failed": 1}, ("exited", 1)),
    ],
)
def test_a_job_has_exited(
    monkeypatch: pytest.MonkeyPatch, status: dict[str, int], expected: tuple[str, int]
) -> None:
    use(monkeypatch, {"spec": {}, "status": status})

    found = Pods({}).settled(job())

    assert (found.status, found.exit_code) == expected


def test_a_workload_is_healthy_when_all_of_its_pods_are_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, {"spec": {"replicas": 2}, "status": {"readyReplicas": 2}})

    assert (Pods({}).settled(str(AT)).status, Pods({}).settled(str(AT)).health) == ("running", "healthy")


@pytest.mark.parametrize("status", [{}, {"readyReplicas": 1}])
def test_a_workload_that_does_not_get_ready_is_shown_with_its_last_log_lines(
    monkeypatch: pytest.MonkeyPatch, status: dict[str, int]
) -> None:
    use(monkeypatch, {"spec": {"replicas": 2}, "status": status})
    monkeypatch.setattr("smoke_tests.inside.SETTLE_SECONDS", 0.0)

    found = Pods({}).settled(str(AT))

    assert found.health == "starting"
    assert "last words of api" in found.account


def test_a_workload_that_is_gone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, None)

    with pytest.raises(AssertionError, match="Deployment api does not exist in namespace dify-a"):
        Pods({}).settled(str(AT))


def test_commands_run_in_a_ready_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, {})

    assert Pods({}).run(str(AT), ["true"]) == (0, "said")


def test_testinfra_gets_the_pod_with_all_that_kubectl_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, {})

    backend: Any = host_of(str(AT)).backend

    assert backend.NAME == "kubectl"
    assert (backend.name, backend.namespace, backend.container) == ("api-1", "dify-a", "api")
    assert (backend.context, backend.kubeconfig) == ("c", "/k")


def test_testinfra_runs_commands_in_containers_of_an_engine() -> None:
    backend: Any = host_of("dify-dev-nginx").backend

    assert (backend.NAME, backend.name) == ("docker", "dify-dev-nginx")


@pytest.mark.parametrize(("path", "missing"), [("", True), ("/usr/bin/kubectl", False)])
def test_pods_need_kubectl_and_containers_do_not(
    monkeypatch: pytest.MonkeyPatch, path: str, missing: bool
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: path)

    assert bool(no_shell({"api": str(AT)})) == missing
    assert not no_shell({"api": "dify-dev-api"})


def test_the_exports_say_where_the_services_are() -> None:
    assert isinstance(inside_or_reason("dev", {"api": str(AT)}), Pods)
