"""A stack under a steady load: new pods of nginx, then of what has two pods, a drained node, a node that is killed."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import httpx
import pytest

from infra.catalogue import ports
from infra.catalogue.services import LLM_EDGE
from infra.edge.owner import HOLD_SECONDS
from support.stacks import wait_until
from tests.cluster.docker import docker
from tests.cluster.lifecycle import Cluster
from tests.integration.cluster.load import longest_gap, steady_load, watched
from tests.integration.cluster.provider import MODEL
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


def test_a_new_configuration_of_the_only_nginx_loses_no_request(stack: ClusterStack, tell: Tell) -> None:
    before = _uids_of(stack, "nginx")
    with steady_load(f"{stack.url}/v1/parameters", [stack.app_key()], stack.trust) as counted:
        time.sleep(3)
        stack.set_config("cors.v1[1]", "https://alone.example.com")
        done = stack.up()
        time.sleep(QUIET_SECONDS / 2)

    tell(f"a new pod of nginx, which has one: up {done.seconds:.0f} s; {counted.summary}")
    assert len(before) == 1
    assert not before & _uids_of(stack, "nginx"), "the pod is the same"
    assert not counted.failed, counted.summary


@pytest.fixture(scope="module")
def spread(stack: ClusterStack) -> ClusterStack:
    """The stack with two pods of api, gateway, nginx and web; one pod counts for the LLM proxy."""
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


def _uids_of(stack: ClusterStack, service: str) -> set[str]:
    """Return what tells the ready pods of a service from others, which may have the same names."""
    found = stack.get("pods", f"--selector=dify-kit.service={service}")
    return {str(pod["metadata"]["uid"]) for pod in ready_pods(found)}


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


@pytest.mark.parametrize(
    "change",
    [
        ("api", "extraEnv.api.LOG_LEVEL", "WARNING"),
        ("gateway", f"oauth.tenants.{TENANT}.requests", "150"),
        # The LLM proxy is on.
        ("nginx", "cors.v1[2]", "https://under-load.example.com"),
    ],
    ids=lambda change: change[0],
)
def test_new_pods_lose_no_request(
    spread: ClusterStack, credentials: list[str], tell: Tell, change: tuple[str, str, str]
) -> None:
    service, path, value = change
    before = _uids_of(spread, service)
    with steady_load(f"{spread.url}/v1/parameters", credentials, spread.trust) as counted:
        time.sleep(3)
        spread.set_config(path, value)
        done = spread.up()
        time.sleep(QUIET_SECONDS / 2)

    after = _uids_of(spread, service)
    tell(f"new pods of {service}: up {done.seconds:.0f} s; {counted.summary}")
    assert before
    assert not before & after, "the pods are the same"
    assert not counted.failed, counted.summary


@contextmanager
def calls_of_the_proxy(stack: ClusterStack, key: str) -> Iterator[list[tuple[str, float]]]:
    """Call the LLM proxy a few times a second while the block runs, each time on a connection of its own.

    Yields the status or error of each call and how long it took, in seconds; complete after the block.
    """
    found: list[tuple[str, float]] = []
    ended = threading.Event()
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 20}

    def work() -> None:
        while not ended.wait(0.2):
            began = time.monotonic()
            try:
                answer = httpx.post(
                    f"{stack.url}/llm/v1/chat/completions",
                    headers={"Authorization": f"Bearer {key}"},
                    json=body,
                    timeout=120,
                    verify=stack.trust,
                )
                outcome = str(answer.status_code)
            except httpx.HTTPError as problem:
                outcome = repr(problem)
            found.append((outcome, time.monotonic() - began))

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    try:
        yield found
    finally:
        ended.set()
        for worker in workers:
            worker.join(timeout=150)


@pytest.fixture(scope="module")
def caller(spread: ClusterStack) -> str:
    """Return the key of a caller of the LLM proxy without limits."""
    issued = spread.kit("keys", "issue", "load", "--requests-per-minute", "0", "--concurrent", "0")
    assert issued.code == 0, issued.output
    spread.up()
    return issued.stdout.strip()


def test_a_new_owner_of_the_counts_delays_calls_and_fails_none(
    spread: ClusterStack, caller: str, tell: Tell
) -> None:
    owner, edges = _uids_of(spread, LLM_EDGE), _uids_of(spread, "nginx")
    with (
        # By Dify's key: on a machine with too much to do, an introspection of a token may take too long.
        steady_load(f"{spread.url}/v1/parameters", [spread.app_key()], spread.trust) as counted,
        calls_of_the_proxy(spread, caller) as calls,
    ):
        time.sleep(3)
        spread.set_config("llm.limits.requests", "77")
        done = spread.up()
        time.sleep(QUIET_SECONDS / 2)

    longest = max(seconds for _, seconds in calls)
    tell(f"new owner: up {done.seconds:.0f} s; {counted.summary}")
    tell(f"{len(calls)} calls of the LLM proxy, the longest took {longest:.1f} s")
    assert not owner & _uids_of(spread, LLM_EDGE), "the pod is the same"
    assert edges == _uids_of(spread, "nginx"), "other pods were replaced"
    assert not counted.failed, counted.summary
    assert {outcome for outcome, _ in calls} == {"200"}, calls
    assert longest < HOLD_SECONDS


def test_nginx_alone_reaches_the_owner_of_the_counts(spread: ClusterStack) -> None:
    script = (
        "import socket,sys\n"
        "for port in sys.argv[2:]:\n"
        "    try:\n"
        "        socket.create_connection((sys.argv[1], int(port)), timeout=3).close()\n"
        "        print(port)\n"
        "    except OSError:\n"
        "        pass\n"
    )
    tried = [
        str(port) for port in (ports.EDGE_LLM, ports.EDGE_OWNER, ports.EDGE_OWNER_INSIDE, ports.EDGE_STATUS)
    ]

    def reached(service: str) -> list[str]:
        (pod, *_) = ready_pods(spread.get("pods", f"--selector=dify-kit.service={service}"))
        words = ("exec", "deployment/api", "--", "python3", "-c", script, pod["status"]["podIP"], *tried)
        return spread.kubectl(*words).split()

    assert reached("nginx") == [str(ports.EDGE_LLM)]
    assert reached(LLM_EDGE) == []


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
