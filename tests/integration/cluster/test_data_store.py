"""The one pod of a data store: replaced by readiness, kept where the next image cannot be pulled."""

from typing import Any

import pytest

from infra.engine.cluster import Workload
from infra.resources.workload_probe import ClusterProbe
from infra.resources.workload_ready import NotReadyError, Wait
from tests.cluster.components import HELPER_IMAGE
from tests.cluster.lifecycle import Cluster
from tests.cluster.objects import DNS_IMAGE

NOWHERE = "127.0.0.1:9/nowhere/redis:1"
# An image of the nodes without the program that this store runs.
WITHOUT_PROGRAM = DNS_IMAGE
TIMEOUT_SECONDS = 90.0


class Store:
    """A StatefulSet as the kit makes them, of one sleeping pod."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster, self._namespace = cluster, namespace
        self.said: list[str] = []

    def deploy(self, image: str, *, value: str = "") -> None:
        """Create or change it, and wait. Raises NotReadyError."""
        labels = {"dify-kit.stack": "x", "dify-kit.service": "redis"}
        container = {
            "name": "redis",
            "image": image,
            "imagePullPolicy": "IfNotPresent",
            "command": ["sleep", "3600"],
            "env": [{"name": "VALUE", "value": value}],
            "securityContext": {"allowPrivilegeEscalation": False},
        }
        self._cluster.apply(
            {
                "apiVersion": "apps/v1",
                "kind": "StatefulSet",
                "metadata": {"name": "redis", "namespace": self._namespace, "labels": labels},
                "spec": {
                    "serviceName": "redis",
                    "replicas": 1,
                    "updateStrategy": {"type": "OnDelete"},
                    "selector": {"matchLabels": labels},
                    "template": {
                        "metadata": {"labels": labels},
                        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
                    },
                },
            }
        )
        at = Workload(
            kubeconfig=str(self._cluster.kubeconfig),
            context=self._cluster.name,
            namespace=self._namespace,
            kind="StatefulSet",
            name="redis",
        )
        Wait("redis", ClusterProbe(str(at)), TIMEOUT_SECONDS, self.said.append).run()

    def pods(self) -> list[tuple[str, str]]:
        """Return name and uid of every pod of the namespace, trials included."""
        found: list[dict[str, Any]] = self._cluster.get("pods", "--namespace", self._namespace)["items"]
        return [
            (one["metadata"]["name"], one["metadata"]["uid"])
            for one in found
            if not one["metadata"].get("deletionTimestamp")
        ]


def test_a_data_store_is_replaced_for_a_change_and_kept_for_an_image_that_cannot_be_pulled(
    cluster: Cluster, namespace: str
) -> None:
    store = Store(cluster, namespace)
    store.deploy(HELPER_IMAGE)
    (first,) = store.pods()

    store.deploy(HELPER_IMAGE, value="changed")
    (changed,) = store.pods()
    assert changed[0] == first[0]
    assert changed[1] != first[1]

    with pytest.raises(NotReadyError, match=f"{NOWHERE}.*pod redis-0 keeps running as before"):
        store.deploy(NOWHERE)
    assert store.pods() == [changed]

    # Nothing of it is left to be repaired.
    store.deploy(HELPER_IMAGE, value="changed")
    assert store.pods() == [changed]


def test_a_data_store_that_cannot_start_takes_its_corrected_template(
    cluster: Cluster, namespace: str
) -> None:
    store = Store(cluster, namespace)
    store.deploy(HELPER_IMAGE)

    # The image is on the node, so the pod is replaced, and its program is missing.
    with pytest.raises(NotReadyError, match=r"exited with code|executable file not found"):
        store.deploy(WITHOUT_PROGRAM)
    store.deploy(HELPER_IMAGE)

    assert len(store.pods()) == 1
    assert [line for line in store.said if "which cannot start" in line]
