"""What the command line makes and changes on a cluster by itself, outside of Pulumi: for a backup and a restore."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from infra.engine.cluster import NOT_FOUND, TIMEOUT_SECONDS, Cluster, ClusterError

CONFLICT = 409
POLL_SECONDS = 0.5
_MERGE = "application/merge-patch+json"


def create(cluster: Cluster, manifest: Mapping[str, Any], namespace: str = "") -> bool:
    """Create a namespace, a claim, a pod or a NetworkPolicy; return False where one of that name is there."""
    from kubernetes import client as api  # noqa: PLC0415
    from kubernetes.client.exceptions import ApiException  # noqa: PLC0415

    core = cluster.core
    makers = {
        "Namespace": core.create_namespace,
        "PersistentVolumeClaim": core.create_namespaced_persistent_volume_claim,
        "Pod": core.create_namespaced_pod,
        "NetworkPolicy": api.NetworkingV1Api(core.api_client).create_namespaced_network_policy,
    }
    kind, name = str(manifest["kind"]), str(manifest["metadata"]["name"])
    place = [namespace] if namespace else []
    with cluster.asking(f"creating {kind} {name}"):
        try:
            makers[kind](*place, dict(manifest), _preload_content=False, _request_timeout=TIMEOUT_SECONDS)
        except ApiException as problem:
            if problem.status != CONFLICT:
                raise
            return False
    return True


def delete_pod_now(cluster: Cluster, namespace: str, name: str) -> None:
    """Delete a pod without a grace period; a missing one is no error."""
    from kubernetes.client.exceptions import ApiException  # noqa: PLC0415

    with cluster.asking(f"deleting pod {name}"):
        try:
            cluster.core.delete_namespaced_pod(
                name,
                namespace,
                grace_period_seconds=0,
                _preload_content=False,
                _request_timeout=TIMEOUT_SECONDS,
            )
        except ApiException as problem:
            if problem.status != NOT_FOUND:
                raise


def scale(cluster: Cluster, namespace: str, name: str, replicas: int, kind: str = "StatefulSet") -> None:
    """Set the number of pods of a StatefulSet or a Deployment."""
    from kubernetes import client as api  # noqa: PLC0415

    apps = api.AppsV1Api(cluster.core.api_client)
    scalers = {
        "StatefulSet": apps.patch_namespaced_stateful_set_scale,
        "Deployment": apps.patch_namespaced_deployment_scale,
    }
    with cluster.asking(f"scaling {kind} {name}"):
        scalers[kind](
            name,
            namespace,
            {"spec": {"replicas": replicas}},
            _preload_content=False,
            _request_timeout=TIMEOUT_SECONDS,
            _content_type=_MERGE,
        )


def wait(what: str, seconds: float, over: Callable[[], str]) -> None:
    """Return when `over` returns nothing. Raises ClusterError with the last that it returned after `seconds`."""
    deadline = time.monotonic() + seconds
    while seen := over():
        if time.monotonic() >= deadline:
            raise ClusterError(f"{what} did not happen within {seconds:.0f} s: {seen}", "run it again")
        time.sleep(POLL_SECONDS)
