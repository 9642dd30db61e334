"""Pods of tests: a shell on a node of choice."""

from collections.abc import Mapping
from typing import Any

from dify_kit.errors import KitError
from support.stacks import wait_until
from tests.cluster.components import HELPER_IMAGE
from tests.cluster.lifecycle import Cluster

START_SECONDS = 60
TIMEOUT_SECONDS = 2
PORT = 8080


def shell(
    name: str, namespace: str, node: str, *, script: str = "sleep 3600", claim: str = ""
) -> dict[str, Any]:
    """Return a pod that runs a script on a node; with a claim, its volume is at /data."""
    volumes = {"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]} if claim else {}
    mounts = {"volumeMounts": [{"name": "data", "mountPath": "/data"}]} if claim else {}
    container = {
        "name": "shell",
        "image": HELPER_IMAGE,
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", script],
        **mounts,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "spec": {
            # Through the scheduler, which binds claims; `nodeName` would pass it by.
            "nodeSelector": {"kubernetes.io/hostname": node},
            "terminationGracePeriodSeconds": 0,
            "containers": [container],
            **volumes,
        },
    }


def web(name: str, namespace: str, node: str) -> dict[str, Any]:
    """Return a pod that serves a page with its name."""
    serve = f"mkdir -p /tmp/w && echo {name} >/tmp/w/index.html && exec httpd -f -p {PORT} -h /tmp/w"
    return shell(name, namespace, node, script=serve)


def start(cluster: Cluster, namespace: str, *pods: Mapping[str, Any]) -> None:
    """Create pods and wait until each is ready."""
    cluster.apply(*pods)
    names = [f"pod/{pod['metadata']['name']}" for pod in pods]
    wait = ("wait", "--for=condition=Ready", f"--timeout={START_SECONDS}s", "--namespace", namespace)
    cluster.kubectl(*wait, *names, seconds=START_SECONDS + 30)


def inside(cluster: Cluster, namespace: str, pod: str, *command: str) -> str:
    """Run a command in a pod and return its output. Raises KitError."""
    return cluster.kubectl("exec", "--namespace", namespace, pod, "--", *command)


def address(cluster: Cluster, namespace: str, pod: str) -> str:
    """Return a pod's address."""
    return str(cluster.get("pod", pod, "--namespace", namespace)["status"]["podIP"])


def reaches(cluster: Cluster, namespace: str, pod: str, url: str) -> bool:
    """Tell whether a pod gets an answer from a URL within two seconds."""
    try:
        inside(cluster, namespace, pod, "wget", "-q", "-O", "-", "-T", str(TIMEOUT_SECONDS), url)
    except KitError:
        return False
    return True


def wait_reached(cluster: Cluster, namespace: str, pod: str, url: str, *, wanted: bool) -> None:
    """Wait until a pod reaches a URL, or does not any more."""
    what = f"{pod} {'reaches' if wanted else 'no longer reaches'} {url}"
    wait_until(lambda: reaches(cluster, namespace, pod, url) is wanted, seconds=30, what=what)
