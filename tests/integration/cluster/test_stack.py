"""A stack on the test cluster: deployed, used, left alone by a second `up`, repaired, broken, taken down, adopted."""

import json
import re
from collections.abc import Iterator

import httpx
import pytest

from infra.catalogue.images import local_builds
from infra.catalogue.releases import RELEASES
from infra.catalogue.selection import Selection
from infra.catalogue.services import SERVICES
from infra.settings.kubernetes import PRELOADED
from support.stacks import Done, Stack, settings_changed
from tests.cluster.lifecycle import Cluster
from tests.integration.images import image_of

NODE_PORT = 30080
RELEASE = "1.17.1"


def load_images(cluster: Cluster) -> None:
    """Build the images of a stack, and load them into every node."""
    chosen = Selection(release=RELEASES[RELEASE].services, vector_store="pgvector")
    roles = {one.image for one in chosen.services().values()} & set(local_builds())
    cluster.load(*sorted({image_of(role) for role in roles}))


@pytest.fixture(scope="module")
def stack(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack, deployed in a namespace of its own."""
    load_images(cluster)
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
                # Clients of this machine come by node1; the pod of nginx may be on the other one.
                "kubernetes.externalTrafficPolicy=Cluster",
            )
        )
        assert created.code == 0, created.output
        stack.first = stack.up()
        yield stack
    finally:
        cluster.kubectl("delete", "namespace", namespace(stack), "--ignore-not-found", "--wait=false")
        stack.remove()


def namespace(stack: Stack) -> str:
    return f"dify-{stack.name}"


def chat(stack: Stack, query: str, **more: str) -> httpx.Response:
    key = stack.outputs(secrets_too=True)["appKeys"]["echo-chat"]
    return httpx.post(
        f"{stack.url}/v1/chat-messages",
        headers={"Authorization": f"Bearer {key}"},
        json={"inputs": {}, "query": query, "user": "integration", "auto_generate_name": False} | more,
        timeout=30,
    )


def pods(cluster: Cluster, stack: Stack) -> dict[str, str]:
    """Return pod -> uid of the pods that run."""
    found = cluster.get("pods", "--namespace", namespace(stack))["items"]
    return {
        one["metadata"]["name"]: one["metadata"]["uid"]
        for one in found
        if one["status"]["phase"] == "Running" and "deletionTimestamp" not in one["metadata"]
    }


def inside(cluster: Cluster, stack: Stack, workload: str, *command: str) -> str:
    return cluster.kubectl("exec", "--namespace", namespace(stack), workload, "--", *command)


def changes(done: Done, stack: Stack) -> dict[str, int]:
    """Return the changes of the last update."""
    assert done.code == 0, done.output
    history = json.loads(stack.pulumi("stack", "history", "--json", "--page-size", "1").stdout)
    found: dict[str, int] = history[0]["resourceChanges"]
    return found


def test_it_answers_through_a_node(stack: Stack) -> None:
    healthy = httpx.get(f"{stack.url}/healthz", timeout=20)
    answer = chat(stack, "is anybody there?")

    assert (healthy.status_code, healthy.json()["status"]) == (200, "ok")
    assert answer.status_code == 200, answer.text
    assert "is anybody there?" in answer.json()["answer"]


def test_the_smoke_tests_pass_from_outside(stack: Stack) -> None:
    done = stack.smoke()

    assert done.code == 0, done.output[-6000:]
    assert re.search(r"\d+ passed", done.output)


def test_a_second_up_changes_nothing(cluster: Cluster, stack: Stack) -> None:
    before = pods(cluster, stack)

    assert set(changes(stack.up(), stack)) == {"same"}

    assert pods(cluster, stack) == before
    assert stack.steps("--refresh") == {}


def test_what_was_deleted_by_hand_is_drift_and_only_that_is_repaired(cluster: Cluster, stack: Stack) -> None:
    before = pods(cluster, stack)
    cluster.kubectl("delete", "deployment", "web", "--namespace", namespace(stack))

    drift = stack.steps("--refresh")
    stack.up()

    assert set(drift) - {f"dify-{stack.name}"} == {"web", "web-ready"}
    after = pods(cluster, stack)
    assert {name for name in before if before[name] != after.get(name)} == {
        name for name in before if name.startswith("web-")
    }
    assert chat(stack, "and now?").status_code == 200


def test_what_a_person_scaled_does_not_block_the_next_up(cluster: Cluster, stack: Stack) -> None:
    scale = ("scale", "deployment", "web", "--replicas=0", "--namespace", namespace(stack))
    cluster.kubectl(*scale)

    stack.up()

    found = cluster.get("deployment", "web", "--namespace", namespace(stack))
    assert found["spec"]["replicas"] == 1
    assert found["status"]["readyReplicas"] == 1


def test_a_pod_of_a_sandbox_reaches_its_own_networks_alone(cluster: Cluster, stack: Stack) -> None:
    services = cluster.get("services", "--namespace", namespace(stack))["items"]
    targets = {
        f"{one['metadata']['name']}:{port['port']}": f"{one['spec']['clusterIP']}:{port['port']}"
        for one in services
        for port in one["spec"]["ports"]
    }
    nodes = [node.address for node in cluster.plan.nodes]
    targets |= {f"kubelet of {one}": f"{one}:10250" for one in nodes}
    targets |= {"kubernetes": "10.96.0.1:443", "metadata": "169.254.169.254:80"}
    assert {"db-postgres:5432", "redis:6379", "pgvector:5432", "plugin-daemon:5002"} <= set(targets)
    script = (
        "import json,socket,sys\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "def reached(target):\n"
        "    host, port = target.rsplit(':', 1)\n"
        "    try:\n"
        "        socket.create_connection((host, int(port)), timeout=3).close()\n"
        "    except OSError:\n"
        "        return False\n"
        "    return True\n"
        "targets = json.loads(sys.argv[1])\n"
        "with ThreadPoolExecutor(32) as pool:\n"
        "    found = dict(zip(targets, pool.map(reached, targets.values())))\n"
        "print(json.dumps(sorted(name for name, one in found.items() if one)))\n"
    )
    for sandbox in ("sandbox", "local-sandbox"):
        networks = set(SERVICES[sandbox].networks)
        peers = {name for name, one in SERVICES.items() if networks & set(one.networks)}
        output = inside(cluster, stack, f"deployment/{sandbox}", "python3", "-c", script, json.dumps(targets))
        reached = {name.partition(":")[0] for name in json.loads(output)}
        # The proxy is reached, so the probe works.
        assert {name for name in reached if name.endswith("ssrf-proxy")}
        assert sorted(reached - peers) == [], sandbox


def test_a_bad_image_fails_with_the_reason_and_the_old_pods_stay(cluster: Cluster, stack: Stack) -> None:
    before = pods(cluster, stack)
    with settings_changed(stack, {"kubernetes.registry": "127.0.0.1:9/nowhere"}):
        # `dify-kit up` would fail earlier: it pushes the images there.
        failed = stack.pulumi("up", "--yes", "--skip-preview")
        while_broken = chat(stack, "still there?")

    assert failed.code != 0
    assert "127.0.0.1:9/nowhere" in failed.output, failed.output[-3000:]
    assert while_broken.status_code == 200
    stack.up()
    assert {name for name in before if name.startswith(("api-", "nginx-"))} <= set(pods(cluster, stack))


def test_a_configuration_that_nginx_takes_goes_live(stack: Stack) -> None:
    origin = "https://another.example.com"
    with settings_changed(stack, {"cors.v1[0]": origin}):
        stack.up()
        answer = httpx.options(
            f"{stack.url}/v1/info",
            headers={"Origin": origin, "Access-Control-Request-Method": "GET"},
            timeout=20,
        )
        assert answer.headers["Access-Control-Allow-Origin"] == origin
    stack.up()


def test_down_keeps_the_claims_and_up_adopts_them(cluster: Cluster, stack: Stack) -> None:
    said = chat(stack, "remember this").json()
    claims = {
        one["metadata"]["name"]: one["metadata"]["uid"]
        for one in cluster.get("persistentvolumeclaims", "--namespace", namespace(stack))["items"]
    }

    stack.down()
    for kind in ("deployments", "statefulsets", "jobs", "services", "secrets", "networkpolicies"):
        assert cluster.get(kind, "--namespace", namespace(stack))["items"] == [], kind
    stack.up()

    after = cluster.get("persistentvolumeclaims", "--namespace", namespace(stack))["items"]
    assert {one["metadata"]["name"]: one["metadata"]["uid"] for one in after} == claims
    again = chat(stack, "what did I say?", conversation_id=said["conversation_id"])
    assert again.status_code == 200, again.text
