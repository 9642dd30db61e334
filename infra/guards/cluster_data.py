"""Refuses external servers that a stack on a cluster could not work with, as on Docker, before anything is created.

They are connected to from this machine. A managed database is often reached from the cluster alone: that it cannot be
reached from here is a warning then.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from infra.catalogue.addresses import CLUSTER_RESOLVER
from infra.guards import database, redis_server, vector_server
from infra.guards.cluster_facts import View
from infra.guards.findings import Refusal
from infra.guards.servers import UNREACHABLE
from infra.platforms.kubernetes.names import dns_label
from infra.settings.kubernetes import Kubernetes
from infra.settings.stack import Settings


@dataclass(frozen=True, kw_only=True)
class _Claims:
    """The claims of a stack, as the guards of external servers look at volumes."""

    stack: str
    namespace: str
    view: View

    def local(self) -> bool:
        """See DataView."""
        return True

    def volume_labels(self, names: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
        """See DataView."""
        held = self.view.claims(self.namespace)
        by_name = {name: dns_label(name.removeprefix(f"dify-{self.stack}-")) for name in names}
        return {
            name: held[claim]["metadata"].get("labels") or {}
            for name, claim in by_name.items()
            if claim in held
        }


def refusals(settings: Settings, chosen: Kubernetes, view: View) -> list[Refusal]:
    """Return why the stack cannot work with the servers of `dify:database`, `dify:redis` and `dify:vectorServer`."""
    return [*_dns(settings, view), *(one for one in _found(settings, chosen, view) if not _far(one))]


def warnings(settings: Settings, chosen: Kubernetes, view: View) -> list[str]:
    """Return which servers could not be checked."""
    return [
        f"{one.problem}. The cluster may reach it; where it does not, `up` ends with the first service that needs it"
        for one in _found(settings, chosen, view)
        if _far(one)
    ]


def _far(refusal: Refusal) -> bool:
    return UNREACHABLE in refusal.problem


def _found(settings: Settings, chosen: Kubernetes, view: View) -> list[Refusal]:
    claims = _Claims(stack=settings.stack, namespace=chosen.namespace, view=view)
    guards = (database, redis_server, vector_server)
    return [one for guard in guards for one in guard.refusals(settings, claims)]


def _dns(settings: Settings, view: View) -> list[Refusal]:
    """Refuse external servers where the proxy that reaches them could not resolve their names."""
    if not settings.external_services:
        return []
    service = CLUSTER_RESOLVER.partition(".")[0]
    if view.look(f"/api/v1/namespaces/kube-system/services/{service}") is not None:
        return []
    servers = {
        "database": settings.database,
        "redis": settings.redis,
        "vectorServer": settings.vector_server,
    }
    key, server = next((key, one) for key, one in servers.items() if one)
    return [
        Refusal(
            problem=f"dify:{key}.host: {server.host}: the cluster has no Service {service} in "
            "kube-system, by which the proxy to the server resolves its name",
            fix=f"make a Service of that name for the cluster's DNS, or remove dify:{key}.host",
        )
    ]
