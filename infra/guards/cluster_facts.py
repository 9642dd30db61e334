"""A cluster as its guards look at it, and facts about it in their words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from infra.platforms.kubernetes import demand

DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
NODES, SERVICES = "/api/v1/nodes", "/api/v1/services"
CLASSES, VERSION = "/apis/storage.k8s.io/v1/storageclasses", "/version"
METRICS = "/apis/metrics.k8s.io/v1beta1"

Plain = Mapping[str, Any]


class View(Protocol):
    """A cluster, as far as its guards look at it. All raise ClusterError. Nothing here changes anything."""

    def namespace(self, name: str) -> Mapping[str, Any] | None:
        """Return a namespace; None when there is none of that name."""

    def secret_type(self, namespace: str, name: str) -> str | None:
        """Return the type of a Secret; None when there is none of that name."""

    def allowed(self, verb: str, group: str, resource: str, namespace: str = "") -> bool:
        """Tell whether the context's user may do something."""

    def claims(self, namespace: str) -> Mapping[str, Mapping[str, Any]]:
        """Return the claims of a namespace by name."""

    def look(self, path: str) -> Mapping[str, Any] | None:
        """Return the document at a path of the API; None where there is none, or the user may not read it."""

    def refused(self, path: str, manifest: Mapping[str, Any]) -> str:
        """Return why the cluster would not take a new object, by a dry run; empty where it would."""


def items(view: View, path: str) -> list[Plain] | None:
    """Return the objects of a list; None where the user may not read it."""
    found = view.look(path)
    return None if found is None else list(found.get("items") or [])


def of_namespace(namespace: str, resource: str) -> str:
    """Return the path of a list of the core group in a namespace."""
    return f"/api/v1/namespaces/{namespace}/{resource}"


def is_default(storage_class: Plain) -> bool:
    """Tell whether a storage class is the cluster's default one."""
    return (storage_class["metadata"].get("annotations") or {}).get(DEFAULT_CLASS) == "true"


@dataclass(frozen=True, kw_only=True)
class Node:
    """A node that takes pods: its architecture, and its bytes of memory, cores and pods by name of the resource."""

    name: str
    architecture: str
    allocatable: Mapping[str, float]


def ready_nodes(listed: Sequence[Plain]) -> list[Node]:
    """Return the nodes that are ready and not closed to pods that tolerate nothing."""
    return [
        Node(
            name=str(one["metadata"]["name"]),
            architecture=str((one["status"].get("nodeInfo") or {}).get("architecture") or ""),
            allocatable={
                kind: demand.amount((one["status"].get("allocatable") or {}).get(kind, 0))
                for kind in (*demand.RESOURCES, "pods")
            },
        )
        for one in listed
        if _ready(one)
    ]


def _ready(node: Plain) -> bool:
    spec = node.get("spec") or {}
    closed = any(one.get("effect") in {"NoSchedule", "NoExecute"} for one in spec.get("taints") or [])
    conditions = (node.get("status") or {}).get("conditions") or []
    healthy = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
    return healthy and not closed and not spec.get("unschedulable")
