"""Run service descriptions in a namespace of a cluster."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pulumi

from infra.catalogue import services as catalogue
from infra.catalogue.addresses import CLUSTER_DOMAIN
from infra.catalogue.networks import LLM_EDGE
from infra.catalogue.service import Keep
from infra.catalogue.services import NGINX
from infra.edge.context import ServiceNames
from infra.edge.tls import SOLVERS
from infra.engine.cluster import Workload
from infra.platforms.kubernetes import (
    PROVIDER_VERSION,
    certificate,
    policies,
    queue_scaling,
    routes,
    storage,
    workloads,
)
from infra.platforms.kubernetes.autoscaling import autoscaler
from infra.platforms.kubernetes.images import NodeImages
from infra.platforms.kubernetes.names import STACK_LABEL, dns_label
from infra.platforms.kubernetes.objects import KubernetesObject, secret
from infra.platforms.kubernetes.pods import SERVICE_ACCOUNT, HostAlias, Live, Parts, PlacedFile, file_key
from infra.platforms.kubernetes.storage import Volume
from infra.platforms.kubernetes.workloads import EDGE
from infra.platforms.platform import Configure, Platform, Running, VolumePolicy
from infra.platforms.platform import Live as Starting
from infra.resources.certificate_ready import CertificateReady
from infra.resources.revision_container import PRIVATE_MODE, PUBLIC_MODE
from infra.resources.workload_ready import WorkloadReady
from infra.services.queues import Broker
from infra.services.spec import ServiceSpec
from infra.settings.autoscale import Autoscale
from infra.settings.kubernetes import Kubernetes
from infra.settings.tls import Tls

# For what nginx asks DNS all the same.
SERVICE_FRESH_SECONDS = 30
# nginx sends a query again after 5 s: one that went to a pod of CoreDNS that ends, as on a drained node, has no answer.
DNS_WAIT_SECONDS = 12


class KubernetesPlatform(Platform):
    """Names and creates everything of one stack in one namespace."""

    def __init__(
        self,
        stack: str,
        cluster: Kubernetes,
        images: NodeImages,
        policy: VolumePolicy,
        *,
        dns: str,
        tls: Tls,
        broker: Broker,
    ) -> None:
        self._stack = stack
        self._cluster = cluster
        self._images = images
        self._policy = policy
        self._labels = dict(policy.labels)
        self._dns = dns
        self._tls = tls
        self._broker = broker
        # The path, not what is in it: the state has no credentials of the cluster.
        self._provider = pulumi.ProviderResource(
            "kubernetes",
            "cluster",
            {"kubeconfig": str(cluster.kubeconfig), "context": cluster.context},
            pulumi.ResourceOptions(version=PROVIDER_VERSION),
        )
        self._networks: list[str] = []
        self._volumes: dict[str, Volume] = {}
        # The other names of services, by network, and the addresses of their Services.
        self._aliases: dict[str, list[HostAlias]] = {}
        # The addresses of Services by their whole names.
        self._addresses: list[HostAlias] = []
        # What has to exist before a pod does.
        self._before: list[pulumi.Resource] = []

    @property
    def service_names(self) -> ServiceNames:
        """Whole names of Services: nginx reads no search domains."""
        return ServiceNames(
            resolver=self._dns,
            suffix=f".{self._cluster.namespace}.svc.{CLUSTER_DOMAIN}",
            fresh_seconds=SERVICE_FRESH_SECONDS,
            wait_seconds=DNS_WAIT_SECONDS,
            fixed=True,
        )

    @property
    def starts_together(self) -> int:
        """All of them: they are on several nodes, and each has its own share of one."""
        return len(catalogue.SERVICES)

    @property
    def network_names(self) -> list[str]:
        """The names of the policies by which pods of a network reach each other."""
        return [f"network-{dns_label(logical)}" for logical in self._networks]

    def name(self, part: str) -> str:
        """Return the name of an object of this stack in its namespace."""
        return dns_label(part)

    def add_networks(self, networks: Mapping[str, bool]) -> None:
        """Create the namespace, and the policies that are its networks.

        Without `dify:keepVolumes` it is deleted with the stack; otherwise it stays, as its claims would go with it.
        """
        self._networks = list(networks)
        namespace = KubernetesObject(
            "namespace",
            policies.namespace(self._cluster.namespace, self._stack),
            self._options(retain_on_delete=self._policy.keep, protect=self._policy.protect),
        )
        self._before = [namespace]
        account = {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": SERVICE_ACCOUNT},
            "automountServiceAccountToken": False,
        }
        made = [self._create("service-account", account)]
        made += [
            self._create(f"policy-{one['metadata']['name']}", one)
            for one in policies.policies(
                self._stack,
                networks,
                ring=self._cluster.replicas.get(NGINX, 1) > 1,
                # The network exists with the service.
                owner=LLM_EDGE in networks,
            )
        ]
        # cert-manager answers a CA by pods in this namespace, for a Certificate and for an Ingress.
        ingress = self._cluster.routes.ingress
        if self._tls.issuer or (ingress and ingress.issued):
            challenges = certificate.solver_policies(self._stack, edge=self._tls.issuer is not None)
            made += [self._create(f"policy-{one['metadata']['name']}", one) for one in challenges]
        self._before += made

    def add_volumes(self, volumes: Mapping[str, Keep], parent: pulumi.Resource) -> None:
        """Create or adopt the claims of volumes that outlive a pod. Ephemeral ones are a part of each pod."""
        for logical, keep in volumes.items():
            one = storage.volume(logical, keep, shared_class=self._cluster.shared_storage_class)
            self._volumes[logical] = one
            if not one.claimed:
                continue
            manifest = storage.claim(
                one,
                labels=self._labels,
                storage_class=self._cluster.storage_class,
                shared_class=self._cluster.shared_storage_class,
                gigabytes=self._cluster.volume_gigabytes,
            )
            claim = self._create(
                f"volume-{logical}",
                manifest,
                parent=parent,
                retain_on_delete=self._policy.keep,
                protect=self._policy.protect,
                # A claim cannot be changed, and what made the data is on its labels.
                ignore_changes=["spec", "metadata"],
            )
            self._before.append(claim)

    def run(
        self,
        spec: ServiceSpec,
        *,
        parent: pulumi.Resource,
        after: Sequence[pulumi.Resource] = (),
        configure: Configure | None = None,
        live: Starting | None = None,
    ) -> Running:
        """Create the workload of a service with what belongs to it, and the resource that waits until it is ready.

        A live configuration is a part of the pods: another revision replaces them one after the other, and they stay
        while those with the new one do not get ready.
        """
        del configure  # the configuration is a part of the pods
        scaled = self._cluster.autoscale.get(spec.name)
        most = scaled.most if scaled else self._cluster.replicas.get(spec.name, 1)
        parts = self._parts(spec, live, parent)
        policy = policies.published(self._stack, spec)
        first: list[pulumi.Resource] = (
            [self._create(f"policy-{policy['metadata']['name']}", policy, parent=parent)] if policy else []
        )
        issued = self._certificate(parent) if spec.name == NGINX else None
        if issued:
            first.append(self._certified("certificate-secret", issued, whole=False))
        # Before the pods, which resolve the names at their start.
        first += [
            self._create(str(one["metadata"]["name"]), one, parent=parent)
            for one in workloads.replica_services(self._stack, spec, most)
        ]
        manifest = workloads.workload(self._stack, spec, parts, replicas=most, autoscaled=scaled is not None)
        made = self._create(
            spec.name,
            manifest,
            parent=parent,
            depends_on=[*self._before, *after, *first],
            # A Job cannot be changed.
            replace_on_changes=["spec"] if spec.job else None,
            delete_before_replace=spec.job,
        )
        # In the state, the name of what is beside nginx has its kind. As another resource it would be deleted.
        aliases = [pulumi.Alias(parent=made.urn.apply(of_other_kind))] if spec.name == NGINX else []
        if inside := workloads.service(self._stack, spec):
            name = str(inside["metadata"]["name"])
            self._remember(spec, self._create(name, inside, parent=made, aliases=aliases))
        for beside in (
            workloads.edge_service(self._stack, spec, self._cluster),
            workloads.disruption_budget(self._stack, spec, most),
            autoscaler(self._stack, spec.name, spec.limits, scaled) if scaled and not scaled.jobs else None,
        ):
            if beside:
                self._create(str(beside["metadata"]["name"]), beside, parent=made, aliases=aliases)
        if scaled and scaled.jobs:
            self._scale_by_queue(spec.name, scaled, made)
        for route in (
            routes.routes(self._stack, self._cluster.routes, _plain_port(spec)) if spec.ports else ()
        ):
            self._create(EDGE, route, parent=made, aliases=aliases)
        reference = self._reference(str(workloads.kind_of(spec, replicas=most)), dns_label(spec.name))
        ready = WorkloadReady(
            f"{spec.name}-ready",
            workload=str(reference),
            uid=made.metadata.apply(lambda metadata: str(metadata.get("uid", ""))),
            generation=made.metadata.apply(lambda metadata: float(metadata.get("generation", 0))),
            service=spec.name,
            timeout=spec.ready_timeout,
            autoscaled=scaled is not None,
            opts=pulumi.ResourceOptions(parent=made),
        )
        if issued:
            # A CA that checks the names by HTTP needs nginx.
            self._certified("certificate-ready", issued, whole=True, after=[ready])
        place = pulumi.Output.from_input(str(reference))
        return Running(spec=spec, workload=place, name=place, ready=ready)

    def _scale_by_queue(self, service: str, chosen: Autoscale, parent: pulumi.Resource) -> None:
        """Create what KEDA needs to choose the number of a service's pods."""
        broker, stack = self._broker, self._stack
        secret = self._keep(f"{service}-queue", queue_scaling.credentials(broker), parent)
        way_in = queue_scaling.access(stack, broker, chosen.keda_namespace)
        signed_in = queue_scaling.authentication(stack, service, broker, secret)
        first = [
            self._create(f"{service}-{name}", one, parent=parent)
            for name, one in (("queue-access", way_in), ("queue-authentication", signed_in))
            if one
        ]
        scaled = queue_scaling.scaled_object(stack, service, self._cluster.namespace, broker, chosen)
        self._create(f"{service}-queue-scaling", scaled, parent=parent, depends_on=first)

    def _certificate(self, parent: pulumi.Resource) -> KubernetesObject | None:
        """Create the Certificate of the edge, and the name that challenges are passed to; None without an issuer."""
        if self._tls.issuer is None:
            return None
        self._create(SOLVERS, certificate.solver_service(self._stack), parent=parent)
        wanted = certificate.certificate(self._stack, self._tls.hosts, self._tls.issuer)
        return self._create("certificate", wanted, parent=parent, depends_on=self._before)

    def _certified(
        self, name: str, issued: KubernetesObject, *, whole: bool, after: Sequence[pulumi.Resource] = ()
    ) -> CertificateReady:
        """Wait for the Secret of a Certificate, or with `whole` for the certificate of its issuer."""
        return CertificateReady(
            name,
            certificate=str(self._reference("Certificate", certificate.NAME)),
            uid=issued.metadata.apply(lambda metadata: str(metadata.get("uid", ""))),
            generation=issued.metadata.apply(lambda metadata: float(metadata.get("generation", 0))),
            whole=whole,
            opts=pulumi.ResourceOptions(parent=issued, depends_on=list(after)),
        )

    def _reference(self, kind: str, name: str) -> Workload:
        return Workload(
            kubeconfig=str(self._cluster.kubeconfig),
            context=self._cluster.context,
            namespace=self._cluster.namespace,
            kind=kind,
            name=name,
        )

    def _remember(self, spec: ServiceSpec, service: KubernetesObject) -> None:
        """Remember the address of a service, and its other names: its Service has one, pods started later know all."""
        address = service.spec.apply(lambda found: str(found.get("clusterIP") or ""))
        whole = f"{dns_label(spec.name)}{self.service_names.suffix}"
        self._addresses.append(HostAlias(address=address, names=(whole,)))
        for network, names in spec.aliases.items():
            self._aliases.setdefault(network, []).append(HostAlias(address=address, names=tuple(names)))

    def _aliases_for(self, spec: ServiceSpec) -> Iterator[HostAlias]:
        """Yield the addresses that a pod knows by itself.

        nginx knows those of all Services, and needs no DNS for a request: while a node is drained, a pod of the
        cluster's DNS ends, too, and a query that is lost takes 5 s. A Service keeps its address; one that was deleted
        by hand has another one after the next `up`, and nginx new pods for it.
        """
        for network in spec.networks:
            yield from self._aliases.get(network, ())
        if spec.name == NGINX:
            yield from self._addresses

    def _parts(self, spec: ServiceSpec, live: Starting | None, parent: pulumi.Resource) -> Parts:
        environment = self._secret(f"{spec.name}-environment", dict(spec.environment), parent)
        contents = {file_key(index): file.content for index, file in enumerate(spec.files)}
        return Parts(
            image=self._images.id_of(spec.image),
            volumes=self._volumes,
            environment=environment,
            files=self._secret(f"{spec.name}-files", contents, parent),
            live=self._live(spec, live, parent) if live else None,
            pull_secret=self._cluster.image_pull_secret,
            certificate=certificate.SECRET if spec.name == NGINX and self._tls.issuer else "",
            aliases=[*self._aliases_for(spec)],
        )

    def _secret(
        self, name: str, content: Mapping[str, pulumi.Input[str]], parent: pulumi.Resource
    ) -> pulumi.Output[str] | None:
        """Create a Secret and return its name; None where there is nothing to keep in one."""
        return self._keep(name, content, parent) if content else None

    def _keep(self, name: str, content: Any, parent: pulumi.Resource) -> pulumi.Output[str]:  # noqa: ANN401  # an Input
        manifest = secret({STACK_LABEL: self._stack}, content)
        made = self._create(name, manifest, parent=parent, additional_secret_outputs=["data", "stringData"])
        return made.metadata.apply(lambda metadata: str(metadata.get("name", "")))

    def _live(self, spec: ServiceSpec, live: Starting, parent: pulumi.Resource) -> Live:
        content = live()
        both = pulumi.Output.all(files=content.files, private=content.private_files)
        texts = both.apply(
            lambda found: {
                file_key(index): text
                for index, (_, text, _) in enumerate(_placed(found["files"], found["private"]))
            }
        )
        places = both.apply(
            lambda found: [
                PlacedFile(path=path, mode=mode)
                for path, _, mode in _placed(found["files"], found["private"])
            ]
        )
        return Live(
            directory=content.directory,
            revision=content.revision,
            secret=self._keep(f"{spec.name}-configuration", pulumi.Output.secret(texts), parent),
            # Paths and modes are no secret.
            files=pulumi.Output.unsecret(places),
        )

    def _create(
        self,
        name: str,
        manifest: Mapping[str, Any],
        *,
        depends_on: Sequence[pulumi.Resource] | None = None,
        **options: Any,  # noqa: ANN401  # those of ResourceOptions
    ) -> KubernetesObject:
        metadata = {**manifest["metadata"], "namespace": self._cluster.namespace}
        before = self._before[:1] if depends_on is None else list(depends_on)
        return KubernetesObject(
            name, {**manifest, "metadata": metadata}, self._options(depends_on=before, **options)
        )

    def _options(self, **options: Any) -> pulumi.ResourceOptions:  # noqa: ANN401
        return pulumi.ResourceOptions(provider=self._provider, **options)


def _plain_port(spec: ServiceSpec) -> int:
    """Return the port of Service `edge` without TLS: the first that the edge listens on."""
    return min(spec.ports, key=lambda port: port.internal).external


def of_other_kind(urn: str) -> str:
    """Return the URN that nginx's workload has with another number of pods: it is a Deployment, or a StatefulSet."""
    kinds = (workloads.Kind.DEPLOYMENT, workloads.Kind.STATEFUL_SET)
    before, _, name = urn.rpartition("::")
    own = next(kind for kind in kinds if before.endswith(f":{kind}"))
    (other,) = (kind for kind in kinds if kind is not own)
    return f"{before.removesuffix(own)}{other}::{name}"


def _placed(files: Mapping[str, str], private: Mapping[str, str]) -> list[tuple[str, str, int]]:
    """Return path, text and mode of every file of a revision, in a fixed order."""
    return [
        *((path, files[path], PUBLIC_MODE) for path in sorted(files)),
        *((path, private[path], PRIVATE_MODE) for path in sorted(private)),
    ]
