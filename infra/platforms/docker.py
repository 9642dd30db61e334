"""Run service descriptions as containers of one Docker engine."""

from collections.abc import Mapping, Sequence

import pulumi
import pulumi_docker as docker

from infra.catalogue.names import compose_name, spellings
from infra.catalogue.service import HealthCheck, Keep
from infra.edge.context import DOCKER_NAMES, ServiceNames
from infra.engine.cores import engine_cores
from infra.platforms.images import Images
from infra.platforms.platform import Configure, Live, Platform, Running, VolumePolicy, Workload
from infra.resources.pids_limit import PidsLimit
from infra.resources.ready import Ready
from infra.services.spec import File, ServiceSpec

STACK_LABEL = "dify-kit.stack"
SERVICE_LABEL = "dify-kit.service"
JOB_LABEL = "dify-kit.job"
MINUTE = 60
# `internal` alone closes the way out, and leaves the host open: the bridge has an address, and everything that listens
# on 0.0.0.0 there answers. Without that address nothing of the host is reachable, and containers still find each other.
# An engine may give every network IPv6 (default-network-opts): then the bridge would have an IPv6 address.
CLOSED_TO_THE_HOST = {
    "com.docker.network.bridge.inhibit_ipv4": "true",
    "com.docker.network.enable_ipv6": "false",
}
# With it a process writes frames of its own making, past the routes that the engine gave the container.
RAW_SOCKETS = "CAP_NET_RAW"


def go_duration(seconds: int) -> str:
    """Spell seconds as the provider reads them back (`1m30s`); any other spelling shows as a change."""
    minutes, rest = divmod(seconds, MINUTE)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


class DockerPlatform(Platform):
    """Names and creates everything of one stack on one engine."""

    def __init__(self, stack: str, images: Images, policy: VolumePolicy) -> None:
        self._stack = stack
        self._images = images
        self._policy = policy
        self._networks: dict[str, docker.Network] = {}
        self._volumes: dict[str, docker.Volume] = {}

    def name(self, part: str) -> str:
        """Return the engine-wide name of a part of this stack."""
        return f"dify-{self._stack}-{part}"

    @property
    def service_names(self) -> ServiceNames:
        """The engine's own DNS server resolves the names of containers."""
        return DOCKER_NAMES

    @property
    def starts_together(self) -> int:
        """One for each core of the engine's machine."""
        return engine_cores()

    @property
    def network_names(self) -> list[str]:
        """The engine-wide names of the stack's networks."""
        return [self.name(logical) for logical in self._networks]

    def add_networks(self, networks: Mapping[str, bool]) -> None:
        """Create the stack's networks; the value says whether a network is internal (no route to the outside)."""
        for logical, internal in networks.items():
            self._networks[logical] = docker.Network(
                logical,
                name=self.name(logical),
                internal=internal,
                options=CLOSED_TO_THE_HOST if internal else None,
                labels=[docker.NetworkLabelArgs(label=STACK_LABEL, value=self._stack)],
                opts=pulumi.ResourceOptions(delete_before_replace=True),
            )

    def add_volumes(self, volumes: Mapping[str, Keep], parent: pulumi.Resource) -> None:
        """Create or adopt volumes of the stack.

        They outlive `pulumi destroy`, except those of `Keep.EPHEMERAL`, and all with `dify:keepVolumes: false`.
        """
        for logical, how_long in volumes.items():
            keep = how_long is not Keep.EPHEMERAL
            self._volumes[logical] = docker.Volume(
                f"volume-{logical}",
                name=self.name(logical),
                # What the data was made with: volume_guard reads it.
                labels=[
                    docker.VolumeLabelArgs(label=key, value=value)
                    for key, value in self._policy.labels.items()
                    if keep or key == STACK_LABEL
                ],
                opts=pulumi.ResourceOptions(
                    parent=parent,
                    retain_on_delete=keep and self._policy.keep,
                    protect=keep and self._policy.protect,
                    # A changed label would replace the volume, and with it the data.
                    ignore_changes=["labels", "driverOpts"],
                ),
            )

    def run(
        self,
        spec: ServiceSpec,
        *,
        parent: pulumi.Resource,
        after: Sequence[pulumi.Resource] = (),
        configure: Configure | None = None,
        live: Live | None = None,
    ) -> Running:
        """Create the container of a service, and the resource that waits until it is ready."""
        del live  # the configuration comes into the running container
        container = docker.Container(
            spec.name,
            name=self.name(spec.name),
            hostname=spec.name,
            image=self._images.id_of(spec.image),
            must_run=not spec.job,
            restart="no" if spec.job else "unless-stopped",
            envs=[pulumi.Output.concat(key, "=", value) for key, value in sorted(spec.environment.items())],
            entrypoints=list(spec.entrypoint) if spec.entrypoint else None,
            command=list(spec.command) if spec.command else None,
            uploads=[_upload(file) for file in spec.files],
            volumes=[
                docker.ContainerVolumeArgs(
                    volume_name=self._volumes[mount.volume].name,
                    container_path=mount.path,
                    read_only=mount.read_only,
                )
                for mount in spec.mounts
            ],
            networks_advanced=[
                docker.ContainerNetworksAdvancedArgs(
                    name=self._networks[network].name,
                    aliases=[*spellings(spec.name), *spec.aliases.get(network, ())],
                )
                for network in spec.networks
            ],
            network_mode=None if spec.networks else "none",
            ports=[
                docker.ContainerPortArgs(internal=port.internal, external=port.external, ip=port.address)
                for port in spec.ports
            ],
            healthcheck=_healthcheck(spec.health) if spec.health else None,
            labels=_labels(self._stack, spec),
            user=spec.user,
            dns_opts=list(spec.dns_options) or None,
            capabilities=_capabilities(spec.capabilities),
            security_opts=["no-new-privileges:true"],
            read_only=spec.read_only,
            tmpfs=dict(spec.tmpfs) or None,
            init=spec.init,
            memory=spec.limits.memory,
            memory_swap=spec.limits.memory,
            # The provider reads "2" back as "2.0" and would replace the container at each update.
            cpus=f"{spec.limits.cpus:.1f}",
            log_driver="json-file",
            log_opts={"max-size": "10m", "max-file": "3"},
            stop_signal=spec.stop_signal,
            stop_timeout=spec.stop_grace,
            # Without it the provider kills immediately on replacement and destroy.
            destroy_grace_seconds=spec.stop_grace,
            wait=False,
            opts=pulumi.ResourceOptions(
                parent=parent,
                depends_on=list(after),
                delete_before_replace=True,
                # The provider shows changes of these as updates and does nothing.
                replace_on_changes=["healthcheck", "tmpfs", "init", "mounts"],
                aliases=_former(spec.name),
            ),
        )
        PidsLimit(
            f"{spec.name}-pids",
            container=container.id,
            service=spec.name,
            limit=spec.limits.pids,
            opts=pulumi.ResourceOptions(parent=container, aliases=_former(spec.name, "-pids")),
        )
        configured = [configure(Workload(reference=container.id, resource=container))] if configure else []
        ready = Ready(
            f"{spec.name}-ready",
            container=container.id,
            service=spec.name,
            command=spec.health.command if spec.health else (),
            job=spec.job,
            timeout=spec.ready_timeout,
            opts=pulumi.ResourceOptions(
                parent=container, depends_on=configured, aliases=_former(spec.name, "-ready")
            ),
        )
        return Running(spec=spec, workload=container.id, name=container.name, ready=ready)


def _former(service: str, suffix: str = "") -> list[pulumi.Alias] | None:
    """Return the name of a service's resource in stacks of earlier versions, which named services as compose does.

    So `up` replaces the container; without it, it would make a second one beside the first, on the same volumes.
    """
    other = compose_name(service)
    return None if other == service else [pulumi.Alias(name=f"{other}{suffix}")]


def _upload(file: File) -> docker.ContainerUploadArgs:
    return docker.ContainerUploadArgs(
        file=file.path,
        content=file.content,
        permissions=file.mode,
        owner=None if file.owner is None else str(file.owner),
        group=None if file.owner is None else str(file.owner),
    )


def _healthcheck(health: HealthCheck) -> docker.ContainerHealthcheckArgs:
    return docker.ContainerHealthcheckArgs(
        tests=["CMD", *health.command],
        interval=go_duration(health.interval),
        timeout=go_duration(health.timeout),
        retries=health.retries,
        start_period=go_duration(health.start_period),
    )


def _labels(stack: str, spec: ServiceSpec) -> list[docker.ContainerLabelArgs]:
    labels = {STACK_LABEL: stack, SERVICE_LABEL: spec.name} | ({JOB_LABEL: "true"} if spec.job else {})
    return [docker.ContainerLabelArgs(label=key, value=value) for key, value in labels.items()]


def _capabilities(added: tuple[str, ...] | None) -> docker.ContainerCapabilitiesArgs:
    if added is None:
        return docker.ContainerCapabilitiesArgs(drops=[RAW_SOCKETS])
    return docker.ContainerCapabilitiesArgs(drops=["ALL"], adds=[f"CAP_{name}" for name in sorted(added)])
