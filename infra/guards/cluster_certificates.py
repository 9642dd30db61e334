"""Refuses certificates of cert-manager that the cluster cannot make."""

from collections.abc import Iterator

from infra.guards.cluster_facts import Plain, View
from infra.guards.findings import Refusal
from infra.settings.certificates import address_of
from infra.settings.kubernetes import Kubernetes
from infra.settings.origins import is_loopback
from infra.settings.tls import CERT_MANAGER, Issuer, Tls

GROUP = "cert-manager.io"
API = f"/apis/{GROUP}/v1"


def managed(tls: Tls) -> list[tuple[str, str]]:
    """Return the kinds of objects that a stack has for its certificate: (group, resource)."""
    return [(GROUP, "certificates")] if tls.issuer else []


def refusals(chosen: Kubernetes, tls: Tls, view: View, *, exists: bool) -> Iterator[Refusal]:
    """Yield why no certificate would be made; `exists`: the namespace of the stack does."""
    issuer = tls.issuer
    if issuer is None:
        return
    if view.look(API) is None:
        yield Refusal(
            problem=f"dify:tls.mode: {CERT_MANAGER!r}: the cluster has no cert-manager ({GROUP}/v1)",
            fix="install it with an issuer, or set tls.mode to files with a certificate of your own",
        )
        return
    own = issuer.kind == "Issuer"
    resource = f"{issuer.kind.lower()}s"
    if not view.allowed("get", GROUP, resource, chosen.namespace if own else ""):
        return
    place = f"{API}/namespaces/{chosen.namespace}" if own else API
    found = view.look(f"{place}/{resource}/{issuer.name}") if exists or not own else None
    if found is None:
        where = f"of namespace {chosen.namespace}" if own else "of the cluster"
        yield Refusal(
            problem=f"dify:tls.issuer.name: {issuer.name!r} is no {issuer.kind} {where}",
            fix="name one that `kubectl get clusterissuers,issuers --all-namespaces` lists, and its kind in "
            "dify:tls.issuer.kind",
        )
        return
    yield from _unready(issuer, found)
    yield from _unfit(issuer, tls, found)


def _unready(issuer: Issuer, found: Plain) -> Iterator[Refusal]:
    for one in (found.get("status") or {}).get("conditions") or []:
        if one.get("type") == "Ready" and one.get("status") == "False":
            yield Refusal(
                problem=f"dify:tls.issuer.name: {issuer.kind} {issuer.name!r} is not ready: "
                f"{one.get('message') or one.get('reason')}",
                fix="correct what it says, or name another one",
            )


def _unfit(issuer: Issuer, tls: Tls, found: Plain) -> Iterator[Refusal]:
    """Yield the refusal of names for which no public CA issues a certificate."""
    unfit = [host for host in tls.hosts if address_of(host) or is_loopback(host)]
    if unfit and "acme" in (found.get("spec") or {}):
        yield Refusal(
            problem=f"dify:publicUrl: {', '.join(unfit)}: {issuer.kind} {issuer.name!r} is of ACME, and no such CA "
            "issues a certificate for it",
            fix="use host names that resolve to the edge in publicUrl, urls and serverNames, or an issuer with a CA of "
            "your own",
        )
