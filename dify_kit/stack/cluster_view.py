"""What the command line shows of a cluster's objects: pods as containers, workloads as scales, Events as notices."""

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from dify_kit.containers.docker_host import Container, holds_secret
from dify_kit.containers.seen import Notice, Scale
from infra.catalogue.names import service_name
from infra.engine.cluster import POD, Workload
from infra.engine.pod_state import ready, state_of
from infra.platforms.kubernetes.names import JOB_LABEL, SERVICE_LABEL
from infra.resources.workload_state import trouble, unscheduled
from infra.settings.kubernetes import Kubernetes

Plain = Mapping[str, Any]
# Events of this type say that something went wrong; those of type Normal, that a pod starts.
WARNING = "Warning"
# Every service that starts has some of these.
_STARTING = "Startup probe failed"
# Why the maker of pods cannot make one.
_NO_POD = "FailedCreate"
JOB = "Job"


def reference(chosen: Kubernetes, kind: str, name: str) -> str:
    """Return the reference of an object of the stack's namespace."""
    return str(
        Workload(
            kubeconfig=str(chosen.kubeconfig),
            context=chosen.context,
            namespace=chosen.namespace,
            kind=kind,
            name=name,
        )
    )


def service_of(labels: Mapping[str, str]) -> str:
    """Return the service of an object, by its labels; empty for an object of none."""
    return service_name(labels[SERVICE_LABEL]) if SERVICE_LABEL in labels else ""


def secrets_by_name(found: Iterable[Plain]) -> dict[str, frozenset[str]]:
    """Return the values of variables that hold secrets, by the name of the Secret that has them."""
    return {str(one["metadata"]["name"]): frozenset(_secret_values(one.get("data") or {})) for one in found}


def _secret_values(data: Mapping[str, str]) -> Iterable[str]:
    for variable, encoded in data.items():
        try:
            value = base64.b64decode(encoded or "").decode()
        except (binascii.Error, UnicodeDecodeError):
            continue
        if value and holds_secret(variable):
            yield value


def container_of(pod: Plain, chosen: Kubernetes, secrets: Mapping[str, frozenset[str]]) -> Container:
    """Return a pod of a service."""
    name, main = str(pod["metadata"]["name"]), pod["spec"]["containers"][0]
    labels = pod["metadata"].get("labels") or {}
    state = state_of(pod)
    sources = [(one.get("secretRef") or {}).get("name", "") for one in main.get("envFrom") or []]
    limits = (main.get("resources") or {}).get("limits") or {}
    return Container(
        id=reference(chosen, POD, name),
        name=name,
        service=service_of(labels),
        job=JOB_LABEL in labels,
        state=state.status,
        health=state.health,
        exit_code=state.exit_code,
        restarts=state.restarts,
        image=str(main.get("image") or ""),
        memory_limit=_bytes(str(limits.get("memory") or "0")),
        secrets=frozenset().union(*(secrets.get(one, frozenset()) for one in sources)),
        pod=name,
        reason=state.reason,
    )


def _bytes(quantity: str) -> int:
    from kubernetes.utils import parse_quantity  # noqa: PLC0415  # imports the client: a second

    return int(parse_quantity(quantity))


def scale_of(workload: Plain, pods: Sequence[Plain], events: Sequence[Plain]) -> Scale:
    """Return how many pods a workload is to have and has, and what keeps the missing ones from being ready."""
    metadata, spec = workload["metadata"], workload["spec"]
    kind, name = str(workload["kind"]), str(metadata["name"])
    # A Job that has ended needs no pod, and its pods may be gone.
    wanted = 0 if kind == JOB else int(spec.get("replicas", 1))
    there = sum(1 for pod in pods if ready(pod))
    return Scale(
        workload=f"{kind} {name}",
        resource=f"{metadata['namespace']}/{name}",
        wanted=wanted,
        ready=there,
        job=kind == JOB,
        image=str(spec["template"]["spec"]["containers"][0].get("image") or ""),
        trouble=_trouble(name, pods, events) if there < wanted else "",
    )


def _trouble(name: str, pods: Sequence[Plain], events: Sequence[Plain]) -> str:
    for pod in pods:
        if found := trouble(pod):
            return f"pod {found.pod}, container {found.container}: {found.reason}"
        if why := unscheduled(pod):
            return f"no node takes pod {pod['metadata']['name']}: {why}"
    if pods:
        return ""
    makers = [one for one in events if one.get("reason") == _NO_POD and _made_by(one, name)]
    return f"no pod can be made: {_text(max(makers, key=moment_of))}" if makers else ""


def _made_by(event: Plain, name: str) -> bool:
    """Tell whether an Event is about what makes the pods of a workload: itself, or a ReplicaSet of it."""
    about = event["involvedObject"]
    maker = str(about.get("name") or "")
    return maker == name or (about.get("kind") == "ReplicaSet" and maker.rpartition("-")[0] == name)


def notices_of(events: Iterable[Plain], pods: Iterable[Plain], workloads: Iterable[Plain]) -> list[Notice]:
    """Return the warnings about objects of the stack's services, the oldest first."""
    services = {
        str(one["metadata"]["name"]): service_of(one["metadata"].get("labels") or {})
        for one in (*pods, *workloads)
    }
    found = []
    for event in events:
        if event.get("type") != WARNING or str(event.get("message") or "").startswith(_STARTING):
            continue
        about = event["involvedObject"]
        name = str(about.get("name") or "")
        # An Event outlives its pod by an hour.
        service = services.get(name) or next(
            (one for maker, one in services.items() if one and name.startswith(f"{maker}-")), ""
        )
        if service:
            pod = name if about.get("kind") == POD else ""
            found.append(Notice(time=moment_of(event), service=service, pod=pod, text=_text(event)))
    return sorted(found, key=lambda one: one.time)


def moment_of(event: Plain) -> str:
    """Return when an Event was last seen: RFC 3339 in UTC, with a fraction as logs have it."""
    series = event.get("series") or {}
    text = series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime")
    moment = datetime.fromisoformat(text).astimezone(UTC) if text else datetime.fromtimestamp(0, tz=UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f000Z")


def _text(event: Plain) -> str:
    times = int((event.get("series") or {}).get("count") or event.get("count") or 1)
    said = " ".join(str(event.get("message") or "").split())
    return f"{event.get('reason')}: {said}{f' ({times} times)' if times > 1 else ''}"


def without_noise(document: Plain) -> dict[str, Any]:
    """Return an object without what the API server notes of its changes: who owns which field."""
    metadata = {key: value for key, value in document["metadata"].items() if key != "managedFields"}
    return {**document, "metadata": metadata}
