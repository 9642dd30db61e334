"""What `infra.engine.cluster` asks a cluster's API, and what it makes of the answers. The API is a small server."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.engine.cluster import Cluster, ClusterError
from infra.engine.cluster_view import ClusterView
from tests.unit.cluster_api import CONTEXT, TOKEN, Api, served


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Cluster]:
    with served(tmp_path) as kubeconfig:
        yield Cluster.of(kubeconfig, CONTEXT)


def test_what_does_not_exist_is_none(api: Cluster) -> None:
    assert api.namespace("dify") is None
    assert api.workload("Deployment", "dify", "api") is None


def test_objects_come_as_they_are_also_with_fields_that_the_client_does_not_have(api: Cluster) -> None:
    pod = {"metadata": {"name": "api-1"}, "status": {"of": "a newer version"}}
    Api.answers[("GET", "/api/v1/namespaces/dify/pods")] = (200, {"items": [pod]})

    assert api.pods("dify", "a=b") == [pod]
    assert Api.requests == [("GET", "/api/v1/namespaces/dify/pods?labelSelector=a%3Db", None)]


def test_a_right_is_asked_for_with_its_subresource(api: Cluster) -> None:
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    Api.answers[("POST", path)] = (201, {"status": {"allowed": False}})

    assert not api.allowed("create", "", "pods/exec", "dify")
    attributes = Api.requests[0][2]["spec"]["resourceAttributes"]
    assert (attributes["resource"], attributes["subresource"], attributes["namespace"]) == (
        "pods",
        "exec",
        "dify",
    )


def test_the_address_of_dns(api: Cluster) -> None:
    path = "/api/v1/namespaces/kube-system/services"
    Api.answers[("GET", path)] = (200, {"items": [{"spec": {"clusterIP": "10.96.0.10"}}]})
    assert api.dns_address() == "10.96.0.10"

    Api.answers[("GET", path)] = (200, {"items": []})
    with pytest.raises(ClusterError, match="k8s-app=kube-dns"):
        api.dns_address()


def test_the_log_of_a_container_that_has_none_is_empty(api: Cluster) -> None:
    path = "/api/v1/namespaces/dify/pods/api-1/log"
    Api.answers[("GET", path)] = (200, b"one\ntwo\n")
    assert api.logs("dify", "api-1", "api") == "one\ntwo"

    Api.answers[("GET", path)] = (400, {"message": "container is waiting to start"})
    assert api.logs("dify", "api-1", "api") == ""


@pytest.mark.parametrize(
    ("status", "fix"), [(401, "sign in to the cluster again"), (403, "kubectl auth can-i")]
)
def test_a_refusal_names_the_context_and_no_credentials(api: Cluster, status: int, fix: str) -> None:
    Api.answers[("GET", "/api/v1/namespaces/dify")] = (status, {"message": "no"})

    with pytest.raises(ClusterError, match="context 'one' refuses reading namespace dify") as refused:
        api.namespace("dify")
    assert fix in refused.value.fix
    assert TOKEN not in f"{refused.value}{refused.value.fix}"


def test_a_job_that_ended_is_made_again(api: Cluster) -> None:
    jobs = "/apis/batch/v1/namespaces/dify/jobs"
    Api.answers[("DELETE", f"{jobs}/migration")] = (200, {})
    Api.answers[("POST", jobs)] = (201, {})
    job = {"metadata": {"name": "migration", "uid": "1"}, "spec": {"template": {"spec": {"containers": []}}}}

    api.run_job_again("dify", job, 5)

    methods = [(method, path.partition("?")[2]) for method, path, _ in Api.requests]
    assert methods == [("DELETE", "propagationPolicy=Foreground"), ("GET", ""), ("POST", "")]
    assert Api.requests[-1][2]["metadata"] == {"name": "migration"}


def test_a_command_that_ends_has_its_code_and_both_streams(api: Cluster) -> None:
    status = {"status": "Failure", "details": {"causes": [{"reason": "ExitCode", "message": "7"}]}}
    Api.frames = [(1, b"out"), (2, b"err"), (1, b"put"), (3, json.dumps(status).encode())]

    ran = api.execute("dify", "nginx-1", "nginx", ["nginx", "-t"], seconds=10)

    assert (ran.code, ran.stdout, ran.stderr) == (7, b"output", b"err")
    ((_, path, _),) = Api.requests
    assert path.startswith("/api/v1/namespaces/dify/pods/nginx-1/exec?")
    assert "command=nginx&command=-t" in path
    assert "container=nginx" in path


def test_a_command_that_succeeds_has_code_0(api: Cluster) -> None:
    Api.frames = [(3, b'{"status": "Success"}')]

    assert api.execute("dify", "nginx-1", "nginx", ["true"], seconds=10).code == 0


def test_a_line_gets_a_line_although_the_command_goes_on(api: Cluster) -> None:
    Api.frames, Api.ends = [(1, b'{"status": '), (1, b"200}\n")], False
    began = time.monotonic()

    ran = api.execute("dify", "api-1", "api", ["python3", "-c", "x"], seconds=30, line=b"ask\n")

    assert ran.stdout == b'{"status": 200}\n'
    assert Api.received == [b"\x00ask\n"]
    assert time.monotonic() - began < 20


def test_a_command_that_hangs_is_left_when_its_time_is_up(api: Cluster) -> None:
    Api.frames, Api.ends = [(1, b"so far")], False

    ran = api.execute("dify", "api-1", "api", ["sleep", "60"], seconds=1)

    assert (ran.code, ran.stdout) == (None, b"so far")


@pytest.fixture
def view(tmp_path: Path) -> Iterator[ClusterView]:
    with served(tmp_path) as kubeconfig:
        yield ClusterView.of(kubeconfig, CONTEXT)


def test_any_document_is_read_as_it_is(view: ClusterView) -> None:
    Api.answers[("GET", "/api/v1/nodes")] = (200, {"items": [{"status": {"of": "a newer version"}}]})

    assert view.look("/api/v1/nodes") == {"items": [{"status": {"of": "a newer version"}}]}


@pytest.mark.parametrize("status", [403, 404, 503])
def test_what_is_not_there_or_not_for_the_user_is_none(view: ClusterView, status: int) -> None:
    """503 is the answer of an API whose server is away, such as that of metrics."""
    Api.answers[("GET", "/apis/metrics.k8s.io/v1beta1")] = (status, {"kind": "Status"})

    assert view.look("/apis/metrics.k8s.io/v1beta1") is None


@pytest.mark.parametrize("status", [401, 500])
def test_a_cluster_that_cannot_answer_is_an_error(view: ClusterView, status: int) -> None:
    Api.answers[("GET", "/version")] = (status, {"kind": "Status"})

    with pytest.raises(ClusterError, match=f"GET /version: {status}"):
        view.look("/version")


@pytest.mark.parametrize(
    ("status", "document", "why"),
    [
        (201, {"kind": "Service"}, ""),
        (422, {"message": "provided port is already allocated"}, "provided port is already allocated"),
        (403, {"message": "forbidden"}, ""),
    ],
)
def test_a_dry_run_says_why_an_object_is_refused(
    view: ClusterView, status: int, document: dict[str, str], why: str
) -> None:
    path = "/api/v1/namespaces/dify/services"
    Api.answers[("POST", path)] = (status, document)

    assert view.refused(path, {"kind": "Service"}) == why
    assert Api.requests == [("POST", f"{path}?dryRun=All", {"kind": "Service"})]


def test_the_type_of_a_secret(view: ClusterView) -> None:
    path = "/api/v1/namespaces/dify/secrets/login"
    assert view.secret_type("dify", "login") is None
    Api.answers[("GET", path)] = (200, {"type": "kubernetes.io/dockerconfigjson", "data": {}})
    assert view.secret_type("dify", "login") == "kubernetes.io/dockerconfigjson"
