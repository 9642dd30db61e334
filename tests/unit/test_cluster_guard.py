"""The guard of a cluster: what keeps a stack from it is refused before anything is created."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.engine.cluster import Cluster, ClusterError
from infra.guards import cluster, volumes
from support.configuration import settings
from tests.unit.cluster_server import CLASSES, a_list, storage_class
from tests.unit.test_settings_kubernetes import on_cluster

OURS: Mapping[str, Any] = {"metadata": {"labels": {"dify-kit.stack": "unit"}}}


@dataclass
class FakeCluster:
    """A cluster in which everything is allowed, unless a test says otherwise."""

    own: Mapping[str, Any] | None = None
    forbidden: Collection[str] = ()
    classes: Mapping[str, bool] = field(default_factory=lambda: {"local-path": True, "nfs": False})
    secrets: Collection[str] = ()
    held: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def namespace(self, name: str) -> Mapping[str, Any] | None:
        del name
        return self.own

    def secret_type(self, namespace: str, name: str) -> str | None:
        del namespace
        return "kubernetes.io/dockerconfigjson" if name in self.secrets else None

    def allowed(self, verb: str, group: str, resource: str, namespace: str = "") -> bool:
        del group, namespace
        return f"{verb} {resource}" not in self.forbidden

    def look(self, path: str) -> Mapping[str, Any] | None:
        if path != CLASSES:
            return None
        return a_list(*(storage_class(name, default=default) for name, default in self.classes.items()))

    def refused(self, path: str, manifest: Mapping[str, Any]) -> str:
        del path, manifest
        return ""

    def claims(self, namespace: str) -> Mapping[str, Mapping[str, Any]]:
        del namespace
        return self.held


def refusals(view: FakeCluster, **parts: Any) -> list[str]:
    stack = settings(on_cluster(**parts))
    assert stack.kubernetes is not None
    return [one.text("unit") for one in cluster.refusals(stack, stack.dify, stack.kubernetes, view)]


def claim(mode: str = "ReadWriteOnce", **changed: str) -> dict[str, Any]:
    labels = {**volumes.labels(settings(on_cluster())), **changed}
    return {"metadata": {"labels": labels}, "spec": {"accessModes": [mode]}}


def test_a_cluster_that_has_everything_is_taken() -> None:
    assert refusals(FakeCluster()) == []
    assert refusals(FakeCluster(own=OURS, held={"postgres": claim(), "app-storage": claim()})) == []


@pytest.mark.parametrize("owner", ["other", None])
def test_a_namespace_of_others_is_never_touched(owner: str | None) -> None:
    labels = {"dify-kit.stack": owner} if owner else {}
    (found,) = refusals(FakeCluster(own={"metadata": {"labels": labels}}), namespace="shared")

    assert "dify:kubernetes.namespace: 'shared' exists and is not this stack's" in found
    assert "kubectl label namespace shared dify-kit.stack=unit" in found


def test_missing_rights_are_listed_together() -> None:
    forbidden = ["create deployments", "create pods/exec", "create namespaces"]
    (found,) = refusals(FakeCluster(forbidden=forbidden))

    assert "create deployments.apps" in found
    assert "create pods/exec" in found
    assert "create namespaces" in found


def test_a_namespace_that_exists_needs_no_right_to_make_it() -> None:
    assert refusals(FakeCluster(own=OURS, forbidden=["create namespaces"])) == []


@pytest.mark.parametrize("key", ["storageClass", "sharedStorageClass"])
def test_a_storage_class_that_the_cluster_lacks(key: str) -> None:
    (found,) = refusals(FakeCluster(), **{key: "fast"})

    assert (
        f"dify:kubernetes.{key}: 'fast' is no storage class of the cluster; it has local-path, nfs" in found
    )


def test_a_cluster_without_a_default_class_needs_one_named() -> None:
    view = FakeCluster(classes={"nfs": False})

    assert "the cluster has no default class; name one; it has nfs" in refusals(view)[0]
    assert refusals(view, storageClass="nfs") == []
    assert "it has none" in refusals(FakeCluster(classes={}))[0]


def test_a_pull_secret_that_is_missing() -> None:
    assert "kubectl create namespace dify-unit" in refusals(FakeCluster(), imagePullSecret="login")[0]
    (found,) = refusals(FakeCluster(own=OURS), imagePullSecret="login")
    assert "has no Secret 'login'" in found
    assert "create namespace" not in found
    assert refusals(FakeCluster(own=OURS, secrets=["login"]), imagePullSecret="login") == []


def test_claims_that_were_made_with_other_settings() -> None:
    view = FakeCluster(own=OURS, held={"postgres": claim(**{"dify-kit.images": "registry"})})

    assert "claim postgres was made with dify:images registry" in refusals(view)[0]


def test_a_claim_of_one_node_does_not_become_a_shared_one() -> None:
    shared = {"sharedStorageClass": "nfs", "replicas": {"api": 2}}
    (found,) = refusals(FakeCluster(own=OURS, held={"app-storage": claim()}), **shared)

    assert "claim app-storage exists with ReadWriteOnce" in found
    assert refusals(FakeCluster(own=OURS, held={"app-storage": claim("ReadWriteMany")}), **shared) == []


def kubeconfig(tmp_path: Path) -> Path:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}],
        "users": [{"name": "u", "user": {"token": "of-the-user"}}],
        "contexts": [{"name": "one", "context": {"cluster": "c", "user": "u"}}],
    }
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(document))
    return path


def test_a_context_that_the_kubeconfig_lacks(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="'two' is not in") as refused:
        Cluster.of(kubeconfig(tmp_path), "two")

    assert refused.value.fix == "it has one"


def test_a_kubeconfig_that_is_missing_or_malformed(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="does not exist"):
        Cluster.of(tmp_path / "none", "one")
    (tmp_path / "broken").write_text("token: [of-the-user")
    with pytest.raises(ClusterError, match="cannot be read") as refused:
        Cluster.of(tmp_path / "broken", "one")
    assert "of-the-user" not in str(refused.value)


def test_a_cluster_that_does_not_answer(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="does not answer") as refused:
        Cluster.of(kubeconfig(tmp_path), "one").namespace("dify")

    assert "of-the-user" not in str(refused.value)
