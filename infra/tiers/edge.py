"""The edge tier: nginx, and the configuration that goes live in it without a restart."""

from collections.abc import Mapping, Sequence

import pulumi
import pulumi_docker as docker

from infra.catalogue.container_paths import EDGE_UID
from infra.catalogue.networks import APP
from infra.catalogue.releases import Release
from infra.catalogue.selection import port_of
from infra.catalogue.service import Tier
from infra.catalogue.services import NGINX
from infra.edge import llm as edge_llm
from infra.edge import render
from infra.edge.context import DIRECT, edge_context
from infra.edge.tls import private_files, public_files
from infra.platforms.docker import DockerPlatform, Running
from infra.resources.live_config import LiveConfig
from infra.services.spec import ServiceSpec
from infra.services.specs import specs, tier_volumes
from infra.settings.stack import Settings


class EdgeTier(pulumi.ComponentResource):
    """Runs nginx. `running` holds, by service name, what this tier and the tiers before it brought up."""

    def __init__(
        self,
        name: str,
        settings: Settings,
        release: Release,
        platform: DockerPlatform,
        *,
        before: Mapping[str, Running],
        after: Sequence[pulumi.Resource],
    ) -> None:
        super().__init__("dify-kit:tiers:Edge", name)
        overrides = settings.templates_dir
        configuration = render.edge_configuration(edge_context(settings, release), overrides=overrides)
        self.revision = configuration.revision

        def configure(container: docker.Container) -> LiveConfig:
            return LiveConfig(
                "nginx-config",
                container=container.id,
                files={
                    **configuration.files,
                    **public_files(settings),
                    **edge_llm.public_files(settings.llm),
                },
                private_files={**private_files(settings), **edge_llm.private_files(settings.llm)},
                revision=configuration.revision,
                direct={
                    "service": DIRECT,
                    "container": before[DIRECT].container.id,
                    "network": platform.name(APP),
                    "port": str(port_of(DIRECT)),
                },
                templates={path: render.template_of(path, overrides) for path in configuration.files},
                owner=EDGE_UID,
                opts=pulumi.ResourceOptions(parent=container),
            )

        platform.add_volumes(tier_volumes(Tier.EDGE, settings, release), parent=self)
        self.running: dict[str, Running] = dict(before)
        for spec in specs(Tier.EDGE, settings, release):
            self.running[spec.name] = platform.run(
                spec,
                parent=self,
                after=[*self._ready(spec), *after],
                configure=configure if spec.name == NGINX else None,
            )
        self.register_outputs({})

    def _ready(self, spec: ServiceSpec) -> list[pulumi.Resource]:
        return [self.running[service].ready for service in spec.after]
