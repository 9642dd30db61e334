"""A stack with what its cluster and its operator bring: data servers, an Ingress, a Gateway, an autoscaler."""

import json
import secrets
from collections.abc import Iterator

import httpx
import pytest

from infra.platforms.kubernetes.workloads import EDGE
from infra.settings.kubernetes import PRELOADED
from support.stacks import Stack, wait_until
from tests.cluster.lifecycle import Cluster
from tests.cluster.plan import POD_RANGE
from tests.integration.cluster import gateway_api
from tests.integration.cluster.metrics import Metrics
from tests.integration.cluster.stacks import RELEASE, load_images, ready_pods, remove_namespace
from tests.integration.data_servers import DATABASE_NAME, REDIS_NAME, DataServers

HOST = "dify.example.com"
CLASS = GATEWAY = "stand-in"
CPU = 500
SCALE_SECONDS = 180
RESOLVE = "import socket, sys; print(*{socket.gethostbyname(one) for one in sys.argv[1:]})"


@pytest.fixture(scope="module")
def metrics(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Metrics]:
    found = Metrics(cluster, tmp_path_factory.mktemp("metrics"))
    try:
        found.start()
        wait_until(found.registered, seconds=60, what="the metrics API is registered")
        yield found
    finally:
        found.stop()


@pytest.fixture(scope="module")
def controllers(cluster: Cluster) -> Iterator[str]:
    """An IngressClass and a Gateway without a program behind them: the API server alone looks at routes.

    Yields the namespace of the Gateway.
    """
    namespace = f"gateways-{secrets.token_hex(3)}"
    of_nobody = {"controllerName": "example.com/none"}
    crds = gateway_api.definitions()
    try:
        for one in crds:
            cluster.kubectl("apply", "--server-side", "--filename", str(one))
            cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", "--filename", str(one))
        listener = {
            "name": "web",
            "port": 80,
            "protocol": "HTTP",
            "allowedRoutes": {"namespaces": {"from": "All"}},
        }
        version = f"{gateway_api.GROUP}/v1"
        cluster.apply(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
            {
                "apiVersion": "networking.k8s.io/v1",
                "kind": "IngressClass",
                "metadata": {"name": CLASS},
                "spec": {"controller": "example.com/none"},
            },
            {
                "apiVersion": version,
                "kind": "GatewayClass",
                "metadata": {"name": CLASS},
                "spec": of_nobody,
            },
            {
                "apiVersion": version,
                "kind": "Gateway",
                "metadata": {"name": GATEWAY, "namespace": namespace},
                "spec": {"gatewayClassName": CLASS, "listeners": [listener]},
            },
        )
        yield namespace
    finally:
        cluster.kubectl("delete", "namespace", namespace, "--ignore-not-found", "--wait=false")
        cluster.kubectl("delete", "ingressclass", CLASS, "--ignore-not-found")
        for one in crds:
            cluster.kubectl("delete", "--ignore-not-found", "--wait=false", "--filename", str(one))


@pytest.fixture(scope="module")
def stack(
    cluster: Cluster,
    servers: DataServers,
    metrics: Metrics,
    controllers: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stack]:
    del metrics
    load_images(cluster)
    stack = Stack(home=tmp_path_factory.mktemp("home"), release=RELEASE)
    kubernetes = {
        "kubeconfig": str(cluster.kubeconfig),
        "context": cluster.name,
        "registry": PRELOADED,
        "serviceType": "NodePort",
        "externalTrafficPolicy": "Cluster",
        "autoscale": {"web": {"max": 2}},
        "ingress": {
            "className": CLASS,
            "tlsSecret": "dify-tls",
            "annotations": {"cert-manager.io/cluster-issuer": "nobody"},
        },
        "gateway": {"name": GATEWAY, "namespace": controllers, "section": "web"},
    }
    given = {
        "platform": "kubernetes",
        "kubernetes": json.dumps(kubernetes),
        "publicUrl": f"https://{HOST}",
        "trustedProxies": json.dumps([POD_RANGE]),
        "database": json.dumps(servers.database),
        "redis": json.dumps(servers.redis),
        "resources": json.dumps({"web": {"cpus": CPU / 1000}}),
    }
    try:
        created = stack.init(set=[f"{key}={value}" for key, value in given.items()])
        assert created.code == 0, created.output
        for key in ("externalDatabasePassword", "externalRedisPassword"):
            done = stack.pulumi("config", "set", "--secret", f"dify:{key}", stdin=servers.password)
            assert done.code == 0, done.output
        stack.first = stack.up()
        yield stack
    finally:
        remove_namespace(cluster, f"dify-{stack.name}")
        stack.remove()


def namespace(stack: Stack) -> tuple[str, str]:
    """Return the option of `kubectl` for the namespace of a stack."""
    return "--namespace", f"dify-{stack.name}"


def test_chat_is_stored_in_the_external_database(
    cluster: Cluster, stack: Stack, servers: DataServers
) -> None:
    (port,) = cluster.get("service", EDGE, *namespace(stack))["spec"]["ports"]
    key = stack.outputs(secrets_too=True)["canaryKey"]

    answer = httpx.post(
        f"http://{cluster.plan.server.address}:{port['nodePort']}/v1/chat-messages",
        headers={"Authorization": f"Bearer {key}", "Host": HOST},
        json={"inputs": {}, "query": "to the outside", "user": "integration"},
        timeout=30,
    )

    assert answer.status_code == 200, answer.text
    assert servers.sql("select count(*) from messages where query = 'to the outside'", "dify") == "1"
    assert servers.sql("select count(*) from pg_tables where schemaname = 'public'", "dify_plugin") != "0"
    assert not cluster.get("statefulsets", *namespace(stack), "--selector=dify-kit.service=db-postgres")[
        "items"
    ]


def test_every_connection_to_the_database_is_by_tls(stack: Stack, servers: DataServers) -> None:
    assert stack.name
    ssl = "select bool_and(ssl), count(*) > 0 from pg_stat_ssl join pg_stat_activity using (pid) where usename = 'dify'"

    assert servers.sql(ssl) == "t|t"


def test_clients_reach_the_servers_through_the_proxy_alone(
    cluster: Cluster, stack: Stack, servers: DataServers
) -> None:
    proxy = cluster.get("service", "data-proxy", *namespace(stack))["spec"]["clusterIP"]
    names = (DATABASE_NAME, REDIS_NAME)

    found = cluster.kubectl(
        *("exec", *namespace(stack), "deployment/api", "--", "python3", "-c", RESOLVE, *names)
    )

    assert found.split() == [proxy]
    # The proxy itself has no way out, and leads to no other address.
    script = f"timeout 3 bash -c 'exec 3<>/dev/tcp/{servers.address}/{servers.database_port}' && echo reached"
    command = ("--", "bash", "-c", f"{script}; true")
    for pod, wanted in (("data-proxy", ""), ("data-egress", "reached")):
        assert cluster.kubectl("exec", *namespace(stack), f"deployment/{pod}", *command) == wanted, pod


def test_the_api_server_takes_both_routes(cluster: Cluster, stack: Stack, controllers: str) -> None:
    ingress = cluster.get("ingress", EDGE, *namespace(stack))
    route = cluster.get("httproute", EDGE, *namespace(stack))
    ports = {one["port"] for one in cluster.get("service", EDGE, *namespace(stack))["spec"]["ports"]}

    (rule,) = ingress["spec"]["rules"]
    assert rule["host"] == HOST
    assert rule["http"]["paths"][0]["backend"]["service"]["port"]["number"] in ports
    assert ingress["spec"]["tls"] == [{"hosts": [HOST], "secretName": "dify-tls"}]
    assert route["spec"]["hostnames"] == [HOST]
    (parent,) = route["spec"]["parentRefs"]
    assert (parent["name"], parent["namespace"], parent["sectionName"]) == (GATEWAY, controllers, "web")
    assert {one["port"] for one in route["spec"]["rules"][0]["backendRefs"]} <= ports


def test_the_cluster_chooses_the_number_of_pods_and_up_leaves_it(
    cluster: Cluster, stack: Stack, metrics: Metrics
) -> None:
    def pods() -> set[str]:
        found = cluster.get("pods", *namespace(stack), "--selector=dify-kit.service=web")
        return {pod["metadata"]["name"] for pod in ready_pods(found)}

    assert len(pods()) == 1
    metrics.millicores = CPU
    wait_until(lambda: len(pods()) == 2, seconds=SCALE_SECONDS, what="web has two ready pods")
    scaled = pods()

    stack.up()

    assert pods() == scaled
    assert cluster.get("deployment", "web", *namespace(stack))["spec"]["replicas"] == 2
    assert stack.steps("--refresh") == {}
