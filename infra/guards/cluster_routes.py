"""Refuses a route through a controller that the cluster does not have."""

from collections.abc import Iterator

from infra.guards.cluster_facts import View, items
from infra.guards.findings import Refusal
from infra.settings.kubernetes import Kubernetes

INGRESS_CLASSES = "/apis/networking.k8s.io/v1/ingressclasses"
GATEWAYS = "gateway.networking.k8s.io"
GATEWAY_API = f"/apis/{GATEWAYS}/v1"
_TLS = "kubernetes.io/tls"


def managed(chosen: Kubernetes) -> list[tuple[str, str]]:
    """Return the kinds of routes that a stack has: (group, resource)."""
    return [
        *([("networking.k8s.io", "ingresses")] if chosen.routes.ingress else []),
        *([(GATEWAYS, "httproutes")] if chosen.routes.gateway else []),
    ]


def refusals(chosen: Kubernetes, view: View, *, exists: bool) -> list[Refusal]:
    """Return why clients would not reach the edge by its routes."""
    return [*_ingress(chosen, view, exists=exists), *_gateway(chosen, view)]


def _ingress(chosen: Kubernetes, view: View, *, exists: bool) -> Iterator[Refusal]:
    ingress = chosen.routes.ingress
    if ingress is None:
        return
    listed = items(view, INGRESS_CLASSES)
    known = [str(one["metadata"]["name"]) for one in listed or []]
    if listed is not None and ingress.class_name not in known:
        yield Refusal(
            problem=f"dify:kubernetes.ingress.className: {ingress.class_name!r} is no IngressClass of the cluster",
            fix=f"it has {', '.join(sorted(known)) or 'none: install a controller'}",
        )
    if not ingress.tls_secret or ingress.issued:
        return
    kind = view.secret_type(chosen.namespace, ingress.tls_secret) if exists else None
    if kind == _TLS:
        return
    where = f"dify:kubernetes.ingress.tlsSecret: {ingress.tls_secret!r}"
    yield Refusal(
        problem=f"{where} is no Secret of namespace {chosen.namespace}"
        if kind is None
        else f"{where} is of the type {kind}, and the certificate of an Ingress is of {_TLS}",
        fix=f"`kubectl create secret tls NAME --namespace {chosen.namespace} --cert FILE --key FILE`, or let "
        "cert-manager make it by the annotation cert-manager.io/cluster-issuer",
    )


def _gateway(chosen: Kubernetes, view: View) -> Iterator[Refusal]:
    gateway = chosen.routes.gateway
    if gateway is None:
        return
    where = f"dify:kubernetes.gateway.name: {gateway.name!r}"
    if view.look(GATEWAY_API) is None:
        yield Refusal(
            problem=f"{where}: the cluster has no Gateway API ({GATEWAYS}/v1)",
            fix="install it with a controller, or use kubernetes.ingress",
        )
        return
    namespace = gateway.namespace or chosen.namespace
    if not view.allowed("get", GATEWAYS, "gateways", namespace):
        return
    found = view.look(f"{GATEWAY_API}/namespaces/{namespace}/gateways/{gateway.name}")
    if found is None:
        yield Refusal(
            problem=f"{where} is no Gateway of namespace {namespace}",
            fix="name one that `kubectl get gateways --all-namespaces` lists, and its namespace in "
            "dify:kubernetes.gateway.namespace",
        )
        return
    names = [str(one.get("name")) for one in (found.get("spec") or {}).get("listeners") or []]
    if gateway.section and gateway.section not in names:
        yield Refusal(
            problem=f"dify:kubernetes.gateway.section: {gateway.section!r} is no listener of Gateway {gateway.name}",
            fix=f"it has {', '.join(names) or 'none'}",
        )
