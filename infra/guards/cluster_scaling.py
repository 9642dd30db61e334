"""Refuses autoscalers that the cluster, or the stack, gives no numbers."""

from collections.abc import Iterator

from infra.guards.cluster_facts import METRICS, View
from infra.guards.findings import Refusal
from infra.settings.autoscale import Autoscale
from infra.settings.kubernetes import SCALED, Kubernetes
from infra.settings.stack import Settings

KEDA = "keda.sh"
KEDA_API = f"/apis/{KEDA}/v1alpha1"


def managed(chosen: Kubernetes) -> list[tuple[str, str]]:
    """Return the kinds of autoscalers that a stack has: (group, resource)."""
    by_queue = [one.jobs > 0 for one in chosen.autoscale.values()]
    return [
        *([("autoscaling", "horizontalpodautoscalers")] if not all(by_queue) else []),
        *([(KEDA, "scaledobjects"), (KEDA, "triggerauthentications")] if any(by_queue) else []),
    ]


def refusals(settings: Settings, chosen: Kubernetes, view: View) -> Iterator[Refusal]:
    """Yield why a number of pods would never change."""
    listed = [(part, chosen.autoscale[name]) for part, name in SCALED.items() if name in chosen.autoscale]
    yield from _by_cpu([(part, one) for part, one in listed if not one.jobs], view)
    for part, one in listed:
        if one.jobs:
            yield from _by_queue(settings, part, one, view)


def _by_cpu(listed: list[tuple[str, Autoscale]], view: View) -> Iterator[Refusal]:
    if not listed or view.look(METRICS) is not None:
        return
    part, one = listed[0]
    yield Refusal(
        problem=f"dify:kubernetes.autoscale.{part}.max: {one.most}: the cluster has no metrics API "
        "(metrics.k8s.io), by which the CPU of pods is measured",
        fix="install metrics-server, or set it to 0 and a number in dify:kubernetes.replicas",
    )


def _by_queue(settings: Settings, part: str, one: Autoscale, view: View) -> Iterator[Refusal]:
    where = f"dify:kubernetes.autoscale.{part}"
    if view.look(KEDA_API) is None:
        yield Refusal(
            problem=f"{where}.jobsPerPod: {one.jobs}: the cluster has no KEDA ({KEDA}/v1alpha1), which reads the "
            "lengths of queues",
            fix="install KEDA 2.12 or newer, or set it to 0: the CPU decides then",
        )
        return
    server = settings.redis
    if server and server.tls and server.server_name != server.host:
        yield Refusal(
            problem=f"{where}.jobsPerPod: {one.jobs}: KEDA connects to {server.host}, and the certificate of this "
            f"Redis names {server.server_name}",
            fix="set redis.host to the name in the certificate, or jobsPerPod to 0",
        )
