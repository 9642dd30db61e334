"""Declare one stack: settings, platform, tiers, exports. Decisions belong in the modules it connects."""

import pulumi

from infra import serving
from infra.services.specs import networks
from infra.settings.program import load
from infra.tiers.data import DataTier
from infra.tiers.platform import platform_of

settings = load(pulumi.Config("dify"), pulumi.get_stack())
release = settings.dify
platform = platform_of(settings, release, docker_host=pulumi.Config("docker").get("host") or "")
platform.add_networks(networks(settings, release))

data_tier = DataTier("data", settings, release, platform)
serving.declare(settings, release, platform, data_tier)
