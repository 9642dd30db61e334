"""Three pods of nginx on the test cluster count as one, and an update of them loses no request."""

import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from infra.catalogue import ports
from infra.catalogue.images import local_builds
from infra.catalogue.releases import RELEASES
from infra.catalogue.selection import Selection
from infra.edge.ring import replica_names
from infra.settings.kubernetes import PRELOADED
from support.images import image_of
from support.stacks import Stack, settings_changed
from tests.cluster.lifecycle import Cluster
from tests.integration.cluster.stacks import remove_namespace

NODE_PORT = 30080
RELEASE = "1.17.1"
COUNT = 3
EVERY_SECONDS = 0.1
# Which the frontend asks for before a sign-in. It passes the owners of the session and of the address.
PATH = "/console/api/setup"


def namespace(stack: Stack) -> str:
    """Return the namespace of a stack."""
    return f"dify-{stack.name}"


@pytest.fixture(scope="module")
def stack(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack with three pods of nginx, where five requests a minute pass on /v1."""
    chosen = Selection(release=RELEASES[RELEASE].services, vector_store="pgvector")
    roles = {one.image for one in chosen.services().values()} & set(local_builds())
    cluster.load(*sorted({image_of(role) for role in roles}))
    stack = Stack(home=tmp_path_factory.mktemp("home"), release=RELEASE, port=cluster.port(NODE_PORT))
    try:
        created = stack.init(
            set=(
                "platform=kubernetes",
                f"kubernetes.kubeconfig={cluster.kubeconfig}",
                f"kubernetes.context={cluster.name}",
                "kubernetes.serviceType=NodePort",
                f"kubernetes.nodePort={NODE_PORT}",
                f"kubernetes.registry={PRELOADED}",
                "kubernetes.externalTrafficPolicy=Cluster",
                f"kubernetes.replicas.edge={COUNT}",
                "rateLimits.v1.requests=5",
                "rateLimits.v1.seconds=60",
                "rateLimits.v1.concurrent=0",
            )
        )
        assert created.code == 0, created.output
        stack.up()
        yield stack
    finally:
        remove_namespace(cluster, namespace(stack))
        stack.remove()


@contextmanager
def load(url: str) -> Iterator[list[str]]:
    """Send requests at a steady rate, each on a connection of its own, so that each may reach another pod.

    Yields the list of what came back, which is complete after the block.
    """
    found: list[str] = []
    end = threading.Event()

    def run() -> None:
        while not end.wait(EVERY_SECONDS):
            try:
                found.append(str(httpx.get(f"{url}{PATH}", timeout=60).status_code))
            except httpx.TransportError as problem:
                found.append(repr(problem))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield found
    finally:
        end.set()
        thread.join()


def statuses(stack: Stack, count: int) -> list[int]:
    """Return the statuses of requests with one new credential, each on a connection of its own."""
    headers = {"Authorization": f"Bearer app-{secrets.token_urlsafe(18)}"}
    return [httpx.get(f"{stack.url}/v1/info", headers=headers, timeout=30).status_code for _ in range(count)]


def revisions(cluster: Cluster, stack: Stack) -> dict[str, str]:
    """Return what configuration each pod of nginx serves."""
    command = ("curl", "-s", f"http://127.0.0.1:{ports.EDGE_STATUS}/revision")
    return {
        name: cluster.kubectl("exec", "--namespace", namespace(stack), name, "--", *command)
        for name in replica_names(COUNT)
    }


def test_exactly_five_of_twenty_pass(stack: Stack) -> None:
    # Dify refuses the made-up key with a 401.
    assert statuses(stack, 20) == [401] * 5 + [429] * 15


def test_no_other_pod_reaches_the_port_of_the_replicas(cluster: Cluster, stack: Stack) -> None:
    script = (
        "import socket,sys\n"
        "for port in sys.argv[2:]:\n"
        "    try:\n"
        "        socket.create_connection((sys.argv[1], int(port)), timeout=3).close()\n"
        "        print(port)\n"
        "    except OSError:\n"
        "        pass\n"
    )
    tried = (str(ports.EDGE_HTTP), str(ports.EDGE_RING))
    for pod in cluster.get("pods", "--namespace", namespace(stack), "-l", "dify-kit.service=nginx")["items"]:
        reached = cluster.kubectl(
            *("exec", "--namespace", namespace(stack), "deployment/api", "--"),
            *("python3", "-c", script, pod["status"]["podIP"], *tried),
        )
        assert reached.split() == [str(ports.EDGE_HTTP)]


def test_a_new_configuration_reaches_every_pod_and_loses_no_request(cluster: Cluster, stack: Stack) -> None:
    before = revisions(cluster, stack)
    origin = "https://another.example.com"
    with load(stack.url) as found, settings_changed(stack, {"cors.v1[0]": origin}):
        stack.up()
        after = revisions(cluster, stack)

    assert len(set(before.values())) == len(set(after.values())) == 1
    assert set(before.values()) != set(after.values())
    assert set(found) == {"200"}, found
    assert statuses(stack, 20) == [401] * 5 + [429] * 15


def test_a_configuration_that_nginx_rejects_leaves_the_other_pods_alone(
    cluster: Cluster, stack: Stack, tmp_path: Path
) -> None:
    snippet = tmp_path / "nginx" / "snippets" / "server" / "broken.conf.j2"
    snippet.parent.mkdir(parents=True)
    snippet.write_text("no_such_directive on;\n", encoding="utf-8")
    before = revisions(cluster, stack)
    with load(stack.url) as found:
        with settings_changed(stack, {"templatesDir": str(tmp_path)}):
            failed = stack.pulumi("up", "--yes", "--skip-preview")
        left = [name for name in replica_names(COUNT) if name != replica_names(COUNT)[-1]]
        served = {
            cluster.kubectl(
                *("exec", "--namespace", namespace(stack), name, "--"),
                *("curl", "-s", f"http://127.0.0.1:{ports.EDGE_STATUS}/revision"),
            )
            for name in left
        }

    assert failed.code != 0
    assert "no_such_directive" in failed.output, failed.output[-3000:]
    assert served <= set(before.values())
    assert set(found) == {"200"}, found
    stack.up()
    assert len(set(revisions(cluster, stack).values())) == 1


def services(cluster: Cluster, stack: Stack) -> dict[str, str]:
    """Return the uid of each Service by its name."""
    found = cluster.get("services", "--namespace", namespace(stack))["items"]
    return {one["metadata"]["name"]: one["metadata"]["uid"] for one in found}


def test_a_lost_pod_comes_back_and_costs_no_request(cluster: Cluster, stack: Stack) -> None:
    with load(stack.url) as found:
        cluster.kubectl("delete", "pod", replica_names(COUNT)[1], "--namespace", namespace(stack))
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            status = cluster.get("statefulset", "nginx", "--namespace", namespace(stack))["status"]
            if status.get("readyReplicas") == COUNT:
                break
            time.sleep(1)

    assert status.get("readyReplicas") == COUNT, status
    assert set(found) == {"200"}, found
    assert statuses(stack, 20) == [401] * 5 + [429] * 15


def test_one_pod_takes_the_place_of_three_and_the_services_stay(cluster: Cluster, stack: Stack) -> None:
    before = services(cluster, stack)
    stack.set_config("kubernetes.replicas.edge", "1")
    stack.up()

    assert services(cluster, stack) == {
        name: uid for name, uid in before.items() if name not in replica_names(COUNT)
    }
    assert cluster.get("deployment", "nginx", "--namespace", namespace(stack))["status"]["readyReplicas"] == 1
    assert statuses(stack, 20) == [401] * 5 + [429] * 15
