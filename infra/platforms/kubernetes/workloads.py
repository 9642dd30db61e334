"""What runs a service's pods: a Deployment, a StatefulSet or a Job, with its Service and its disruption budget."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from infra.catalogue import ports
from infra.catalogue import services as catalogue
from infra.edge.ring import replica_names
from infra.platforms.kubernetes.names import STACK_LABEL, dns_label, selector
from infra.platforms.kubernetes.pods import Parts, pod_template
from infra.platforms.kubernetes.storage import UNWAITED, exclusive
from infra.services.spec import ServiceSpec
from infra.settings.kubernetes import Kubernetes

# Celery's scheduler sends each task once for each process of it.
SINGLE = frozenset({"worker-beat"})
# Where a service answers the stack besides its main port.
MORE_PORTS: Mapping[str, Sequence[int]] = {
    "nginx": (ports.EDGE_LLM,),
    "llm-edge": (ports.EDGE_OWNER_INSIDE,),
    "gateway": (ports.GATEWAY_INTERNAL,),
    "weaviate": (ports.WEAVIATE_GRPC,),
    "plugin-daemon": (ports.PLUGIN_DAEMON_DEBUG,),
    # A port that no setting uses has no listener.
    "data-proxy": (ports.POSTGRES, ports.REDIS, ports.VECTOR_SERVER, ports.VECTOR_SERVER_GRPC),
    "data-egress": (ports.POSTGRES, ports.REDIS, ports.VECTOR_SERVER, ports.VECTOR_SERVER_GRPC),
}
# Pulumi waits until the object exists, and no longer: `WorkloadReady` waits for its pods. Unlike with skipAwait it
# still waits for the end of a deletion, so that the next object of the name does not meet the one before.
EXISTS = {"pulumi.com/waitFor": "jsonpath={.metadata.uid}"}
# A StatefulSet labels its pods with their names.
POD_NAME = "statefulset.kubernetes.io/pod-name"
# The Service by which clients outside of the cluster reach nginx.
EDGE = "edge"


class Kind(StrEnum):
    """The kind of object that runs the pods of a service."""

    DEPLOYMENT = "Deployment"
    STATEFUL_SET = "StatefulSet"
    JOB = "Job"


def kind_of(spec: ServiceSpec, *, replicas: int = 1) -> Kind:
    """Return what runs a service.

    Data stores are StatefulSets, so that never two pods write to one volume: a Deployment replaces a pod that a drain
    or a person deletes before that one has ended. So is the owner of the LLM proxy's counts. So are several pods of
    nginx, which find each other by name: each owns the counts of some credentials (`infra.edge.ring`).
    """
    if spec.job:
        return Kind.JOB
    if spec.name == catalogue.NGINX and replicas > 1:
        return Kind.STATEFUL_SET
    alone = catalogue.SERVICES[spec.name].holds_data or spec.name == catalogue.LLM_EDGE
    return Kind.STATEFUL_SET if alone else Kind.DEPLOYMENT


def workload(
    stack: str, spec: ServiceSpec, parts: Parts, *, replicas: int = 1, autoscaled: bool = False
) -> dict[str, Any]:
    """Return the object that runs a service. `infra.resources.workload_ready` waits for it.

    `replicas` is how many pods there may be. With `autoscaled` the object does not say how many there are.
    """
    kind = kind_of(spec, replicas=replicas)
    template = pod_template(stack, spec, parts, replicas=replicas, stateful=kind is Kind.STATEFUL_SET)
    if kind is Kind.JOB:
        return _object("batch/v1", kind, stack, spec, {"backoffLimit": 0, "template": template})
    if spec.name == catalogue.NGINX and replicas > 1:
        return _object("apps/v1", kind, stack, spec, _replicas(spec, template, replicas))
    shared = {"selector": {"matchLabels": dict(selector(spec.name))}, "template": template}
    if kind is Kind.STATEFUL_SET:
        # `infra.resources.workload_ready` deletes the pod, once the image of the next one is on its node.
        update = {"updateStrategy": {"type": "OnDelete"}}
        body = {"serviceName": dns_label(spec.name), "replicas": 1, **update, **shared}
        return _object("apps/v1", kind, stack, spec, body)
    one_at_a_time = spec.name in SINGLE or exclusive(spec, parts.volumes)
    strategy: dict[str, Any] = (
        {"type": "Recreate"}
        if one_at_a_time
        else {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    )
    # The autoscaler's number: a Deployment that had one would set it back at each change.
    number = {} if autoscaled else {"replicas": replicas}
    body = {**number, "revisionHistoryLimit": 2, "strategy": strategy, **shared}
    return _object("apps/v1", kind, stack, spec, body)


def _replicas(spec: ServiceSpec, template: dict[str, Any], replicas: int) -> dict[str, Any]:
    """Return the set of several pods of nginx. An update replaces one after the other, once the one before is ready."""
    return {
        "serviceName": dns_label(spec.name),
        "replicas": replicas,
        # At their start none waits for another one.
        "podManagementPolicy": "Parallel",
        "updateStrategy": {"type": "RollingUpdate"},
        "selector": {"matchLabels": dict(selector(spec.name))},
        "template": template,
    }


def _object(version: str, kind: Kind, stack: str, spec: ServiceSpec, body: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": version,
        "kind": str(kind),
        "metadata": {
            "name": dns_label(spec.name),
            "labels": {STACK_LABEL: stack, **selector(spec.name)},
            "annotations": dict(EXISTS),
        },
        "spec": body,
    }


def service(stack: str, spec: ServiceSpec) -> dict[str, Any] | None:
    """Return the Service by which others of the stack reach a service; None for one that answers no others."""
    main = catalogue.SERVICES[spec.name].port
    found = dict.fromkeys((*([main] if main else ()), *MORE_PORTS.get(spec.name, ())))
    if not found:
        return None
    return _service(
        stack, dns_label(spec.name), spec, {"type": "ClusterIP", "ports": [_port(one) for one in found]}
    )


def replica_services(stack: str, spec: ServiceSpec, replicas: int) -> list[dict[str, Any]]:
    """Return the Services by which several pods of nginx reach each other, one for each pod, with its name.

    Their addresses stay while pods come and go, and refuse connections while theirs is not ready. nginx reads the names
    once, at its start. In the pod itself its name is its own address.
    """
    if kind_of(spec, replicas=replicas) is not Kind.STATEFUL_SET or spec.name != catalogue.NGINX:
        return []
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "labels": {STACK_LABEL: stack}, "annotations": dict(UNWAITED)},
            "spec": {
                "type": "ClusterIP",
                "selector": {**selector(spec.name), POD_NAME: name},
                "ports": [_port(ports.EDGE_RING)],
            },
        }
        for name in replica_names(replicas)
    ]


def edge_service(stack: str, spec: ServiceSpec, settings: Kubernetes) -> dict[str, Any] | None:
    """Return the Service by which clients reach a service that publishes ports; None for all others."""
    published = {port.internal: port for port in spec.ports}
    if not published:
        return None
    # A set node port is that of publicUrl: HTTPS with TLS, HTTP without.
    last = max(published)
    outside = settings.service_type != "ClusterIP"
    body = {
        "type": settings.service_type,
        "ports": [
            {
                **_port(port.external, target=internal),
                **({"nodePort": settings.node_port} if settings.node_port and internal == last else {}),
            }
            for internal, port in sorted(published.items())
        ],
        **({"externalTrafficPolicy": settings.external_traffic_policy} if outside else {}),
    }
    return _service(stack, EDGE, spec, body, annotations=settings.service_annotations)


def _service(
    stack: str,
    name: str,
    spec: ServiceSpec,
    body: dict[str, Any],
    *,
    annotations: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "labels": {STACK_LABEL: stack},
            "annotations": {**annotations, **UNWAITED},
        },
        "spec": {"selector": dict(selector(spec.name)), **body},
    }


def _port(number: int, *, target: int = 0) -> dict[str, Any]:
    return {"name": f"port-{number}", "port": number, "targetPort": target or number, "protocol": "TCP"}


def disruption_budget(stack: str, spec: ServiceSpec, replicas: int) -> dict[str, Any] | None:
    """Return how many pods of a service a drained node may take at a time; None for a service with a single pod.

    `replicas` is how many there may be. The budget holds for any number of them.
    """
    if replicas < 2:  # noqa: PLR2004  # one pod cannot be spared, and a drain must end
        return None
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": dns_label(spec.name), "labels": {STACK_LABEL: stack}},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": dict(selector(spec.name))}},
    }
