"""The edge tier: nginx, and the configuration that it reloads without a restart."""

from collections.abc import Mapping, Sequence

import pulumi

from infra.catalogue.container_paths import EDGE_UID
from infra.catalogue.networks import APP
from infra.catalogue.releases import Release
from infra.catalogue.selection import port_of
from infra.catalogue.service import Tier
from infra.catalogue.services import NGINX
from infra.edge import llm as edge_llm
from infra.edge import render
from infra.edge.context import DIRECT, edge_context
from infra.edge.paths import EDGE_DIRECTORY
from infra.edge.tls import private_files, public_files
from infra.platforms.platform import Content, Platform, Running, Workload
from infra.resources.live_config import LiveConfig
from infra.services.spec import ServiceSpec
from infra.services.specs import specs, tier_volumes
from infra.settings.stack import Settings


class EdgeTier(pulumi.ComponentResource):
    """Runs nginx. `running` holds the containers of this tier and the tiers before it, by service."""

    def __init__(
        self,
        name: str,
        settings: Settings,
        release: Release,
        platform: Platform,
        *,
        before: Mapping[str, Running],
        after: Sequence[pulumi.Resource],
    ) -> None:
        super().__init__("dify-kit:tiers:Edge", name)
        overrides = settings.templates_dir
        context = edge_context(settings, release, platform.service_names)
        configuration = render.edge_configuration(context, overrides=overrides)
        self.revision = configuration.revision

        files = {**configuration.files, **public_files(settings), **edge_llm.public_files(settings.llm)}
        private = {**private_files(settings), **edge_llm.private_files(settings.llm)}

        def configure(workload: Workload) -> LiveConfig:
            return LiveConfig(
                "nginx-config",
                container=workload.reference,
                files=files,
                private_files=private,
                revision=configuration.revision,
                direct={
                    "service": DIRECT,
                    "container": before[DIRECT].workload,
                    "network": platform.name(APP),
                    "port": str(port_of(DIRECT)),
                },
                templates={path: render.template_of(path, overrides) for path in configuration.files},
                owner=EDGE_UID,
                opts=pulumi.ResourceOptions(parent=workload.resource),
            )

        def live() -> Content:
            return Content(
                directory=EDGE_DIRECTORY,
                revision=configuration.revision,
                files=files,
                private_files=private,
            )

        platform.add_volumes(tier_volumes(Tier.EDGE, settings, release), parent=self)
        self.running: dict[str, Running] = dict(before)
        for spec in specs(Tier.EDGE, settings, release):
            self.running[spec.name] = platform.run(
                spec,
                parent=self,
                after=[*self._ready(spec), *after],
                configure=configure if spec.name == NGINX else None,
                live=live if spec.name == NGINX else None,
            )
        self.register_outputs({})

    def _ready(self, spec: ServiceSpec) -> list[pulumi.Resource]:
        return [self.running[service].ready for service in spec.after]
