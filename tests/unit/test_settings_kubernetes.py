"""`dify:platform kubernetes`: what is accepted, and one clear error for each malformed value."""

from pathlib import Path
from typing import Any

import pulumi
import pytest

from infra.settings.kubernetes import PRELOADED
from support.configuration import settings

CLUSTER: dict[str, Any] = {"context": "test", "registry": PRELOADED}


def on_cluster(plain: dict[str, Any] | None = None, **parts: Any) -> dict[str, Any]:
    return {"platform": "kubernetes", "kubernetes": {**CLUSTER, **parts}, **(plain or {})}


# (settings, the key that the error names, a part of the reason or the fix)
MALFORMED: list[tuple[dict[str, Any], str, str]] = [
    ({"platform": "swarm"}, "platform", "use one of docker, kubernetes"),
    (on_cluster(context=""), "kubernetes.context", "kubectl config get-contexts"),
    (on_cluster(contxt="a"), "kubernetes.contxt", "did you mean kubernetes.context"),
    (on_cluster(kubeconfig="config"), "kubernetes.kubeconfig", "not an absolute path"),
    (on_cluster(kubeconfig=""), "kubernetes.kubeconfig", "not an absolute path"),
    (on_cluster(namespace="kube-system"), "kubernetes.namespace", "belongs to the cluster"),
    (on_cluster(namespace="default"), "kubernetes.namespace", "belongs to the cluster"),
    (on_cluster(namespace="Dify"), "kubernetes.namespace", "63 lower-case letters"),
    (on_cluster(namespace="a" * 64), "kubernetes.namespace", "63 lower-case letters"),
    (on_cluster(namespace="dify_a"), "kubernetes.namespace", "63 lower-case letters"),
    (on_cluster(storageClass="Fast Disk"), "kubernetes.storageClass", "name of a Kubernetes object"),
    (on_cluster(sharedStorageClass="nfs_1"), "kubernetes.sharedStorageClass", "name of a Kubernetes object"),
    (on_cluster(imagePullSecret="a/b"), "kubernetes.imagePullSecret", "name of a Kubernetes object"),
    (on_cluster(volumeGigabytes=0), "kubernetes.volumeGigabytes", "1 to 65536"),
    (on_cluster(volumeGigabytes="10Gi"), "kubernetes.volumeGigabytes", "1 to 65536"),
    (on_cluster(serviceType="Ingress"), "kubernetes.serviceType", "ClusterIP, NodePort, LoadBalancer"),
    (on_cluster(nodePort=30080), "kubernetes.nodePort", "set serviceType to NodePort"),
    (on_cluster(serviceType="NodePort", nodePort=70000), "kubernetes.nodePort", "0 to 65535"),
    (on_cluster(externalTrafficPolicy="local"), "kubernetes.externalTrafficPolicy", "Local, Cluster"),
    (
        on_cluster(
            {"consoleAllowFrom": ["10.1.0.0/16"]}, serviceType="NodePort", externalTrafficPolicy="Cluster"
        ),
        "kubernetes.externalTrafficPolicy",
        "set it to Local",
    ),
    (on_cluster({"proxyProtocol": True}), "trustedProxies", "the address of the load balancer"),
    (
        on_cluster(
            {
                "proxyProtocol": True,
                "trustedProxies": ["10.244.0.0/16"],
                "publicUrl": "https://dify.example.com",
            },
            gateway={"name": "public"},
        ),
        "proxyProtocol",
        "set it to false",
    ),
    (on_cluster(serviceAnnotations={"a b": "1"}), "kubernetes.serviceAnnotations.a b", "prefix/name"),
    (on_cluster(serviceAnnotations=["a"]), "kubernetes.serviceAnnotations", "not an object"),
    (on_cluster(replicas={"api": 2}), "kubernetes.replicas.api", "sharedStorageClass"),
    (on_cluster(replicas={"worker": 2}), "kubernetes.replicas.worker", "ReadWriteOnce"),
    (on_cluster(replicas={"web": 0}), "kubernetes.replicas.web", "1 to 50"),
    (on_cluster(replicas={"redis": 2}), "kubernetes.replicas.redis", "did you mean"),
    (on_cluster(replicas=3), "kubernetes.replicas", "not an object"),
    (on_cluster(registry=""), "kubernetes.registry", "dify:images local"),
    (on_cluster(registry="dify"), "kubernetes.registry", "a dot or a port"),
    (on_cluster(registry="https://r.example"), "kubernetes.registry", "registry prefix"),
    (on_cluster({"resources": {"api": {"pids": 99}}}), "resources.api.pids", "podPidsLimit"),
    (on_cluster({"tls": {"mode": "cert-manager"}}), "tls.issuer.name", "is empty"),
    (
        on_cluster({"tls": {"mode": "cert-manager", "issuer": {"name": "Let's Encrypt"}}}),
        "tls.issuer.name",
        "kubectl get clusterissuers",
    ),
    (
        on_cluster({"tls": {"mode": "cert-manager", "issuer": {"name": "a", "kind": "Ca"}}}),
        "tls.issuer.kind",
        "use one of Issuer, ClusterIssuer",
    ),
    (
        on_cluster(
            {
                "publicUrl": "https://dify.example.com",
                "tls": {"mode": "acme", "acme": {"email": "a@example.com", "agreeTerms": True}},
            }
        ),
        "tls.mode",
        "not supported on dify:platform kubernetes",
    ),
]


@pytest.mark.parametrize(("plain", "key", "words"), MALFORMED)
def test_a_malformed_value_has_one_clear_error(plain: dict[str, Any], key: str, words: str) -> None:
    with pytest.raises(pulumi.RunError) as refused:
        settings(plain)

    found = [line for line in str(refused.value).splitlines() if line.startswith("  - ")]
    assert len([line for line in found if line.startswith(f"  - dify:{key}:")]) == 1
    assert any(words in line for line in found)


def test_a_stack_runs_on_docker_by_default() -> None:
    assert settings().kubernetes is None


def test_what_is_not_given_has_a_default() -> None:
    found = settings(on_cluster()).kubernetes

    assert found is not None
    assert found.namespace == "dify-unit"
    assert found.kubeconfig == Path.home() / ".kube/config"
    assert set(found.replicas.values()) == {1}


def test_several_pods_share_a_claim_that_several_nodes_can_mount() -> None:
    found = settings(on_cluster(sharedStorageClass="nfs", replicas={"api": 3, "worker": 2})).kubernetes

    assert found is not None
    assert found.replicas == {"api": 3, "worker": 2, "web": 1, "gateway": 1, "nginx": 1}


def test_a_registry_is_not_needed_for_published_images() -> None:
    found = settings(
        {"images": "registry", "platform": "kubernetes", "kubernetes": {"context": "test"}}
    ).kubernetes

    assert found is not None
    assert found.registry == ""
