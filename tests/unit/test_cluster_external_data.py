"""External data services on a cluster: proxies, names, policies, and what is checked before anything is created."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from infra.engine.cluster_view import ClusterView
from infra.guards import cluster_data
from infra.guards.servers import UNREACHABLE
from infra.services.external_data import stream_proxy_files
from support.configuration import settings
from support.ports import free_port
from tests.unit.cluster_server import NAMESPACE, Answers, a_list, namespace, serving
from tests.unit.recording import CLUSTER_ADDRESS, Recorder, run_program
from tests.unit.test_external_data import SECRETS
from tests.unit.test_settings_kubernetes import on_cluster

DEPLOYMENT, SERVICE = "kubernetes:apps/v1:Deployment", "kubernetes:core/v1:Service"
SERVERS: Mapping[str, Any] = {
    "database": {"host": "db.example.com", "port": 6432},
    "redis": {"host": "cache.example.com", "port": 6380, "user": "dify"},
}
KUBE_DNS = "/api/v1/namespaces/kube-system/services/kube-dns"


@pytest.fixture(scope="module")
def recorder() -> Recorder:
    return run_program(on_cluster(dict(SERVERS)), secrets=SECRETS)


def pod(recorder: Recorder, service: str) -> dict[str, Any]:
    found: dict[str, Any] = recorder.of(DEPLOYMENT)[service]["spec"]["template"]["spec"]
    return found


def test_the_proxies_take_the_place_of_the_stack_s_own(recorder: Recorder) -> None:
    ports = {
        name: [port["port"] for port in recorder.of(SERVICE)[name]["spec"]["ports"]]
        for name in ("data-proxy", "data-egress")
    }

    assert ports == {key: [5432, 6379, 9201, 9202] for key in ("data-proxy", "data-egress")}
    assert not {"db-postgres", "redis"} & set(recorder.of(SERVICE))


@pytest.mark.parametrize("service", ["api", "worker", "plugin-daemon"])
def test_clients_reach_the_proxy_by_the_names_in_the_certificates(recorder: Recorder, service: str) -> None:
    (alias,) = pod(recorder, service)["hostAliases"]

    assert alias == {"ip": CLUSTER_ADDRESS, "hostnames": ["db.example.com", "cache.example.com"]}


@pytest.mark.parametrize(("store", "names"), [("pgvector", ["vectors.example.com"]), ("qdrant", [])])
def test_a_vector_store_outside_is_reached_at_the_proxies_too(store: str, names: list[str]) -> None:
    server = {"host": "vectors.example.com"} | ({"user": "dify"} if store == "pgvector" else {})
    found = run_program(
        on_cluster({"vectorStore": store, "vectorServer": server}),
        secrets={"externalVectorPassword": "external-password"},
    )

    for service in ("api", "worker"):
        aliases = pod(found, service).get("hostAliases", [])
        assert [name for one in aliases for name in one["hostnames"]] == names
    assert {"data-proxy", "data-egress"} <= set(found.of(DEPLOYMENT))
    assert store not in set(found.of(SERVICE))


@pytest.mark.parametrize("service", ["data-proxy", "data-egress", "nginx", "web"])
def test_others_resolve_the_names_as_the_outside_does(recorder: Recorder, service: str) -> None:
    known = {name for one in pod(recorder, service).get("hostAliases", []) for name in one["hostnames"]}

    assert not known & {"db.example.com", "cache.example.com"}


def test_only_the_second_proxy_has_a_way_out(recorder: Recorder) -> None:
    policies = recorder.of("kubernetes:networking.k8s.io/v1:NetworkPolicy")
    labels = {
        name: recorder.of(DEPLOYMENT)[name]["spec"]["template"]["metadata"]["labels"]
        for name in ("data-proxy", "data-egress")
    }
    outside = [
        one["spec"]["podSelector"]["matchLabels"] for name, one in policies.items() if "outside" in name
    ]

    assert not any(chosen.items() <= labels["data-proxy"].items() for chosen in outside)
    assert sum(chosen.items() <= labels["data-egress"].items() for chosen in outside) == 1


def test_the_proxies_resolve_names_by_the_cluster_s_dns() -> None:
    found = settings(on_cluster(dict(SERVERS)), SECRETS)
    (proxy,), (egress,) = (stream_proxy_files(one, found).values() for one in ("data-proxy", "data-egress"))

    words = [line.split() for line in proxy.splitlines()]
    assert ["set", "$to_5432", "data-egress.dify-unit.svc.cluster.local:5432;"] in words
    assert ["resolver", "kube-dns.kube-system.svc.cluster.local", "valid=5s", "ipv6=off;"] in words
    words = [line.split() for line in egress.splitlines()]
    assert ["set", "$to_5432", "db.example.com:6432;"] in words


def checked(
    answers: Answers, directory: Path, plain: Mapping[str, Any]
) -> tuple[Sequence[str], Sequence[str]]:
    """Return what is refused and what is warned about."""
    with serving(answers, directory) as kubeconfig:
        stack = settings(on_cluster(dict(plain), kubeconfig=str(kubeconfig)), SECRETS)
        view = ClusterView.of(kubeconfig, "test")
        assert stack.kubernetes is not None
        refused = cluster_data.refusals(stack, stack.kubernetes, view)
        return [one.text("unit") for one in refused], cluster_data.warnings(stack, stack.kubernetes, view)


def ours(*claims: str) -> Answers:
    answers = Answers()
    answers.objects |= {
        KUBE_DNS: {"spec": {"clusterIP": "10.96.0.10"}},
        NAMESPACE: namespace(),
        f"{NAMESPACE}/persistentvolumeclaims": a_list(
            *(
                {"metadata": {"name": name, "labels": {"dify-kit.stack": "unit"}}, "spec": {}}
                for name in claims
            )
        ),
    }
    return answers


def test_a_server_that_only_the_cluster_may_reach_is_a_warning(tmp_path: Path) -> None:
    nowhere = {"host": "localhost.localdomain", "port": free_port()}
    plain = {"database": {**nowhere, "tls": "disable"}, "redis": {**nowhere, "tls": False}}

    refused, warned = checked(ours(), tmp_path, plain)

    assert refused == []
    assert [UNREACHABLE in line for line in warned] == [True, True]
    assert all("localhost.localdomain" in line for line in warned)


def test_data_that_would_be_left_behind_is_refused(tmp_path: Path) -> None:
    refused, _ = checked(
        ours("postgres"), tmp_path, {"database": {"host": "db.example.com", "tls": "disable"}}
    )

    (line,) = refused
    assert "dify:database.host: db.example.com: the stack has a database of its own" in line
    assert "kubectl --context test --namespace dify-unit exec statefulset/db-postgres" in line


def test_a_cluster_whose_dns_has_another_name(tmp_path: Path) -> None:
    answers = ours("postgres")
    del answers.objects[KUBE_DNS]

    refused, _ = checked(answers, tmp_path, {"database": {"host": "db.example.com", "tls": "disable"}})

    assert "dify:database.host: db.example.com: the cluster has no Service kube-dns" in refused[0]


def test_a_stack_with_its_own_data_needs_no_such_name(tmp_path: Path) -> None:
    assert checked(Answers(), tmp_path, {}) == ([], [])
