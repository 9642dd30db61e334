"""`dify:platform` and `dify:kubernetes`: the cluster that a stack runs on."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from infra import hints
from infra.settings import origins
from infra.settings.autoscale import Autoscale, read_autoscale
from infra.settings.image_source import MIRROR, REGISTRY_HOST
from infra.settings.reader import Section
from infra.settings.routes import Routes, Surroundings, read_annotations, read_routes
from infra.settings.service_settings import ServiceLimits

DOCKER, KUBERNETES = "docker", "kubernetes"
PLATFORMS = (DOCKER, KUBERNETES)
SERVICE_TYPES = ("ClusterIP", "NodePort", "LoadBalancer")
# Local keeps the addresses of clients, by which limits count and dify:consoleAllowFrom decides.
LOCAL, CLUSTER = "Local", "Cluster"
# The value of `registry` for images that are in the nodes already.
PRELOADED = "preloaded"
MOST_REPLICAS = 50
MOST_GIGABYTES = 65536
# The parts of `replicas`, with the service of the catalogue that each is of.
SCALED: Mapping[str, str] = {
    "api": "api",
    "worker": "worker",
    "web": "web",
    "gateway": "gateway",
    "edge": "nginx",
}
# They mount Dify's file storage.
_SHARE_STORAGE = ("api", "worker")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_SUBDOMAIN = re.compile(rf"(?=.{{1,253}}\Z){_LABEL.pattern}(\.{_LABEL.pattern})*", re.ASCII)
_NAME_FIX = "use lower-case letters, digits and '-', as `kubectl get` lists it"
_ANNOTATION_EXAMPLE = "service.beta.kubernetes.io/aws-load-balancer-proxy-protocol"
# Namespaces of the cluster itself.
_TAKEN = frozenset({"default", "kube-system", "kube-public", "kube-node-lease"})


@dataclass(frozen=True, kw_only=True)
class Kubernetes:
    """The cluster of a stack, and how the stack runs there.

    ``storage_class`` is empty for the cluster's default one, ``shared_storage_class`` where Dify's file storage is on a
    claim of one node. ``node_port`` is 0 where the cluster chooses. ``replicas`` maps services of the catalogue to how
    many pods each has; all others have one. ``autoscale`` has those of which the cluster chooses the number, with
    ``replicas`` as the least. ``registry`` has the images that the kit builds: a prefix, or `PRELOADED`.
    ``volume_gigabytes`` is the size of each claim, in GiB. ``service_annotations`` are those of the edge's Service.
    """

    kubeconfig: Path
    context: str
    namespace: str
    storage_class: str
    shared_storage_class: str
    volume_gigabytes: int
    service_type: str
    node_port: int
    external_traffic_policy: str
    replicas: Mapping[str, int]
    autoscale: Mapping[str, Autoscale]
    routes: Routes
    image_pull_secret: str
    registry: str
    service_annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Around:
    """The settings that `dify:kubernetes` must fit."""

    stack: str
    tls_mode: str
    images: str
    gateway: bool
    console_allow_from: tuple[str, ...]
    proxy_protocol: bool
    resources: Mapping[str, ServiceLimits]
    routes: Surroundings

    @property
    def builds(self) -> str:
        """The images that the stack runs and no public registry has; empty for none."""
        if self.images == "local":
            return "the images of dify:images local"
        return "the image of the OAuth gateway" if self.gateway and self.images != "preloaded" else ""


def read_platform(top: Section) -> str:
    """Read `dify:platform`."""
    return top.choice("platform", PLATFORMS)


class KubernetesReader:
    """Reads `dify:kubernetes`."""

    def __init__(self, top: Section, around: Around) -> None:
        self._top = top
        self._around = around
        self._section = top.part("kubernetes")

    def read(self) -> Kubernetes:
        """Read the section. Its problems, and those of settings that the platform does not support, are reported."""
        section = self._section
        self._refuse_unsupported()
        service_type = section.choice("serviceType", SERVICE_TYPES)
        shared = self._name("sharedStorageClass")
        replicas, autoscale = self._replicas(shared)
        return Kubernetes(
            kubeconfig=self._kubeconfig(),
            context=self._required("context", "name one that `kubectl config get-contexts` lists"),
            namespace=self._namespace(),
            storage_class=self._name("storageClass"),
            shared_storage_class=shared,
            volume_gigabytes=section.integer("volumeGigabytes", 1, MOST_GIGABYTES),
            service_type=service_type,
            node_port=self._node_port(service_type),
            external_traffic_policy=self._traffic_policy(service_type),
            replicas=replicas,
            autoscale=autoscale,
            routes=read_routes(section, self._around.routes, self._name_in),
            image_pull_secret=self._name("imagePullSecret"),
            registry=self._registry(),
            service_annotations=read_annotations(section, "serviceAnnotations", _ANNOTATION_EXAMPLE),
        )

    def _required(self, name: str, fix: str) -> str:
        value = self._section.text(name)
        if not value:
            self._add(name, value, "is empty", fix)
        return value

    def _kubeconfig(self) -> Path:
        given = self._section.text("kubeconfig")
        path = Path(given).expanduser()
        if not path.is_absolute():
            self._add("kubeconfig", given, "is not an absolute path", "name the file that has the context")
        return path

    def _add(self, name: str, value: object, why: str, fix: str) -> None:
        self._top.problems.add(self._section.key(name), value, why, fix)

    def _name(self, name: str) -> str:
        return self._name_in(self._section, name)

    @staticmethod
    def _name_in(section: Section, name: str) -> str:
        value = section.text(name)
        if value and not _SUBDOMAIN.fullmatch(value):
            section.problems.add(
                section.key(name), value, "is not the name of a Kubernetes object", _NAME_FIX
            )
        return value

    def _namespace(self) -> str:
        value = self._section.text("namespace") or f"dify-{self._around.stack}"
        if value in _TAKEN:
            self._add("namespace", value, "belongs to the cluster", "name one of the stack's own")
        elif not _LABEL.fullmatch(value):
            self._add(
                "namespace",
                value,
                "is not the name of a namespace",
                "use at most 63 lower-case letters, digits and '-', with a letter or digit at both ends",
            )
        return value

    def _node_port(self, service_type: str) -> int:
        port = self._section.integer("nodePort", 0, origins.MAX_PORT)
        if port and service_type == "ClusterIP":
            self._add("nodePort", port, "a Service of type ClusterIP has none", "set serviceType to NodePort")
        if port and service_type == "LoadBalancer":
            self._add(
                "nodePort",
                port,
                "clients of a Service of type LoadBalancer use the port of its own address",
                "set it to 0, or serviceType to NodePort",
            )
        return port

    def _traffic_policy(self, service_type: str) -> str:
        policy = self._section.choice("externalTrafficPolicy", (LOCAL, CLUSTER))
        # With the PROXY protocol the load balancer tells the address of the client.
        hidden = policy == CLUSTER and service_type != "ClusterIP" and not self._around.proxy_protocol
        if hidden and self._around.console_allow_from:
            self._add(
                "externalTrafficPolicy",
                policy,
                "the edge would see addresses of nodes instead of those of clients, and dify:consoleAllowFrom is set",
                f"set it to {LOCAL}",
            )
        return policy

    def _replicas(self, shared: str) -> tuple[dict[str, int], dict[str, Autoscale]]:
        """Return how many pods services have, and of which of them the cluster chooses it, by service."""
        section, scaling = self._section.part("replicas"), self._section.part("autoscale")
        found = {part: section.integer(part, 1, MOST_REPLICAS) for part in SCALED}
        autoscale = read_autoscale(scaling, section, MOST_REPLICAS)
        for part in _SHARE_STORAGE:
            one = autoscale.get(part)
            most = one.most if one else found[part]
            if most > 1 and not shared:
                self._top.problems.add(
                    f"{scaling.key(part)}.max" if one else section.key(part),
                    most,
                    "Dify's file storage is on a claim that one node alone can mount (ReadWriteOnce)",
                    "name a class with ReadWriteMany in dify:kubernetes.sharedStorageClass, or use 1",
                )
        return (
            {
                service: autoscale[part].least if part in autoscale else found[part]
                for part, service in SCALED.items()
            },
            {SCALED[part]: one for part, one in autoscale.items()},
        )

    def _registry(self) -> str:
        value = self._section.text("registry").rstrip("/")
        if not value and self._around.builds:
            self._add(
                "registry",
                value,
                f"is empty, and no public registry has {self._around.builds}",
                "name the prefix of a registry (host[:port][/path]), to which "
                f"`{hints.kit('up', stack=self._around.stack)}` pushes them, or load them into every node and use "
                f"{PRELOADED}",
            )
        elif value not in {"", PRELOADED} and not (
            MIRROR.fullmatch(value) and REGISTRY_HOST.search(value.partition("/")[0])
        ):
            self._add(
                "registry",
                value,
                "is not a registry prefix",
                f"use host[:port][/path] with a dot or a port in the host, without a scheme or a tag, or {PRELOADED}",
            )
        return value

    def _refuse_unsupported(self) -> None:
        problems = self._top.problems
        if self._around.tls_mode == "acme":
            problems.add(
                "tls.mode",
                self._around.tls_mode,
                f"not supported on dify:platform {KUBERNETES} yet",
                "use cert-manager with an issuer of the cluster, or files with a certificate of your own",
            )
        limited = [service for service, one in self._around.resources.items() if one.pids]
        for service in limited:
            problems.add(
                f"resources.{service}.pids",
                "set",
                "Kubernetes has no such limit for one pod",
                "remove it, and set podPidsLimit of the nodes' kubelet",
            )
