"""The LLM tier: LiteLLM's proxy and its configuration, where it is the engine. Without it, nginx is the proxy."""

from collections.abc import Mapping

import pulumi

from infra.catalogue.container_paths import LITELLM_DIRECTORY, LITELLM_UID
from infra.catalogue.releases import Release
from infra.catalogue.service import Tier
from infra.catalogue.services import LITELLM
from infra.platforms.platform import Content, Platform, Running, Workload
from infra.resources.litellm_config import LitellmConfig, revision_of
from infra.services import litellm_files as litellm_config
from infra.services.specs import specs, tier_volumes
from infra.settings.llm import Litellm, Llm
from infra.settings.stack import Settings


class LlmTier(pulumi.ComponentResource):
    """Runs LiteLLM, unless nginx is the engine or the proxy is off.

    `running` holds the containers of this tier and the tiers before it, by service.
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        release: Release,
        platform: Platform,
        *,
        before: Mapping[str, Running],
    ) -> None:
        super().__init__("dify-kit:tiers:Llm", name)
        self.running: dict[str, Running] = dict(before)
        if settings.llm and settings.llm.litellm:
            self._run(settings, release, settings.llm, settings.llm.litellm, platform)
        self.register_outputs({})

    def _run(self, settings: Settings, release: Release, llm: Llm, own: Litellm, platform: Platform) -> None:
        files = litellm_config.files(llm, own, settings.templates_dir)

        def configure(workload: Workload) -> LitellmConfig:
            return LitellmConfig(
                "litellm-config",
                container=workload.reference,
                files=files,
                owner=LITELLM_UID,
                opts=pulumi.ResourceOptions(parent=workload.resource),
            )

        def live() -> Content:
            # A digest of what is secret; it names a directory, as on Docker.
            revision = pulumi.Output.unsecret(pulumi.Output.from_input(files).apply(revision_of))
            return Content(directory=LITELLM_DIRECTORY, revision=revision, private_files=files)

        platform.add_volumes(tier_volumes(Tier.LLM, settings, release), parent=self)
        for spec in specs(Tier.LLM, settings, release):
            self.running[spec.name] = platform.run(
                spec,
                parent=self,
                configure=configure if spec.name == LITELLM else None,
                live=live if spec.name == LITELLM else None,
            )
