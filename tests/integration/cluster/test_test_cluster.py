"""The test cluster: two nodes that run pods, resolve names, enforce policies, bind claims and load images."""

import json
import subprocess
from pathlib import Path
from typing import Any

import docker

from dify_kit.setup.base_images import BASE
from tests.cluster import docker as engine
from tests.cluster import lifecycle
from tests.cluster.lifecycle import Cluster
from tests.cluster.objects import STORAGE_CLASS
from tests.cluster.plan import LABEL
from tests.cluster.programs import KUBERNETES
from tests.integration.cluster.pods import (
    PORT,
    address,
    inside,
    reaches,
    shell,
    start,
    wait_reached,
    web,
)


def deny_all(namespace: str) -> dict[str, Any]:
    """Return a policy that forbids every way out of a namespace's pods."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "deny-all", "namespace": namespace},
        "spec": {"podSelector": {}, "policyTypes": ["Egress"]},
    }


def service(name: str, namespace: str, **spec: Any) -> dict[str, Any]:
    """Return a service of the pod with its name."""
    ports = [{"port": 80, "targetPort": PORT, **spec.pop("port", {})}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": {"app": name}, "ports": ports, **spec},
    }


def test_both_nodes_are_ready_with_the_version_of_the_module(cluster: Cluster) -> None:
    nodes = {one["metadata"]["name"]: one["status"] for one in cluster.get("nodes")["items"]}

    assert set(nodes) == {"node1", "node2"}
    for status in nodes.values():
        assert status["nodeInfo"]["kubeletVersion"] == f"v{KUBERNETES}"
        assert {one["type"]: one["status"] for one in status["conditions"]}["Ready"] == "True"


def test_the_kubeconfig_is_private(cluster: Cluster) -> None:
    assert cluster.kubeconfig.stat().st_mode & 0o777 == 0o600
    assert json.loads(cluster.kubectl("config", "view", "--output=json"))["current-context"] == cluster.name


def test_pods_find_services_by_name_and_reach_them_from_both_nodes(cluster: Cluster, namespace: str) -> None:
    start(
        cluster,
        namespace,
        web("web", namespace, "node2"),
        shell("near", namespace, "node2"),
        shell("far", namespace, "node1"),
    )
    cluster.apply(service("web", namespace))
    found = cluster.get("service", "web", "--namespace", namespace)["spec"]["clusterIP"]

    for pod in ("near", "far"):
        full = f"web.{namespace}.svc.cluster.local"
        assert found in inside(cluster, namespace, pod, "nslookup", full)
        wait_reached(cluster, namespace, pod, f"http://{full}/", wanted=True)
        # By the search domains of the pod.
        assert inside(cluster, namespace, pod, "wget", "-q", "-O", "-", "-T", "5", "http://web/") == "web"


def test_a_node_port_answers_on_this_machine(cluster: Cluster, namespace: str) -> None:
    start(cluster, namespace, web("front", namespace, "node2"), shell("client", namespace, "node1"))
    # Not that of the stack, which may run at the same time.
    cluster.apply(service("front", namespace, type="NodePort", port={"nodePort": 30443}))
    wait_reached(cluster, namespace, "client", "http://front/", wanted=True)

    url = f"http://127.0.0.1:{cluster.port(30443)}/"
    done = subprocess.run(
        ["curl", "-sS", "--noproxy", "*", "--retry", "10", "--retry-all-errors", "--max-time", "20", url],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.strip() == "front", done.stderr


def test_a_policy_that_denies_all_blocks_and_its_removal_opens(cluster: Cluster, namespace: str) -> None:
    start(
        cluster,
        namespace,
        web("near", namespace, "node1"),
        web("far", namespace, "node2"),
        shell("client", namespace, "node1"),
    )
    targets = [f"http://{address(cluster, namespace, pod)}:{PORT}/" for pod in ("near", "far")]
    for url in targets:
        assert reaches(cluster, namespace, "client", url)

    cluster.apply(deny_all(namespace))
    for url in targets:
        wait_reached(cluster, namespace, "client", url, wanted=False)
    # The pods' addresses are their own on both nodes: a policy elsewhere selects nothing of these.
    assert not any(reaches(cluster, namespace, "client", url) for url in targets)

    cluster.kubectl("delete", "networkpolicy", "deny-all", "--namespace", namespace)
    for url in targets:
        wait_reached(cluster, namespace, "client", url, wanted=True)


def test_a_service_without_endpoints_is_refused_under_a_policy(cluster: Cluster, namespace: str) -> None:
    allow = deny_all(namespace) | {"metadata": {"name": "allow-all", "namespace": namespace}}
    allow["spec"] = {**allow["spec"], "egress": [{}]}
    cluster.apply(allow, service("empty", namespace))
    start(cluster, namespace, shell("client", namespace, "node1"))
    empty = cluster.get("service", "empty", "--namespace", namespace)["spec"]["clusterIP"]

    # A way out of the cluster by its default route would be none of the policy's.
    assert not reaches(cluster, namespace, "client", f"http://{empty}/")


def test_a_claim_for_many_nodes_binds_and_is_shared(cluster: Cluster, namespace: str) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "files", "namespace": namespace},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Mi"}}},
    }
    cluster.apply(claim)
    start(
        cluster,
        namespace,
        shell("writer", namespace, "node1", claim="files"),
        shell("reader", namespace, "node2", claim="files"),
    )

    inside(cluster, namespace, "writer", "sh", "-c", "echo shared >/data/file")

    assert inside(cluster, namespace, "reader", "cat", "/data/file") == "shared"
    bound = cluster.get("pvc", "files", "--namespace", namespace)
    assert bound["status"]["phase"] == "Bound"
    assert bound["spec"]["storageClassName"] == STORAGE_CLASS


def test_images_of_the_engine_are_loaded_once_and_run_on_both_nodes(cluster: Cluster, namespace: str) -> None:
    name = f"dify-kit-test/{namespace}:1"
    assert docker.from_env().images.get(BASE).tag(*name.split(":"))
    try:
        assert cluster.load(name) == {"node1": [name], "node2": [name]}
        assert cluster.load(name) == {"node1": [], "node2": []}
    finally:
        docker.from_env().images.remove(name)
    pods = [shell(f"pod-{node}", namespace, node) for node in ("node1", "node2")]
    for pod in pods:
        pod["spec"]["containers"][0]["image"] = name

    start(cluster, namespace, *pods)

    assert "trixie" in inside(cluster, namespace, "pod-node2", "cat", "/etc/os-release")


def traces(name: str) -> dict[str, list[str]]:
    """Return what the engine has of a cluster, by kind."""
    label = f"label={LABEL}={name}"
    return {
        "containers": engine.docker("ps", "--all", "--quiet", "--no-trunc", "--filter", label).split(),
        "volumes": engine.docker("volume", "ls", "--quiet", "--filter", label).split(),
        "networks": engine.docker("network", "ls", "--quiet", "--filter", label).split(),
    }


def test_a_second_cluster_comes_up_again_and_leaves_nothing(cluster: Cluster) -> None:
    name = f"{cluster.name}-b"
    try:
        second = lifecycle.up(name)
        before = traces(name)
        assert {kind: len(found) for kind, found in before.items()} == {
            "containers": 2,
            "volumes": 1,
            "networks": 1,
        }
        assert second.plan.ports != cluster.plan.ports
        assert second.plan.subnet != cluster.plan.subnet
        anonymous = _anonymous_volumes(before["containers"])
        assert len(anonymous) == 6
        # A node that was killed is started again, with the same state.
        engine.docker("kill", second.plan.container(second.plan.nodes[1]))
        assert lifecycle.up(name) == second
        assert traces(name) == before
    finally:
        lifecycle.down(name)

    assert not any(traces(name).values())
    assert not second.kubeconfig.parent.exists()
    assert not anonymous & set(engine.docker("volume", "ls", "--quiet").split())
    for identity in before["containers"]:
        assert not list(Path("/sys/fs/cgroup").glob(f"*/docker/{identity}"))
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    assert not [volume for volume in anonymous if volume in mounts]
    # The other one is untouched.
    assert len(cluster.get("nodes")["items"]) == 2


def _anonymous_volumes(containers: list[str]) -> set[str]:
    found = json.loads(engine.docker("inspect", *containers))
    named = {mount["Name"] for one in found for mount in one["Mounts"] if mount["Type"] == "volume"}
    return {volume for volume in named if len(volume) == 64}
