"""Declare one stack: settings, platform, tiers, exports. Decisions belong in the modules it connects."""

import pulumi

from infra import serving
from infra.catalogue.service import Tier
from infra.services.specs import networks, specs, tier_volumes
from infra.settings.program import load
from infra.tiers.platform import platform_of
from infra.tiers.services import ServiceTier

settings = load(pulumi.Config("dify"), pulumi.get_stack())
release = settings.dify
platform = platform_of(settings, release, docker_host=pulumi.Config("docker").get("host") or "")
platform.add_networks(networks(settings, release))

data_volumes = tier_volumes(Tier.DATA, settings, release)
data_tier = ServiceTier("data", specs(Tier.DATA, settings, release), platform, volumes=data_volumes)
serving.declare(settings, release, platform, data_tier)
