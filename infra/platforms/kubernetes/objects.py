"""Objects of a cluster as resources of Pulumi's Kubernetes provider."""

from collections.abc import Mapping
from typing import Any

import pulumi

# Groups as the provider's types name them.
_CORE = "core/v1"


class KubernetesObject(pulumi.CustomResource):
    """One object, from its manifest. Outputs: those of the API, of which `metadata` and `spec` are declared."""

    metadata: pulumi.Output[Mapping[str, Any]]
    spec: pulumi.Output[Mapping[str, Any]]

    def __init__(self, name: str, manifest: Mapping[str, Any], opts: pulumi.ResourceOptions) -> None:
        version = str(manifest["apiVersion"])
        group = _CORE if version == "v1" else version
        super().__init__(f"kubernetes:{group}:{manifest['kind']}", name, dict(manifest), opts)


def secret(labels: Mapping[str, str], content: Any) -> dict[str, Any]:  # noqa: ANN401  # an Input
    """Return a Secret without a name: Pulumi gives each content one of its own, so a change replaces the pods."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"labels": dict(labels)},
        "type": "Opaque",
        "stringData": content,
    }
