"""Every malformed setting of `dify:platform kubernetes`: one clear error, before anything is created.

The whole check of the program runs against an API server: kubeconfig, context, rights and objects are read by HTTP.
"""

import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pulumi
import pytest

from infra.engine.cluster_view import ClusterView
from infra.guards import cluster, cluster_room, cluster_scaling, volumes
from infra.settings.kubernetes import PRELOADED
from support.configuration import settings
from tests.unit.cluster_server import (
    CLASSES,
    NAMESPACE,
    Answers,
    a_list,
    namespace,
    node,
    serving,
    sound,
    storage_class,
)

REGISTRY: dict[str, Any] = {"context": "test", "registry": PRELOADED}


@dataclass(frozen=True, kw_only=True)
class Malformed:
    """A setting, or a cluster, that does not fit; the key and the value that the error names, and a part of the fix."""

    key: str
    value: str
    fix: str
    parts: dict[str, Any] = field(default_factory=dict)
    plain: dict[str, Any] = field(default_factory=dict)
    cluster: Callable[[Answers], object] = repr
    kubeconfig: Callable[[Path], object] = repr


def has(path: str, document: dict[str, Any]) -> Callable[[Answers], None]:
    return lambda answers: answers.objects.update({path: document})


def ours(**more: dict[str, Any]) -> Callable[[Answers], None]:
    """Return a cluster on which the namespace of the stack exists, with lists of objects of it."""

    def change(answers: Answers) -> None:
        answers.objects[NAMESPACE] = namespace()
        for resource, document in more.items():
            answers.objects[f"{NAMESPACE}/{resource}"] = document

    return change


def denied(*rights: str) -> Callable[[Answers], None]:
    return lambda answers: setattr(answers, "denied", rights)


def refused(port: int, why: str) -> Callable[[Answers], None]:
    return lambda answers: answers.ports.update({port: why})


def quota(**hard: str) -> Callable[[Answers], None]:
    named = {name.replace("_", "."): value for name, value in hard.items()}
    return ours(resourcequotas=a_list({"metadata": {"name": "team"}, "spec": {"hard": named}}))


def limits(**rule: Any) -> Callable[[Answers], None]:
    one = {"metadata": {"name": "team"}, "spec": {"limits": [rule]}}
    return ours(limitranges=a_list(one))


def secret(kind: str) -> Callable[[Answers], None]:
    def change(answers: Answers) -> None:
        answers.objects[NAMESPACE] = namespace()
        answers.objects[f"{NAMESPACE}/secrets/login"] = {"metadata": {"name": "login"}, "type": kind}

    return change


def claim(
    name: str = "postgres", *, gigabytes: int = 10, kind: str = "local-path", **labels: str
) -> dict[str, Any]:
    made = {**volumes.labels(settings({"platform": "kubernetes", "kubernetes": REGISTRY})), **labels}
    return {
        "metadata": {"name": name, "labels": made},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": kind,
            "resources": {"requests": {"storage": f"{gigabytes}Gi"}},
        },
    }


def claims(**given: Any) -> Callable[[Answers], None]:
    def change(answers: Answers) -> None:
        ours(persistentvolumeclaims=a_list(claim(**given)))(answers)

    return change


def unauthorized(answers: Answers) -> None:
    answers.unauthorized = True


def other_version(answers: Answers) -> None:
    answers.objects["/version"] = {"major": "1", "minor": "29+", "gitVersion": "v1.29.3-eks"}


def controllers(answers: Answers) -> None:
    """Give the cluster an IngressClass `nginx` and a Gateway `public` with the listener `https`."""
    api = "/apis/gateway.networking.k8s.io/v1"
    answers.objects["/apis/networking.k8s.io/v1/ingressclasses"] = a_list({"metadata": {"name": "nginx"}})
    answers.objects[api] = {"kind": "APIResourceList"}
    answers.objects[f"{api}/namespaces/infra/gateways/public"] = {"spec": {"listeners": [{"name": "https"}]}}


QUEUED: dict[str, Any] = {
    "sharedStorageClass": "nfs",
    "autoscale": {"worker": {"max": 4, "jobsPerPod": 10}},
}


def keda(answers: Answers) -> None:
    answers.objects["/apis/keda.sh/v1alpha1"] = {"kind": "APIResourceList"}


def issuers(answers: Answers) -> None:
    """Give the cluster the ClusterIssuers `internal`, `acme`, and `new`, which is not ready."""
    api = "/apis/cert-manager.io/v1"
    why = {"type": "Ready", "status": "False", "message": "the account was not registered"}
    answers.objects[api] = {"kind": "APIResourceList"}
    answers.objects[f"{api}/clusterissuers/internal"] = {"spec": {"ca": {"secretName": "root"}}}
    answers.objects[f"{api}/clusterissuers/acme"] = {"spec": {"acme": {}}}
    answers.objects[f"{api}/clusterissuers/new"] = {"spec": {}, "status": {"conditions": [why]}}


def issued_by(name: str, kind: str = "ClusterIssuer") -> dict[str, Any]:
    return {
        "publicUrl": "https://dify.example.com",
        "tls": {"mode": "cert-manager", "issuer": {"name": name, "kind": kind}},
    }


ROUTED = {"publicUrl": "https://dify.example.com", "trustedProxies": ["10.244.0.0/16"]}
IN_RANGE = "provided port is not in the valid range. The range of valid ports is 30000-32767"
ACME = {
    "publicUrl": "https://dify.example.com",
    "bindAddress": "*",
    "tls": {"mode": "acme", "acme": {"email": "a@example.com", "agreeTerms": True}},
}
TABLE: dict[str, Malformed] = {
    "platform": Malformed(
        key="platform", value="swarm", fix="docker, kubernetes", plain={"platform": "swarm"}
    ),
    "no context": Malformed(key="kubernetes.context", value="''", fix="get-contexts", parts={"context": ""}),
    "other context": Malformed(
        key="kubernetes.context", value="'production'", fix="it has test", parts={"context": "production"}
    ),
    "unknown key": Malformed(
        key="kubernetes.contxt", value="'a'", fix="did you mean kubernetes.context", parts={"contxt": "a"}
    ),
    "kubeconfig missing": Malformed(
        key="kubernetes.kubeconfig", value="kubeconfig", fix="name the file", kubeconfig=Path.unlink
    ),
    "kubeconfig of another kind": Malformed(
        key="kubernetes.kubeconfig",
        value="kubeconfig",
        fix="kubectl config view",
        kubeconfig=lambda path: path.write_bytes(b"\xff\xfe\x00"),
    ),
    "kubeconfig not YAML": Malformed(
        key="kubernetes.kubeconfig",
        value="kubeconfig",
        fix="kubectl config view",
        kubeconfig=lambda path: path.write_text("contexts: [a: {"),
    ),
    "kubeconfig without its cluster": Malformed(
        key="kubernetes.context",
        value="'test'",
        fix="kubectl --context test version",
        kubeconfig=lambda path: path.write_text(path.read_text().replace("name: c", "name: d")),
    ),
    "kubeconfig relative": Malformed(
        key="kubernetes.kubeconfig",
        value="'config'",
        fix="name the file",
        parts={"kubeconfig": "config"},
    ),
    "credentials that ended": Malformed(
        key="kubernetes.context", value="'test'", fix="sign in", cluster=unauthorized
    ),
    "namespace of others": Malformed(
        key="kubernetes.namespace",
        value="'dify-unit'",
        fix="kubectl label namespace",
        cluster=has(NAMESPACE, namespace("other")),
    ),
    "namespace without a label": Malformed(
        key="kubernetes.namespace",
        value="'dify-unit'",
        fix="name another one",
        cluster=has(NAMESPACE, namespace(None)),
    ),
    "namespace terminating": Malformed(
        key="kubernetes.namespace",
        value="'dify-unit'",
        fix="wait until",
        cluster=has(NAMESPACE, namespace(phase="Terminating")),
    ),
    "namespace of the cluster": Malformed(
        key="kubernetes.namespace",
        value="'kube-system'",
        fix="name one of the stack's own",
        parts={"namespace": "kube-system"},
    ),
    "namespace restricted": Malformed(
        key="kubernetes.namespace",
        value="'dify-unit'",
        fix="enforce=baseline",
        cluster=has(NAMESPACE, namespace(**{"pod-security.kubernetes.io/enforce": "restricted"})),
    ),
    "storage class": Malformed(
        key="kubernetes.storageClass",
        value="'fast'",
        fix="it has local-path, nfs",
        parts={"storageClass": "fast"},
    ),
    "shared class": Malformed(
        key="kubernetes.sharedStorageClass",
        value="'efs'",
        fix="it has local-path, nfs",
        parts={"sharedStorageClass": "efs", "replicas": {"api": 2}},
    ),
    "no default class": Malformed(
        key="kubernetes.storageClass",
        value="is empty",
        fix="name one; it has nfs",
        cluster=has(CLASSES, a_list(storage_class("nfs"))),
    ),
    "two apis on one claim": Malformed(
        key="kubernetes.replicas.api", value="2", fix="sharedStorageClass", parts={"replicas": {"api": 2}}
    ),
    "two workers on one claim": Malformed(
        key="kubernetes.replicas.worker",
        value="2",
        fix="sharedStorageClass",
        parts={"replicas": {"worker": 2}},
    ),
    "a claim of one node": Malformed(
        key="kubernetes.sharedStorageClass",
        value="claim app-storage exists with ReadWriteOnce",
        fix="set it to empty",
        parts={"sharedStorageClass": "nfs"},
        cluster=claims(name="app-storage"),
    ),
    "claims of other images": Malformed(
        key="images",
        value="claim postgres was made with dify:images registry",
        fix="set it back",
        cluster=claims(**{"dify-kit.images": "registry"}),
    ),
    "volumes shrunk": Malformed(
        key="kubernetes.volumeGigabytes",
        value="5",
        fix="set it to 10",
        parts={"volumeGigabytes": 5},
        cluster=claims(),
    ),
    "volumes that cannot grow": Malformed(
        key="kubernetes.volumeGigabytes",
        value="20",
        fix="set it back",
        parts={"volumeGigabytes": 20},
        cluster=claims(),
    ),
    "volumes that do not grow by themselves": Malformed(
        key="kubernetes.volumeGigabytes",
        value="20",
        fix="kubectl patch pvc postgres",
        parts={"volumeGigabytes": 20},
        cluster=claims(kind="nfs"),
    ),
    "node port of no number": Malformed(
        key="kubernetes.nodePort",
        value="70000",
        fix="0 to 65535",
        parts={"serviceType": "NodePort", "nodePort": 70000},
    ),
    "node port out of range": Malformed(
        key="kubernetes.nodePort",
        value="8080",
        fix="kubernetes.nodePort 0",
        parts={"serviceType": "NodePort", "nodePort": 8080},
        cluster=refused(8080, f"Service is invalid: {IN_RANGE}"),
    ),
    "node port taken": Malformed(
        key="kubernetes.nodePort",
        value="30443",
        fix="no Service has",
        parts={"serviceType": "NodePort", "nodePort": 30443},
        cluster=refused(30443, "Service is invalid: provided port is already allocated"),
    ),
    "node port of a ClusterIP": Malformed(
        key="kubernetes.nodePort", value="30443", fix="serviceType to NodePort", parts={"nodePort": 30443}
    ),
    "node port of a LoadBalancer": Malformed(
        key="kubernetes.nodePort",
        value="30443",
        fix="set it to 0",
        parts={"serviceType": "LoadBalancer", "nodePort": 30443},
    ),
    "type of the Service": Malformed(
        key="kubernetes.serviceType",
        value="'Ingress'",
        fix="ClusterIP, NodePort, LoadBalancer",
        parts={"serviceType": "Ingress"},
    ),
    "replicas 0": Malformed(
        key="kubernetes.replicas.web", value="0", fix="1 to 50", parts={"replicas": {"web": 0}}
    ),
    "replicas 51": Malformed(
        key="kubernetes.replicas.web", value="51", fix="1 to 50", parts={"replicas": {"web": 51}}
    ),
    "replicas two": Malformed(
        key="kubernetes.replicas.web", value="'two'", fix="1 to 50", parts={"replicas": {"web": "two"}}
    ),
    "replicas true": Malformed(
        key="kubernetes.replicas.web", value="'True'", fix="1 to 50", parts={"replicas": {"web": True}}
    ),
    "replicas of a database": Malformed(
        key="kubernetes.replicas.redis", value="2", fix="did you mean", parts={"replicas": {"redis": 2}}
    ),
    "pull secret missing": Malformed(
        key="kubernetes.imagePullSecret",
        value="'login'",
        fix="kubectl create secret docker-registry login",
        parts={"imagePullSecret": "login"},
        cluster=ours(),
    ),
    "pull secret of another type": Malformed(
        key="kubernetes.imagePullSecret",
        value="'login' is of the type Opaque",
        fix="kubernetes.io/dockerconfigjson",
        parts={"imagePullSecret": "login"},
        cluster=secret("Opaque"),
    ),
    "quota of memory": Malformed(
        key="kubernetes.namespace",
        value="requests.memory",
        fix="raise the quota",
        cluster=quota(requests_memory="1Gi"),
    ),
    "quota of pods": Malformed(
        key="kubernetes.namespace", value="pods:", fix="raise the quota", cluster=quota(pods="4")
    ),
    "quota of claims": Malformed(
        key="kubernetes.namespace",
        value="requests.storage",
        fix="volumeGigabytes",
        cluster=quota(requests_storage="20Gi"),
    ),
    "limit range of memory": Malformed(
        key="kubernetes.namespace",
        value="LimitRange team",
        fix="dify:resources.<service>",
        cluster=limits(type="Container", max={"memory": "256Mi"}),
    ),
    "limit range of ratios": Malformed(
        key="kubernetes.namespace",
        value="times the request",
        fix="change the LimitRange",
        cluster=limits(type="Pod", maxLimitRequestRatio={"cpu": "4"}),
    ),
    "limit range of claims": Malformed(
        key="kubernetes.namespace",
        value="its claims",
        fix="volumeGigabytes",
        cluster=limits(type="PersistentVolumeClaim", max={"storage": "5Gi"}),
    ),
    "cluster too old": Malformed(
        key="kubernetes.context", value="v1.29.3-eks", fix="1.30 or newer", cluster=other_version
    ),
    "no node ready": Malformed(
        key="kubernetes.context",
        value="'test'",
        fix="kubectl get nodes",
        cluster=has(
            "/api/v1/nodes",
            a_list(
                node(ready=False),
                node("node2", unschedulable=True),
                node("node3", taints=[{"effect": "NoSchedule"}]),
            ),
        ),
    ),
    "nodes of another architecture": Malformed(
        key="kubernetes.context",
        value="its nodes are arm64",
        fix="add nodes of that architecture",
        parts={"registry": "r.example:5000/dify"},
        cluster=has("/api/v1/nodes", a_list(node(architecture="arm64"))),
    ),
    "registry with a tag": Malformed(
        key="kubernetes.registry",
        value="'r.example:5000/dify:1'",
        fix="without a scheme or a tag",
        parts={"registry": "r.example:5000/dify:1"},
    ),
    "registry with a scheme": Malformed(
        key="kubernetes.registry",
        value="'https://r.example/dify'",
        fix="without a scheme or a tag",
        parts={"registry": "https://r.example/dify"},
    ),
    "no registry": Malformed(
        key="kubernetes.registry", value="''", fix="the prefix of a registry", parts={"registry": ""}
    ),
    "volume size": Malformed(
        key="kubernetes.volumeGigabytes", value="'10Gi'", fix="1 to 65536", parts={"volumeGigabytes": "10Gi"}
    ),
    "traffic policy": Malformed(
        key="kubernetes.externalTrafficPolicy",
        value="'local'",
        fix="Local, Cluster",
        parts={"externalTrafficPolicy": "local"},
    ),
    "limit of processes": Malformed(
        key="resources.api.pids", value="set", fix="podPidsLimit", plain={"resources": {"api": {"pids": 99}}}
    ),
    "autoscaling without metrics": Malformed(
        key="kubernetes.autoscale.web.max",
        value="3",
        fix="metrics-server",
        parts={"autoscale": {"web": {"max": 3}}},
    ),
    "autoscaling by queues without KEDA": Malformed(
        key="kubernetes.autoscale.worker.jobsPerPod",
        value="10: the cluster has no KEDA",
        fix="install KEDA",
        parts=QUEUED,
    ),
    "queues without a most": Malformed(
        key="kubernetes.autoscale.worker.jobsPerPod",
        value="10",
        fix="set kubernetes.autoscale.worker.max",
        parts={"autoscale": {"worker": {"jobsPerPod": 10}}},
    ),
    "queues and CPU": Malformed(
        key="kubernetes.autoscale.worker.cpuPercent",
        value="50",
        fix="remove it",
        parts={**QUEUED, "autoscale": {"worker": {"max": 4, "jobsPerPod": 10, "cpuPercent": 50}}},
    ),
    "queues of no number": Malformed(
        key="kubernetes.autoscale.worker.jobsPerPod",
        value="-1",
        fix="0 to 100000",
        parts={**QUEUED, "autoscale": {"worker": {"max": 4, "jobsPerPod": -1}}},
    ),
    "queues of web": Malformed(
        key="kubernetes.autoscale.web.jobsPerPod",
        value="10",
        fix="did you mean",
        parts={"autoscale": {"web": {"max": 4, "jobsPerPod": 10}}},
    ),
    "KEDA in no namespace": Malformed(
        key="kubernetes.autoscale.worker.kedaNamespace",
        value="'Keda'",
        fix="pods of KEDA's operator",
        parts={**QUEUED, "autoscale": {"worker": {"max": 4, "jobsPerPod": 10, "kedaNamespace": "Keda"}}},
    ),
    "no right to make objects of KEDA": Malformed(
        key="kubernetes.context",
        value="create scaledobjects.keda.sh",
        fix="ClusterRole `admin`",
        parts=QUEUED,
        cluster=denied("create scaledobjects"),
    ),
    "autoscaling and a fixed number": Malformed(
        key="kubernetes.replicas.web",
        value="2",
        fix="set kubernetes.autoscale.web.min",
        parts={"autoscale": {"web": {"max": 3}}, "replicas": {"web": 2}},
    ),
    "autoscaling upside down": Malformed(
        key="kubernetes.autoscale.web.min",
        value="4",
        fix="use 3 or less",
        parts={"autoscale": {"web": {"min": 4, "max": 3}}},
    ),
    "autoscaling without a most": Malformed(
        key="kubernetes.autoscale.web.min",
        value="2",
        fix="set kubernetes.autoscale.web.max",
        parts={"autoscale": {"web": {"min": 2}}},
    ),
    "autoscaling by no share": Malformed(
        key="kubernetes.autoscale.web.cpuPercent",
        value="0",
        fix="1 to 100",
        parts={"autoscale": {"web": {"max": 3, "cpuPercent": 0}}},
    ),
    "autoscaling of the edge": Malformed(
        key="kubernetes.autoscale.edge",
        value="max",
        fix="did you mean",
        parts={"autoscale": {"edge": {"max": 3}}},
    ),
    "autoscaled apis on one claim": Malformed(
        key="kubernetes.autoscale.api.max",
        value="4",
        fix="sharedStorageClass",
        parts={"autoscale": {"api": {"max": 4}}},
    ),
    "no right to make autoscalers": Malformed(
        key="kubernetes.context",
        value="create horizontalpodautoscalers.autoscaling",
        fix="ClusterRole `admin`",
        parts={"autoscale": {"web": {"max": 3}}},
        cluster=denied("create horizontalpodautoscalers"),
    ),
    "ingress without trusted proxies": Malformed(
        key="trustedProxies",
        value="[]",
        fix="addresses of the controller's pods",
        parts={"ingress": {"className": "nginx"}},
        plain={"publicUrl": "https://dify.example.com"},
    ),
    "PROXY protocol without trusted proxies": Malformed(
        key="trustedProxies",
        value="[]",
        fix="from which the load balancer connects",
        plain={"proxyProtocol": True},
    ),
    "PROXY protocol of an ingress": Malformed(
        key="proxyProtocol",
        value="true",
        fix="set it to false",
        parts={"ingress": {"className": "nginx"}},
        plain={**ROUTED, "proxyProtocol": True},
        cluster=controllers,
    ),
    "annotation of the Service of no name": Malformed(
        key="kubernetes.serviceAnnotations.a b",
        value="'1'",
        fix="prefix/name",
        parts={"serviceAnnotations": {"a b": "1"}},
    ),
    "ingress with TLS at the edge": Malformed(
        key="kubernetes.ingress.className",
        value="'nginx'",
        fix="set tls.mode to off",
        parts={"ingress": {"className": "nginx"}},
        plain={**ROUTED, "tls": {"mode": "selfsigned"}},
    ),
    "ingress of no host": Malformed(
        key="publicUrl",
        value="localhost is none",
        fix="https://dify.example.com",
        parts={"ingress": {"className": "nginx"}},
        plain={"trustedProxies": ["10.244.0.0/16"]},
    ),
    "ingress class": Malformed(
        key="kubernetes.ingress.className",
        value="'traefik'",
        fix="it has nginx",
        parts={"ingress": {"className": "traefik"}},
        plain=ROUTED,
        cluster=controllers,
    ),
    "ingress class of no name": Malformed(
        key="kubernetes.ingress.className",
        value="'My Class'",
        fix="kubectl get",
        parts={"ingress": {"className": "My Class"}},
        plain=ROUTED,
    ),
    "annotation of no name": Malformed(
        key="kubernetes.ingress.annotations.a b",
        value="'1'",
        fix="prefix/name",
        parts={"ingress": {"className": "nginx", "annotations": {"a b": "1"}}},
        plain=ROUTED,
    ),
    "annotations without an ingress": Malformed(
        key="kubernetes.ingress.tlsSecret",
        value="'dify-tls'",
        fix="set kubernetes.ingress.className",
        parts={"ingress": {"tlsSecret": "dify-tls"}},
    ),
    "certificate missing": Malformed(
        key="kubernetes.ingress.tlsSecret",
        value="'dify-tls'",
        fix="kubectl create secret tls",
        parts={"ingress": {"className": "nginx", "tlsSecret": "dify-tls"}},
        plain=ROUTED,
        cluster=controllers,
    ),
    "certificate of another type": Malformed(
        key="kubernetes.ingress.tlsSecret",
        value="is of the type Opaque",
        fix="cert-manager.io/cluster-issuer",
        parts={"ingress": {"className": "nginx", "tlsSecret": "login"}},
        plain=ROUTED,
        cluster=secret("Opaque"),
    ),
    "no right to make ingresses": Malformed(
        key="kubernetes.context",
        value="create ingresses.networking.k8s.io",
        fix="ClusterRole `admin`",
        parts={"ingress": {"className": "nginx"}},
        plain=ROUTED,
        cluster=denied("create ingresses"),
    ),
    "no Gateway API": Malformed(
        key="kubernetes.gateway.name",
        value="'public'",
        fix="use kubernetes.ingress",
        parts={"gateway": {"name": "public"}},
        plain=ROUTED,
    ),
    "no such Gateway": Malformed(
        key="kubernetes.gateway.name",
        value="'private' is no Gateway of namespace infra",
        fix="kubectl get gateways",
        parts={"gateway": {"name": "private", "namespace": "infra"}},
        plain=ROUTED,
        cluster=controllers,
    ),
    "no such listener": Malformed(
        key="kubernetes.gateway.section",
        value="'http'",
        fix="it has https",
        parts={"gateway": {"name": "public", "namespace": "infra", "section": "http"}},
        plain=ROUTED,
        cluster=controllers,
    ),
    "certificates by ACME": Malformed(key="tls.mode", value="'acme'", fix="use cert-manager", plain=ACME),
    "no cert-manager": Malformed(
        key="tls.mode",
        value="'cert-manager': the cluster has no cert-manager",
        fix="install it",
        plain=issued_by("letsencrypt"),
    ),
    "no such ClusterIssuer": Malformed(
        key="tls.issuer.name",
        value="'letsencrypt' is no ClusterIssuer of the cluster",
        fix="kubectl get clusterissuers",
        plain=issued_by("letsencrypt"),
        cluster=issuers,
    ),
    "an Issuer of another namespace": Malformed(
        key="tls.issuer.name",
        value="'internal' is no Issuer of namespace dify-unit",
        fix="dify:tls.issuer.kind",
        plain=issued_by("internal", "Issuer"),
        cluster=issuers,
    ),
    "an issuer that is not ready": Malformed(
        key="tls.issuer.name",
        value="'new' is not ready: the account was not registered",
        fix="correct what it says",
        plain=issued_by("new"),
        cluster=issuers,
    ),
    "a name that no public CA knows": Malformed(
        key="publicUrl",
        value="192.0.2.1: ClusterIssuer 'acme' is of ACME",
        fix="host names that resolve to the edge",
        plain={**issued_by("acme"), "publicUrl": "https://192.0.2.1"},
        cluster=issuers,
    ),
    "an issuer of no name": Malformed(
        key="tls.issuer.name", value="is empty", fix="kubectl get clusterissuers", plain=issued_by("")
    ),
    "an issuer of no kind": Malformed(
        key="tls.issuer.kind", value="'Vault'", fix="ClusterIssuer", plain=issued_by("a", "Vault")
    ),
    "no right to make certificates": Malformed(
        key="kubernetes.context",
        value="create certificates.cert-manager.io",
        fix="ClusterRole `admin`",
        plain=issued_by("internal"),
        cluster=denied("create certificates"),
    ),
    **{
        f"no right to {right}": Malformed(
            key="kubernetes.context", value="'test'", fix="ClusterRole `admin`", cluster=denied(right)
        )
        for right in (
            *(f"{verb} {resource}" for _, resource in cluster.MANAGED for verb in cluster.VERBS),
            *(f"{verb} {resource}" for verb, _, resource in cluster.MORE),
            "create namespaces",
        )
    },
}


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")


def deploy(kubeconfig: Path, plain: dict[str, Any], parts: dict[str, Any]) -> str:
    """Check a stack as the program does before it declares a resource. Returns the address of the cluster's DNS."""
    kubernetes = {"kubeconfig": str(kubeconfig), **REGISTRY, **parts}
    stack = settings({"platform": "kubernetes", "kubernetes": kubernetes, **plain})
    assert stack.kubernetes is not None
    return cluster.check(stack, stack.dify, stack.kubernetes)


@pytest.mark.parametrize("name", TABLE)
def test_one_clear_error_before_anything_is_created(name: str, tmp_path: Path) -> None:
    one, answers = TABLE[name], Answers()
    one.cluster(answers)
    with serving(answers, tmp_path) as kubeconfig:
        one.kubeconfig(kubeconfig)
        with pytest.raises(pulumi.RunError) as failed:
            deploy(kubeconfig, one.plain, one.parts)

    lines = [line for line in str(failed.value).splitlines() if "dify:" in line and "dify:*" not in line]
    lines = [line.strip().removeprefix("- ") for line in lines if not line.endswith(":")]
    assert len(lines) == 1, lines
    (line,) = lines
    assert f"dify:{one.key}" in line
    assert one.value in line
    assert one.fix in line
    changed = [(method, path) for method, path in answers.requests if method != "GET"]
    assert all(path.endswith("?dryRun=All") for _, path in changed)


def test_the_table_has_what_the_platform_must_refuse() -> None:
    assert len(TABLE) >= 30 + len(cluster.MANAGED) * len(cluster.VERBS)


def test_a_sound_stack_passes(tmp_path: Path) -> None:
    with serving(Answers(), tmp_path) as kubeconfig:
        assert deploy(kubeconfig, {}, {}) == "10.96.0.10"


def test_a_stack_that_runs_fits_the_quota_it_fills(tmp_path: Path) -> None:
    own = {
        "status": {"phase": "Running"},
        "spec": {"containers": [{"resources": {"requests": {"memory": "900Gi"}}}]},
    }
    answers = Answers()
    full = {
        "metadata": {"name": "team"},
        "spec": {"hard": {"requests.memory": "910Gi"}},
        "status": {"used": {"requests.memory": "900Gi"}},
    }
    ours(resourcequotas=a_list(full), pods=a_list(own), persistentvolumeclaims=a_list(claim()))(answers)

    with serving(answers, tmp_path) as kubeconfig:
        assert deploy(kubeconfig, {}, {})


def test_autoscaling_needs_no_right_where_it_is_off(tmp_path: Path) -> None:
    answers = Answers(denied=["create horizontalpodautoscalers"])

    with serving(answers, tmp_path) as kubeconfig:
        assert deploy(kubeconfig, {}, {})


def test_a_cluster_that_measures_cpu_takes_autoscalers(tmp_path: Path) -> None:
    answers = Answers()
    answers.objects["/apis/metrics.k8s.io/v1beta1"] = {"kind": "APIResourceList"}

    with serving(answers, tmp_path) as kubeconfig:
        assert deploy(kubeconfig, {}, {"autoscale": {"web": {"max": 3}}})


def test_a_cluster_with_keda_takes_autoscalers_by_queues(tmp_path: Path) -> None:
    # The CPU of pods is not measured, and no other autoscaler is made.
    answers = Answers(denied=["create horizontalpodautoscalers"])
    keda(answers)

    with serving(answers, tmp_path) as kubeconfig:
        assert deploy(kubeconfig, {}, QUEUED)


def test_keda_verifies_the_name_of_an_external_redis(tmp_path: Path) -> None:
    stack = settings(
        {
            "platform": "kubernetes",
            "kubernetes": {**REGISTRY, **QUEUED},
            "redis": {"host": "10.20.0.9", "serverName": "redis.example.com"},
        },
        {"externalRedisPassword": "a-password-of-no-server"},
    )
    assert stack.kubernetes is not None
    answers = Answers()
    keda(answers)

    with serving(answers, tmp_path) as kubeconfig:
        view = ClusterView.of(kubeconfig, "test")
        (found,) = cluster_scaling.refusals(stack, stack.kubernetes, view)
    assert "KEDA connects to 10.20.0.9" in found.problem
    assert "set redis.host to the name" in found.fix


@pytest.mark.parametrize(
    "parts",
    [
        {"ingress": {"className": "nginx"}},
        # cert-manager makes the Secret later.
        {
            "ingress": {
                "className": "nginx",
                "tlsSecret": "dify-tls",
                "annotations": {"cert-manager.io/cluster-issuer": "letsencrypt"},
            }
        },
        {"gateway": {"name": "public", "namespace": "infra", "section": "https"}},
    ],
)
def test_a_route_through_a_controller_that_is_there(tmp_path: Path, parts: dict[str, Any]) -> None:
    answers = Answers()
    controllers(answers)

    with serving(answers, tmp_path) as kubeconfig:
        assert deploy(kubeconfig, ROUTED, parts)


def test_an_issuer_that_is_there(tmp_path: Path) -> None:
    answers = Answers()
    issuers(answers)
    # A CA of one's own issues certificates for addresses too.
    plain = {**issued_by("internal"), "publicUrl": "https://192.0.2.1"}

    with serving(answers, tmp_path) as kubeconfig:
        assert deploy(kubeconfig, plain, {})


def test_an_issuer_that_the_user_may_not_read_is_not_checked(tmp_path: Path) -> None:
    answers = Answers(denied=["get clusterissuers"])
    issuers(answers)

    with serving(answers, tmp_path) as kubeconfig:
        assert deploy(kubeconfig, issued_by("other"), {})


def test_the_stack_s_own_port_is_free(tmp_path: Path) -> None:
    answers = Answers()
    ours(**{"services/edge": {"spec": {"type": "NodePort", "ports": [{"nodePort": 30443}]}}})(answers)
    answers.ports[30443] = "provided port is already allocated"

    with serving(answers, tmp_path) as kubeconfig:
        assert deploy(kubeconfig, {}, {"serviceType": "NodePort", "nodePort": 30443})


def test_what_the_user_may_not_read_is_not_checked(tmp_path: Path) -> None:
    """An administrator of one namespace reads no nodes and no classes."""
    answers = Answers(
        objects={path: one for path, one in sound().items() if "nodes" not in path and path != CLASSES}
    )

    with serving(answers, tmp_path) as kubeconfig:
        assert deploy(kubeconfig, {}, {"storageClass": "fast"})


def test_nodes_of_two_architectures_are_warned_about(tmp_path: Path) -> None:
    answers = Answers()
    answers.objects["/api/v1/nodes"] = a_list(node(), node("graviton", architecture="arm64"))
    stack = settings(
        {"platform": "kubernetes", "kubernetes": {**REGISTRY, "registry": "r.example:5000/dify"}}
    )
    assert stack.kubernetes is not None

    with serving(answers, tmp_path) as kubeconfig:
        (line,) = cluster_room.warnings(stack, stack.kubernetes, ClusterView.of(kubeconfig, "test"))
    assert "graviton" in line
