"""The Ingress and the HTTPRoute that lead to the Service of nginx."""

from collections.abc import Sequence
from typing import Any

from infra.platforms.kubernetes.names import STACK_LABEL
from infra.platforms.kubernetes.storage import UNWAITED
from infra.platforms.kubernetes.workloads import EDGE
from infra.settings.routes import Gateway, Ingress, Routes


def routes(stack: str, chosen: Routes, port: int) -> list[dict[str, Any]]:
    """Return the objects that send requests for the hosts of a stack to a port of Service `edge`.

    Pulumi does not wait for them: without a controller they never get an address, and `up` would end with no reason.
    """
    found = []
    if chosen.ingress:
        found.append(_ingress(stack, chosen.ingress, chosen.hosts, port))
    if chosen.gateway:
        found.append(_http_route(stack, chosen.gateway, chosen.hosts, port))
    return found


def _ingress(stack: str, chosen: Ingress, hosts: Sequence[str], port: int) -> dict[str, Any]:
    backend = {"service": {"name": EDGE, "port": {"number": port}}}
    paths = [{"path": "/", "pathType": "Prefix", "backend": backend}]
    tls = [{"hosts": list(hosts), "secretName": chosen.tls_secret}] if chosen.tls_secret else []
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {
            "name": EDGE,
            "labels": {STACK_LABEL: stack},
            "annotations": {**chosen.annotations, **UNWAITED},
        },
        "spec": {
            "ingressClassName": chosen.class_name,
            "rules": [{"host": host, "http": {"paths": paths}} for host in hosts],
            **({"tls": tls} if tls else {}),
        },
    }


def _http_route(stack: str, chosen: Gateway, hosts: Sequence[str], port: int) -> dict[str, Any]:
    parent = {
        "name": chosen.name,
        **({"namespace": chosen.namespace} if chosen.namespace else {}),
        **({"sectionName": chosen.section} if chosen.section else {}),
    }
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": EDGE, "labels": {STACK_LABEL: stack}, "annotations": dict(UNWAITED)},
        "spec": {
            "parentRefs": [parent],
            "hostnames": list(hosts),
            "rules": [{"backendRefs": [{"name": EDGE, "port": port}]}],
        },
    }
