"""The LLM tier: LiteLLM's proxy, where that is the engine, and its configuration. Else nginx does it all."""

from collections.abc import Mapping

import pulumi
import pulumi_docker as docker

from infra.catalogue.container_paths import LITELLM_UID
from infra.catalogue.releases import Release
from infra.catalogue.service import Tier
from infra.catalogue.services import LITELLM
from infra.platforms.docker import DockerPlatform, Running
from infra.resources.litellm_config import LitellmConfig
from infra.services import litellm_files as litellm_config
from infra.services.specs import specs, tier_volumes
from infra.settings.llm import Litellm, Llm
from infra.settings.stack import Settings


class LlmTier(pulumi.ComponentResource):
    """Runs LiteLLM, unless nginx is the engine or the proxy is off.

    `running` holds, by service name, what this tier and the tiers before it brought up.
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        release: Release,
        platform: DockerPlatform,
        *,
        before: Mapping[str, Running],
    ) -> None:
        super().__init__("dify-kit:tiers:Llm", name)
        self.running: dict[str, Running] = dict(before)
        if settings.llm and settings.llm.litellm:
            self._run(settings, release, settings.llm, settings.llm.litellm, platform)
        self.register_outputs({})

    def _run(
        self, settings: Settings, release: Release, llm: Llm, own: Litellm, platform: DockerPlatform
    ) -> None:
        def configure(container: docker.Container) -> LitellmConfig:
            return LitellmConfig(
                "litellm-config",
                container=container.id,
                files=litellm_config.files(llm, own, settings.templates_dir),
                owner=LITELLM_UID,
                opts=pulumi.ResourceOptions(parent=container),
            )

        platform.add_volumes(tier_volumes(Tier.LLM, settings, release), parent=self)
        for spec in specs(Tier.LLM, settings, release):
            self.running[spec.name] = platform.run(
                spec, parent=self, configure=configure if spec.name == LITELLM else None
            )
