"""The objects that a new cluster gets: DNS and a storage class."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tests.cluster.components import DNS_DOMAIN, HELPER_IMAGE, STORAGE_CONFIG, STORAGE_NAMESPACE
from tests.cluster.plan import DNS_SERVICE
from tests.cluster.programs import COREDNS

DNS_IMAGE = f"docker.io/dify-kit-cluster/coredns:{COREDNS}"
STORAGE_CLASS = "local-path"
# The provisioner makes its helper pods with this account.
STORAGE_ACCOUNT = "local-path-provisioner-service-account"
COREFILE = f""".:53 {{
    errors
    health {{
        lameduck 5s
    }}
    ready
    kubernetes {DNS_DOMAIN} in-addr.arpa ip6.arpa {{
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
    }}
    forward . /etc/resolv.conf
    cache 30
    loop
    reload
}}
"""
_SYSTEM = {"namespace": "kube-system"}
_DNS_LABELS = {"k8s-app": "kube-dns"}

Object = Mapping[str, Any]


def _object(kind: str, version: str, name: str, *, system: bool = True, **fields: Any) -> Object:
    metadata = {"name": name, **(_SYSTEM if system else {}), **fields.pop("metadata", {})}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **fields}


def everything() -> Sequence[Object]:
    """Return all objects."""
    return [*dns(), *storage()]


def dns() -> Sequence[Object]:
    """Return CoreDNS: two replicas behind the cluster's address of DNS."""
    rules = [
        {
            "apiGroups": [""],
            "resources": ["endpoints", "services", "pods", "namespaces"],
            "verbs": ["list", "watch"],
        },
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ]
    ports = [
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
    ]
    return [
        _object("ServiceAccount", "v1", "coredns"),
        _object("ClusterRole", "rbac.authorization.k8s.io/v1", "system:coredns", system=False, rules=rules),
        _object(
            "ClusterRoleBinding",
            "rbac.authorization.k8s.io/v1",
            "system:coredns",
            system=False,
            roleRef={
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": "system:coredns",
            },
            subjects=[{"kind": "ServiceAccount", "name": "coredns", **_SYSTEM}],
        ),
        _object("ConfigMap", "v1", "coredns", data={"Corefile": COREFILE}),
        _object(
            "Deployment",
            "apps/v1",
            "coredns",
            metadata={"labels": _DNS_LABELS},
            spec={
                "replicas": 2,
                "selector": {"matchLabels": _DNS_LABELS},
                "template": {"metadata": {"labels": _DNS_LABELS}, "spec": _dns_pod()},
            },
        ),
        _object(
            "Service",
            "v1",
            "kube-dns",
            metadata={"labels": _DNS_LABELS},
            spec={"clusterIP": DNS_SERVICE, "selector": _DNS_LABELS, "ports": ports},
        ),
    ]


def _dns_pod() -> Object:
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": _DNS_LABELS},
    }
    server = {
        "name": "coredns",
        "image": DNS_IMAGE,
        "imagePullPolicy": "Never",
        "args": ["-conf", "/etc/coredns/Corefile"],
        "ports": [{"containerPort": 53, "name": "dns", "protocol": "UDP"}],
        "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns", "readOnly": True}],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]},
        },
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 2},
        "livenessProbe": {"httpGet": {"path": "/health", "port": 8080}, "initialDelaySeconds": 30},
        "resources": {
            "requests": {"cpu": "50m", "memory": "50Mi"},
            "limits": {"memory": "170Mi"},
        },
    }
    return {
        "serviceAccountName": "coredns",
        # The node's resolvers: what is outside of the cluster is forwarded to them.
        "dnsPolicy": "Default",
        "priorityClassName": "system-cluster-critical",
        "topologySpreadConstraints": [spread],
        "containers": [server],
        "volumes": [{"name": "config", "configMap": {"name": "coredns"}}],
    }


def storage() -> Sequence[Object]:
    """Return the default storage class: directories that every node has, so ReadWriteMany works."""
    helper = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "helper-pod"},
        "spec": {"containers": [{"name": "helper-pod", "image": HELPER_IMAGE, "imagePullPolicy": "Never"}]},
    }
    scripts = {
        "setup": '#!/bin/sh\nset -eu\nmkdir -m 0777 -p "$VOL_DIR"\n',
        "teardown": '#!/bin/sh\nset -eu\nrm -rf "$VOL_DIR"\n',
    }
    return [
        _object("ServiceAccount", "v1", STORAGE_ACCOUNT, metadata={"namespace": STORAGE_NAMESPACE}),
        _object(
            "ConfigMap",
            "v1",
            STORAGE_CONFIG,
            metadata={"namespace": STORAGE_NAMESPACE},
            # JSON is YAML, which the provisioner reads.
            data={**scripts, "helperPod.yaml": json.dumps(helper)},
        ),
        _object(
            "StorageClass",
            "storage.k8s.io/v1",
            STORAGE_CLASS,
            system=False,
            metadata={"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
            provisioner="rancher.io/local-path",
            reclaimPolicy="Delete",
            volumeBindingMode="WaitForFirstConsumer",
        ),
    ]
