"""The services of a stack from inside, on a Docker engine or on a cluster."""

import shutil
import time
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Protocol
from urllib.parse import urlencode

import testinfra
from testinfra.host import Host

from infra.engine.cluster import SCHEME, Cluster, ClusterError, Workload
from infra.engine.runtime import WorkloadError, runtime
from smoke_tests.engine import SETTLE_SECONDS, Container, Engine, settled
from smoke_tests.exports import TargetError
from smoke_tests.namespace import Namespace, read

KUBECTL = "kubectl"
LOG_LINES = 5
RUN_SECONDS = 60


class Inside(Protocol):
    """What the tests need of the services of a stack, by the references of its exports."""

    def settled(self, name: str) -> Container:
        """Return a service once it is no longer starting, or after 60 s of this run. Raises AssertionError."""

    def run(self, name: str, command: list[str]) -> tuple[int, str]:
        """Run a command that ends by itself; return its exit code and output. Raises AssertionError."""

    def of_stack(self) -> list[Container]:
        """Return a container for each service that has the stack's label, exported or not. Raises AssertionError."""

    def internal(self, network: str) -> bool:
        """Return whether a network is internal, without a route out. Raises AssertionError."""

    def close(self) -> None:
        """Close connections."""


class Pods(Inside):
    """The services of a stack on a cluster."""

    def __init__(self, references: Mapping[str, str]) -> None:
        self._references = references
        self._settle_until = time.monotonic() + SETTLE_SECONDS

    @cached_property
    def namespace(self) -> Namespace:
        """The objects of the stack's namespace, as they were at the first use. Raises AssertionError."""
        return read(Workload.parse(next(iter(self._references.values()))))

    def settled(self, name: str) -> Container:
        """See Inside."""
        return settled(_container, name, self._settle_until)

    def run(self, name: str, command: list[str]) -> tuple[int, str]:
        """See Inside."""
        try:
            with runtime(name, RUN_SECONDS) as service:
                ran = service.run(command)
        except WorkloadError as problem:
            raise AssertionError(f"{command[0]} cannot run in {name}: {problem}") from None
        return ran.code, ran.output

    def of_stack(self) -> list[Container]:
        """See Inside."""
        return self.namespace.containers(self._references)

    def internal(self, network: str) -> bool:
        """See Inside: a policy is the way out."""
        return not self.namespace.way_out(network)

    def close(self) -> None:
        """See Inside: each request has a connection of its own."""


def on_cluster(reference: str) -> bool:
    """Tell whether a reference of the exports names something on a cluster."""
    return reference.startswith(f"{SCHEME}:")


def inside_or_reason(stack: str, references: Mapping[str, str]) -> Inside | str:
    """Return the services of a stack from inside, or why they cannot be inspected."""
    if any(map(on_cluster, references.values())):
        return Pods(references)
    try:
        return Engine(stack)
    except TargetError as problem:
        return str(problem)


def no_shell(references: Mapping[str, str]) -> str:
    """Return why testinfra cannot run a command in a service; empty where it can."""
    if any(map(on_cluster, references.values())) and not shutil.which(KUBECTL):
        return "they run commands in pods, and kubectl is not on PATH"
    return ""


def host_of(reference: str) -> Host:
    """Return testinfra's host for a service: by `docker exec`, or by `kubectl exec` in a ready pod."""
    if not on_cluster(reference):
        return testinfra.get_host(f"docker://{reference}")
    at = Workload.parse(reference)
    with runtime(reference, RUN_SECONDS) as service:
        uid = service.identity()
    pod = next(one["metadata"]["name"] for one in _pods(at.cluster(), at) if one["metadata"]["uid"] == uid)
    where = {
        "namespace": at.namespace,
        "container": at.name,
        "context": at.context,
        "kubeconfig": at.kubeconfig,
    }
    return testinfra.get_host(f"kubectl://{pod}?{urlencode(where)}")


def _pods(cluster: Cluster, at: Workload) -> list[dict[str, Any]]:
    return cluster.pods(at.namespace, f"dify-kit.service={at.name}")


def _container(reference: str) -> Container:
    at = Workload.parse(reference)
    try:
        cluster = at.cluster()
        found = cluster.workload(at.kind, at.namespace, at.name)
        pods = _pods(cluster, at) if found else []
        first = pods[0]["metadata"]["name"] if pods else ""
        said = cluster.logs(at.namespace, first, at.name, lines=LOG_LINES) if first else ""
    except ClusterError as problem:
        raise AssertionError(f"{at.kind} {at.name} cannot be read: {problem}; {problem.fix}") from None
    if found is None:
        raise AssertionError(
            f"{at.kind} {at.name} does not exist in namespace {at.namespace}. Run `make up` to create it"
        )
    status, health, exit_code = _state(at.kind, found)
    return Container(
        name=at.name, service=at.name, status=status, health=health, exit_code=exit_code, said=said.strip()
    )


def _state(kind: str, found: Mapping[str, Any]) -> tuple[str, str, int]:
    """Return status, health and exit code in Docker's terms: healthy is a workload whose pods are all ready."""
    status = found.get("status") or {}
    if kind == "Job":
        if status.get("succeeded"):
            return "exited", "", 0
        return ("exited", "", 1) if status.get("failed") else ("running", "starting", 0)
    wanted = int(found["spec"].get("replicas", 1))
    ready = int(status.get("readyReplicas") or 0)
    return "running", "healthy" if 0 < wanted <= ready else "starting", 0
