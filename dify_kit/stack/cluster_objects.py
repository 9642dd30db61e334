"""The objects of a stack on a cluster, instead of those on a Docker engine.

Pulumi removes and repairs them by itself: the kit owns their fields (`PULUMI_K8S_ENABLE_PATCH_FORCE`), so nothing that
a run that was cut off left is in the way of the next one. The command line removes claims alone, and looks at the rest.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dify_kit.containers.docker_host import Container, Engine, Network
from dify_kit.containers.seen import Notice, Scale, Shown
from dify_kit.errors import KitError
from dify_kit.stack import cluster_view, settings
from dify_kit.workspace.files import StackFiles
from infra import hints
from infra.engine import cluster_changes
from infra.engine.cluster import Cluster, ClusterError, Workload
from infra.guards.findings import Publisher
from infra.platforms.kubernetes.names import SERVICE_LABEL, STACK_LABEL, dns_label, selector
from infra.settings.kubernetes import Kubernetes

# A store has its own grace to end, of two minutes at most.
PAUSE_SECONDS = 180.0


def cluster_objects(files: StackFiles) -> Engine | None:
    """Return the objects of a stack with `dify:platform kubernetes`; None for one on a Docker engine."""
    if not files.configured():
        return None
    reading = settings.read(files)
    chosen = reading.settings.kubernetes
    return (
        ClusterObjects(stack=files.stack, chosen=chosen) if chosen and reading.sound("kubernetes") else None
    )


def engine_of(files: StackFiles, docker: Callable[[], Engine]) -> Engine:
    """Return what runs a stack: its objects on a cluster, or the Docker engine. Raises KitError."""
    return cluster_objects(files) or docker()


def require_docker(files: StackFiles, command: str) -> None:
    """Raise KitError where a command cannot work: the stack is on a cluster."""
    if cluster_objects(files):
        raise KitError(
            f"`{command}` is not supported on dify:platform kubernetes",
            f"make a backup ({hints.kit('backup', stack=files.stack)}), set `release`, and deploy: "
            "docs/guides/kubernetes.md",
        )


@contextmanager
def explained() -> Iterator[None]:
    """Raise KitError for what a cluster refuses."""
    try:
        yield
    except ClusterError as problem:
        raise KitError(str(problem), problem.fix) from None


@dataclass(frozen=True, kw_only=True)
class ClusterObjects(Engine):
    """The claims, pods and workloads of one stack. Volumes are named as on an engine: `dify-<stack>-<volume>`."""

    stack: str
    chosen: Kubernetes

    def local(self) -> bool:
        """See Engine: no node is this machine."""
        return False

    def data_root(self) -> str:
        """See Engine."""
        return ""

    def containers(self, stack: str) -> list[Container]:
        """See Engine: Pulumi knows all of them."""
        del stack
        return []

    def inspected(self, stack: str) -> list[Mapping[str, Any]]:
        """See Engine."""
        del stack
        return []

    def image_names(self) -> Mapping[str, str]:
        """See Engine: the nodes have them."""
        return {}

    def networks(self, stack: str) -> list[Network]:
        """See Engine: Pulumi knows all of them."""
        del stack
        return []

    def volumes(self, names: list[str]) -> list[str]:
        """See Engine: the claims that exist."""
        with explained():
            found = self._cluster.claims(self.chosen.namespace)
        return [name for name in names if self._claim(name) in found]

    def volume_labels(self, names: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
        """See Engine."""
        with explained():
            found = self._cluster.claims(self.chosen.namespace)
        return {
            name: dict(found[claim]["metadata"].get("labels") or {})
            for name in names
            if (claim := self._claim(name)) in found
        }

    def container_labels(self, names: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
        """See Engine."""
        del names
        return {}

    def publishers(self, port: int) -> list[Publisher]:
        """See Engine: no port of a host is published."""
        del port
        return []

    def remove_container(self, container_id: str, *, stop: bool = False) -> None:
        """See Engine."""

    def restart_container(self, container_id: str) -> None:
        """See Engine."""

    def stop_container(self, container_id: str) -> None:
        """See Engine: of a pod. What runs it has no pods afterwards; a Job is left to its end."""
        with explained():
            pod = self._cluster.pod(self.chosen.namespace, Workload.parse(container_id).name)
            service = cluster_view.service_of((pod or {"metadata": {}})["metadata"].get("labels") or {})
            for one in self._workloads(self.stack):
                labels = one["metadata"].get("labels") or {}
                if service and one["kind"] != cluster_view.JOB and cluster_view.service_of(labels) == service:
                    self._end(service, str(one["kind"]))

    def remove_network(self, network_id: str) -> None:
        """See Engine."""

    def remove_volume(self, name: str) -> None:
        """Delete a claim; the class decides whether its data goes with it."""
        with explained():
            self._cluster.delete_claim(self.chosen.namespace, self._claim(name))

    def images(self, names: list[str]) -> list[str]:
        """See Engine: the nodes have them."""
        del names
        return []

    def image_ids(self, names: Sequence[str]) -> Mapping[str, str]:
        """See Engine."""
        del names
        return {}

    def can_reach_registry(self, image: str, deadline: float) -> str:
        """See Engine: the nodes pull."""
        del image, deadline
        return ""

    def pause(self, container: Container) -> None:
        """See Engine. Stores alone are paused: each is a StatefulSet of one pod."""
        with explained():
            self._end(container.service, "StatefulSet")

    def _end(self, service: str, kind: str) -> None:
        """Scale what runs a service to none, and wait for the end of its pods. Raises ClusterError."""

        def left() -> str:
            there = _of(service, self._pods(self.stack))
            return f"pod {there[0]['metadata']['name']} is still there" if there else ""

        cluster_changes.scale(self._cluster, self.chosen.namespace, dns_label(service), 0, kind)
        cluster_changes.wait(f"the end of {service}", PAUSE_SECONDS, left)

    def resume(self, container: Container) -> None:
        """See Engine."""
        with explained():
            cluster_changes.scale(self._cluster, self.chosen.namespace, dns_label(container.service), 1)

    def workloads(self, stack: str) -> list[Container]:
        """See Engine: the pods of services."""
        with explained():
            return [
                cluster_view.container_of(pod, self.chosen, self._secrets)
                for pod in self._pods(stack)
                if SERVICE_LABEL in (pod["metadata"].get("labels") or {})
            ]

    def scales(self, stack: str) -> Mapping[str, Scale]:
        """See Engine."""
        with explained():
            pods, events = self._pods(stack), self._cluster.events(self.chosen.namespace)
            return {
                service: cluster_view.scale_of(one, _of(service, pods), events)
                for one in self._workloads(stack)
                if (service := cluster_view.service_of(one["metadata"].get("labels") or {}))
            }

    def notices(self, stack: str) -> list[Notice]:
        """See Engine: Events of type Warning, which the cluster keeps for an hour."""
        with explained():
            events = self._cluster.events(self.chosen.namespace)
            return cluster_view.notices_of(events, self._pods(stack), self._workloads(stack))

    def shown(self, stack: str) -> list[Shown]:
        """See Engine: pods, what makes them, claims and Events. Secrets are left out."""
        with explained():
            kinds = {
                "pods": self._pods(stack),
                "workloads": self._workloads(stack),
                "claims": list(self._cluster.claims(self.chosen.namespace).values()),
                "events": self._cluster.events(self.chosen.namespace),
            }
        return [
            Shown(
                path=f"cluster/{kind}.json",
                what=f"{len(found)} {kind} of namespace {self.chosen.namespace}",
                content=[cluster_view.without_noise(one) for one in found],
            )
            for kind, found in kinds.items()
        ]

    @cached_property
    def _secrets(self) -> Mapping[str, frozenset[str]]:
        return cluster_view.secrets_by_name(
            self._cluster.secrets(self.chosen.namespace, _labelled(self.stack))
        )

    def _pods(self, stack: str) -> list[dict[str, Any]]:
        return self._cluster.pods(self.chosen.namespace, _labelled(stack))

    def _workloads(self, stack: str) -> list[dict[str, Any]]:
        return self._cluster.workloads(self.chosen.namespace, _labelled(stack))

    @cached_property
    def _cluster(self) -> Cluster:
        return Cluster.of(self.chosen.kubeconfig, self.chosen.context)

    def _claim(self, name: str) -> str:
        return dns_label(name.removeprefix(f"dify-{self.stack}-"))


def _labelled(stack: str) -> str:
    return f"{STACK_LABEL}={stack}"


def _of(service: str, pods: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    wanted = selector(service).items()
    return [pod for pod in pods if wanted <= (pod["metadata"].get("labels") or {}).items()]
