"""A stack with two pods of what answers, under a steady load: new pods, a drained node, a node that is killed."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import httpx
import pytest

from support.stacks import wait_until
from tests.cluster.docker import docker
from tests.cluster.lifecycle import Cluster
from tests.integration.cluster.load import longest_gap, steady_load, watched
from tests.integration.cluster.stacks import TENANT, ClusterStack, ready_pods

Tell = Callable[[str], None]
SCALED = ("api", "gateway", "nginx", "web")
# Kubernetes replaces these on another node; a pod of a StatefulSet keeps its name until its node is deleted.
MOVED = ("api", "gateway", "web")
TOKENS = 10
MOVE_SECONDS, DRAIN_SECONDS, READY_SECONDS = 180, 240, 240
# What has two pods is never without one for longer, also while a node is lost.
LONGEST_GAP_SECONDS = 30
# After a node is not ready, kube-proxy of the others learns that its pods are gone.
PROPAGATION_SECONDS = 3
QUIET_SECONDS = 20


@pytest.fixture(scope="module")
def spread(stack: ClusterStack) -> ClusterStack:
    """The stack with two pods of api, gateway, nginx and web; budgets of the LLM proxy need one nginx."""
    stack.set_config("llm.enabled", "false")
    for part in ("api", "gateway", "edge", "web"):
        stack.set_config(f"kubernetes.replicas.{part}", "2")
    stack.up()
    return stack


@pytest.fixture(scope="module")
def credentials(spread: ClusterStack) -> list[str]:
    """Return keys and tokens: the gateway is asked about each token every few seconds."""
    canary = spread.outputs(secrets_too=True)["oauthCanary"]
    asked = {
        "grant_type": "client_credentials",
        "client_id": canary["clientId"],
        "client_secret": canary["clientSecret"],
    }
    with httpx.Client(verify=spread.trust, timeout=20) as client:
        answers = [client.post(f"{spread.url}/oauth/token", data=asked) for _ in range(TOKENS)]
    assert {one.status_code for one in answers} == {200}, answers[0].text
    key = spread.app_key()
    return [one for answer in answers for one in (str(answer.json()["access_token"]), key)]


@pytest.fixture
def settled(spread: ClusterStack, cluster: Cluster) -> Iterator[None]:
    """Put one pod of each scaled service on each node, and all others on node1."""
    _cordon(cluster, "node2")
    single = [
        pod["metadata"]["name"]
        for pod in spread.get("pods", "--field-selector=spec.nodeName=node2,status.phase=Running")["items"]
        if pod["metadata"]["labels"]["dify-kit.service"] not in SCALED
    ]
    if single:
        spread.kubectl("delete", "pod", "--grace-period=10", *single, seconds=MOVE_SECONDS)
    _wait_ready(spread)
    cluster.kubectl("uncordon", "node2")
    _spread(spread, cluster)
    yield
    cluster.kubectl("uncordon", "node1", "node2")


def _cordon(cluster: Cluster, node: str) -> None:
    cluster.kubectl("cordon", node)


def _nodes_of(stack: ClusterStack, service: str) -> dict[str, str]:
    """Return pod -> node of the ready pods of a service."""
    found = stack.get("pods", f"--selector=dify-kit.service={service}")
    return {pod["metadata"]["name"]: pod["spec"]["nodeName"] for pod in ready_pods(found)}


def _wait_ready(stack: ClusterStack) -> None:
    """Wait until every workload has all of its pods ready."""

    def ready() -> bool:
        owners = [*stack.get("deployments")["items"], *stack.get("statefulsets")["items"]]
        found = Counter(
            one["metadata"]["labels"]["dify-kit.service"] for one in ready_pods(stack.get("pods"))
        )
        return all(found[one["metadata"]["name"]] >= one["spec"]["replicas"] for one in owners)

    wait_until(ready, seconds=READY_SECONDS, what="every pod of the stack is ready")


def _spread(stack: ClusterStack, cluster: Cluster) -> None:
    """Move one pod of each service whose pods share a node to the other node."""
    for node in ("node1", "node2"):
        moved = [
            next(iter(pods))
            for service in SCALED
            if set((pods := _nodes_of(stack, service)).values()) == {node}
        ]
        if moved:
            _cordon(cluster, node)
            stack.kubectl("delete", "pod", *moved, seconds=MOVE_SECONDS)
            _wait_ready(stack)
            cluster.kubectl("uncordon", node)
    for service in SCALED:
        both = partial(_on_both_nodes, stack, service)
        wait_until(both, seconds=READY_SECONDS, what=f"{service} runs on both nodes")


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Tell:
    """Lend what writes a line to the terminal: the figures of this page of the guide are taken from there."""
    plugins = request.config.pluginmanager
    reporter: Any = plugins.get_plugin("terminalreporter")
    capture: Any = plugins.get_plugin("capturemanager")

    def line(text: str) -> None:
        with capture.global_and_fixture_disabled():
            reporter.write_line(f"  {text}")

    return line


@pytest.mark.parametrize(
    "change",
    [
        ("api", "extraEnv.api.LOG_LEVEL", "WARNING"),
        ("gateway", f"oauth.tenants.{TENANT}.requests", "150"),
        ("nginx", "cors.v1[1]", "https://under-load.example.com"),
    ],
    ids=lambda change: change[0],
)
def test_new_pods_lose_no_request(
    spread: ClusterStack, credentials: list[str], tell: Tell, change: tuple[str, str, str]
) -> None:
    service, path, value = change
    before = set(_nodes_of(spread, service))
    with steady_load(f"{spread.url}/v1/parameters", credentials, spread.trust) as counted:
        time.sleep(3)
        spread.set_config(path, value)
        done = spread.up()
        time.sleep(QUIET_SECONDS / 2)

    after = set(_nodes_of(spread, service))
    tell(f"new pods of {service}: up {done.seconds:.0f} s; {counted.summary}")
    assert before
    assert not before & after, "the pods are the same"
    assert not counted.failed, counted.summary


def test_a_drained_node_loses_no_request(
    spread: ClusterStack, credentials: list[str], cluster: Cluster, settled: None, tell: Tell
) -> None:
    del settled
    time.sleep(QUIET_SECONDS)
    with steady_load(f"{spread.url}/v1/parameters", credentials, spread.trust) as counted:
        time.sleep(3)
        began = time.monotonic()
        options = ("--ignore-daemonsets", "--delete-emptydir-data", "--force", f"--timeout={DRAIN_SECONDS}s")
        cluster.kubectl("drain", "node2", *options, seconds=DRAIN_SECONDS + 30)
        took = time.monotonic() - began
        time.sleep(QUIET_SECONDS / 2)

    tell(f"drain: {took:.0f} s; {counted.summary}")
    assert {node for service in SCALED for node in _nodes_of(spread, service).values()} == {"node1"}
    assert not counted.failed, counted.failures(began)


def test_a_killed_node_costs_requests_only_until_the_cluster_knows(
    spread: ClusterStack, credentials: list[str], cluster: Cluster, settled: None, tell: Tell
) -> None:
    del settled
    time.sleep(QUIET_SECONDS)
    dead = cluster.plan.container(cluster.plan.nodes[1])
    try:
        with (
            steady_load(f"{spread.url}/v1/parameters", credentials, spread.trust) as counted,
            watched(lambda: {one for one in SCALED if _on_node1(spread, one)}) as seen,
        ):
            time.sleep(3)
            killed = time.monotonic()
            docker("kill", dead)
            wait_until(lambda: not _is_ready(cluster, "node2"), seconds=120, what="node2 is not ready")
            noticed = time.monotonic()
            wait_until(
                lambda: all(len(_on_node1(spread, service)) >= 2 for service in MOVED),
                seconds=READY_SECONDS,
                what="node1 has two ready pods of each service that is replaced",
            )
            replaced = time.monotonic()
            time.sleep(QUIET_SECONDS)
    finally:
        docker("start", dead)
        wait_until(lambda: _is_ready(cluster, "node2"), seconds=READY_SECONDS, what="node2 is ready again")

    until, after = counted.between(killed, noticed), counted.between(noticed + PROPAGATION_SECONDS)
    tell(f"killed node: noticed after {noticed - killed:.0f} s, replaced after {replaced - killed:.0f} s")
    tell(f"until noticed: {until.summary}")
    tell(f"afterwards: {after.summary}")
    gaps = {service: longest_gap(seen, service) for service in SCALED}
    tell(f"longest time without a ready pod on the node that is left: {max(gaps.values()):.0f} s")
    assert max(gaps.values()) <= LONGEST_GAP_SECONDS, gaps
    assert after.requests
    assert len(after.failed) <= len(after.requests) * 0.001, after.summary


def _on_both_nodes(stack: ClusterStack, service: str) -> bool:
    return len(set(_nodes_of(stack, service).values())) == 2


def _is_ready(cluster: Cluster, node: str) -> bool:
    conditions = cluster.get("node", node)["status"]["conditions"]
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _on_node1(stack: ClusterStack, service: str) -> list[str]:
    return [pod for pod, node in _nodes_of(stack, service).items() if node == "node1"]


def test_the_settings_are_those_of_the_cluster(spread: ClusterStack) -> None:
    # What the tests above did is no drift.
    assert spread.steps() == {}
