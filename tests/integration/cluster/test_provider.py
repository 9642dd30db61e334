"""Pulumi's Kubernetes provider, as `dify-kit setup --kubernetes` installs it, on a real cluster."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dify_kit.setup import ensure_kubernetes_provider
from tests.cluster.components import HELPER_IMAGE
from tests.cluster.lifecycle import Cluster
from tests.integration.programs import Program

SOURCE = """
import json
import os
from pathlib import Path

import pulumi
from infra.platforms.kubernetes import PROVIDER_VERSION
from infra.platforms.kubernetes.objects import KubernetesObject

values = json.loads(os.environ["TEST_VALUES"])
provider = pulumi.ProviderResource(
    "kubernetes",
    "cluster",
    {"kubeconfig": pulumi.Output.secret(Path(values["kubeconfig"]).read_text()), "namespace": values["namespace"]},
    pulumi.ResourceOptions(version=PROVIDER_VERSION),
)
labels = {"app": "sleeper"}
KubernetesObject(
    "sleeper",
    {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "sleeper"},
        "spec": {
            "replicas": values["replicas"],
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "containers": [
                        {"name": "sleeper", "image": values["image"], "imagePullPolicy": "Never"},
                    ],
                },
            },
        },
    },
    pulumi.ResourceOptions(provider=provider),
)
"""


@dataclass(kw_only=True)
class Sleeper(Program):
    """A Deployment of pods that sleep."""

    kubeconfig: Path
    namespace: str
    replicas: int = 2

    @property
    def source(self) -> str:
        return SOURCE

    @property
    def values(self) -> dict[str, Any]:
        return {
            "kubeconfig": str(self.kubeconfig),
            "namespace": self.namespace,
            "replicas": self.replicas,
            "image": HELPER_IMAGE,
        }


def test_a_program_creates_changes_and_destroys_a_deployment(
    cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    ensure_kubernetes_provider()
    program = Sleeper(home=tmp_path / "program", kubeconfig=cluster.kubeconfig, namespace=namespace)

    def ready() -> int:
        found = cluster.get("deployment", "sleeper", "--namespace", namespace)
        return int(found["status"].get("readyReplicas", 0))

    # The stack, the provider and the Deployment.
    assert program.up() == {"create": 3}
    assert ready() == 2
    assert set(program.up()) == {"same"}

    program.replicas = 1
    assert program.up()["update"] == 1
    assert ready() == 1

    # The key of the administrator is in no file of the state.
    key = yaml.safe_load(cluster.kubeconfig.read_text())["users"][0]["user"]["client-key-data"].encode()
    assert not [text for text in program.on_disk() if key in text]

    program.destroy()
    assert cluster.get("deployments", "--namespace", namespace)["items"] == []
