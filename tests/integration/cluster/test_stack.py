"""A stack on the test cluster: deployed, used, left alone by a second `up`, repaired, broken, taken down, adopted."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

import httpx
import pytest

from infra.catalogue.services import SERVICES
from infra.platforms.kubernetes.workloads import EDGE
from support.stacks import Done, settings_changed
from tests.cluster import programs
from tests.cluster.lifecycle import Cluster
from tests.integration.cluster.provider import MODEL
from tests.integration.cluster.stacks import ClusterStack

SETTLED = ("deployments", "statefulsets", "jobs", "services", "secrets", "networkpolicies")


@dataclass(frozen=True, kw_only=True)
class Before:
    """What a stack had: a conversation, and its claims by name with their uid."""

    conversation: str
    claims: Mapping[str, str]


def claims(stack: ClusterStack) -> dict[str, str]:
    """Return the uid of each claim by its name."""
    return {one["metadata"]["name"]: one["metadata"]["uid"] for one in stack.get("pvc")["items"]}


@pytest.mark.cluster_core
def test_it_answers_through_a_node(stack: ClusterStack) -> None:
    healthy = httpx.get(f"{stack.url}/healthz", timeout=20, verify=stack.trust)
    answer = stack.chat("is anybody there?")

    assert (healthy.status_code, healthy.json()["status"]) == (200, "ok")
    assert answer.status_code == 200, answer.text
    assert "is anybody there?" in answer.json()["answer"]


@pytest.mark.cluster_core
def test_plain_http_is_redirected_to_the_address_of_the_stack(cluster: Cluster, stack: ClusterStack) -> None:
    ports = stack.get("service", EDGE)["spec"]["ports"]
    (plain,) = [one["nodePort"] for one in ports if one["port"] == stack.port]

    answer = httpx.get(
        f"http://{cluster.plan.server.address}:{plain}/signin?a=b", headers={"Host": "localhost"}, timeout=20
    )

    assert (answer.status_code, answer.headers["Location"]) == (308, f"{stack.url}/signin?a=b")


def smoke(stack: ClusterStack) -> Done:
    """Run every smoke test that can run on a cluster."""
    # testinfra runs the cluster's own kubectl.
    path = f"{programs.HYPERKUBE.directory}:{os.environ['PATH']}"
    options = ("--ca-file", str(stack.ca_file), "--llm-key-file", str(stack.caller_key), "--llm-chat", MODEL)
    return stack.smoke(*options, "--browser", "none", PATH=path)


@pytest.mark.cluster_core
def test_every_smoke_test_passes(stack: ClusterStack) -> None:
    done = smoke(stack)

    assert done.code == 0, done.output[-6000:]
    assert re.search(r"\d+ passed", done.output)
    # What is left out is named with its reason: nothing of OAuth, the LLM proxy or TLS is.
    left_out = [line for line in done.output.splitlines() if "not tested" in line or "left out" in line]
    assert not [line for line in left_out if re.search("token|proxy|TLS|kubectl", line)], left_out


@pytest.mark.cluster_core
def test_a_second_up_changes_nothing(stack: ClusterStack) -> None:
    before = stack.pods()

    # It looks at every object, as `up` always does.
    assert set(stack.changes(stack.up())) == {"same"}

    assert stack.pods() == before


def test_what_was_deleted_by_hand_is_drift_and_only_that_is_repaired(stack: ClusterStack) -> None:
    before = stack.pods()
    stack.kubectl("delete", "deployment", "web")

    drift = stack.steps("--refresh")
    stack.up()

    assert set(drift) - {f"dify-{stack.name}"} == {"web", "web-ready"}
    after = stack.pods()
    assert {name for name in before if before[name] != after.get(name)} == {
        name for name in before if name.startswith("web-")
    }
    assert stack.chat("and now?").status_code == 200


def test_what_a_person_scaled_does_not_block_the_next_up(stack: ClusterStack) -> None:
    stack.kubectl("scale", "deployment", "web", "--replicas=0")

    stack.up()

    found = stack.get("deployment", "web")
    assert found["spec"]["replicas"] == 1
    assert found["status"]["readyReplicas"] == 1


@pytest.mark.cluster_core
def test_a_pod_of_a_sandbox_reaches_its_own_networks_alone(cluster: Cluster, stack: ClusterStack) -> None:
    targets = {
        f"{one['metadata']['name']}:{port['port']}": f"{one['spec']['clusterIP']}:{port['port']}"
        for one in stack.get("services")["items"]
        for port in one["spec"]["ports"]
    }
    nodes = [node.address for node in cluster.plan.nodes]
    targets |= {f"kubelet of {one}": f"{one}:10250" for one in nodes}
    targets |= {"kubernetes": "10.96.0.1:443", "metadata": "169.254.169.254:80"}
    stores = {"db-postgres:5432", "redis:6379", "pgvector:5432", "gateway-redis:6379"}
    assert stores | {"plugin-daemon:5002", "api:5001"} <= set(targets)
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
        command = ("exec", f"deployment/{sandbox}", "--", "python3", "-c", script, json.dumps(targets))
        reached = {name.partition(":")[0] for name in json.loads(stack.kubectl(*command))}
        # The proxy is reached, so the probe works.
        assert {name for name in reached if name.endswith("ssrf-proxy")}
        assert sorted(reached - peers) == [], sandbox


def test_a_bad_image_fails_with_the_reason_and_the_old_pods_stay(stack: ClusterStack) -> None:
    before = stack.pods()
    with settings_changed(stack, {"kubernetes.registry": "127.0.0.1:9/nowhere"}):
        # `dify-kit up` would fail earlier: it pushes the images there.
        failed = stack.pulumi("up", "--yes", "--skip-preview")
        while_broken = stack.chat("still there?")
    stack.set_config("kubernetes.registry", "preloaded")

    assert failed.code != 0
    assert "127.0.0.1:9/nowhere" in failed.output, failed.output[-3000:]
    assert while_broken.status_code == 200
    stack.up()
    assert {name for name in before if name.startswith(("api-", "nginx-"))} <= set(stack.pods())


def test_a_configuration_that_nginx_takes_goes_live(stack: ClusterStack) -> None:
    origin = "https://another.example.com"
    with settings_changed(stack, {"cors.v1[1]": origin}):
        stack.up()
        answer = httpx.options(
            f"{stack.url}/v1/info",
            headers={"Origin": origin, "Access-Control-Request-Method": "GET"},
            timeout=20,
            verify=stack.trust,
        )
        assert answer.headers["Access-Control-Allow-Origin"] == origin
    stack.up()


@pytest.fixture(scope="module")
def taken_down(stack: ClusterStack) -> Before:
    """Take the stack down, and return what it had. The next `up` brings it back."""
    said = stack.chat("remember this").json()
    before = Before(conversation=str(said["conversation_id"]), claims=claims(stack))
    stack.down()
    return before


@pytest.mark.cluster_core
def test_down_leaves_nothing_but_the_claims(stack: ClusterStack, taken_down: Before) -> None:
    for kind in SETTLED:
        assert stack.get(kind)["items"] == [], kind
    assert taken_down.claims
    assert claims(stack) == taken_down.claims


def test_up_adopts_the_claims(stack: ClusterStack, taken_down: Before) -> None:
    stack.up()

    assert claims(stack) == taken_down.claims
    again = stack.chat("what did I say?", conversation_id=taken_down.conversation)
    assert again.status_code == 200, again.text
