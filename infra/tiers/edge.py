"""The edge tier: nginx, its configuration, and the owner of the LLM proxy's counts where there is one."""

from collections.abc import Mapping, Sequence

import pulumi

from infra.catalogue.container_paths import EDGE_UID
from infra.catalogue.networks import APP
from infra.catalogue.releases import Release
from infra.catalogue.selection import port_of
from infra.catalogue.service import Tier
from infra.catalogue.services import LLM_EDGE, NGINX
from infra.edge import llm as edge_llm
from infra.edge import render
from infra.edge.context import DIRECT
from infra.edge.paths import EDGE_DIRECTORY
from infra.edge.roles import edge_contexts
from infra.edge.tls import private_files, public_files
from infra.platforms.platform import Content, Platform, Running, Workload
from infra.resources.live_config import LiveConfig
from infra.services.spec import ServiceSpec
from infra.services.specs import specs, tier_volumes
from infra.settings.stack import Settings


class EdgeTier(pulumi.ComponentResource):
    """Runs nginx. `running` holds the containers of this tier and the tiers before it, by service.

    `revision` is that of nginx's configuration, `owner_revision` that of the owner's, empty without one.
    """

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
        configurations = {
            service: render.edge_configuration(context, overrides=overrides)
            for service, context in edge_contexts(settings, release, platform.service_names).items()
        }
        configuration, owner = configurations[NGINX], configurations.get(LLM_EDGE)
        self.revision, self.owner_revision = configuration.revision, owner.revision if owner else ""

        files = {**configuration.files, **public_files(settings)}
        private = dict(private_files(settings))
        # Where the keys of the LLM proxy are, and nowhere else.
        of_llm = {**(owner.files if owner else files), **edge_llm.public_files(settings.llm)}
        keys_of_llm = edge_llm.private_files(settings.llm)
        if owner is None:
            files, private = of_llm, {**private, **keys_of_llm}

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
                revision=self.revision,
                files=files,
                private_files=private,
            )

        def live_of_owner() -> Content:
            return Content(
                directory=EDGE_DIRECTORY,
                revision=self.owner_revision,
                files=of_llm,
                private_files=keys_of_llm,
            )

        platform.add_volumes(tier_volumes(Tier.EDGE, settings, release), parent=self)
        self.running: dict[str, Running] = dict(before)
        for spec in specs(Tier.EDGE, settings, release):
            self.running[spec.name] = platform.run(
                spec,
                parent=self,
                after=[*self._ready(spec), *after],
                configure=configure if spec.name == NGINX else None,
                live={NGINX: live, LLM_EDGE: live_of_owner}.get(spec.name),
            )
        self.register_outputs({})

    def _ready(self, spec: ServiceSpec) -> list[pulumi.Resource]:
        return [self.running[service].ready for service in spec.after]
