"""Declare one stack: settings, platform, tiers, exports. Decisions belong in the modules it connects."""

import pulumi

from infra import exports
from infra.catalogue.service import Tier
from infra.engine.cores import engine_cores
from infra.guards import checks, volumes
from infra.platforms.docker import DockerPlatform
from infra.platforms.images import Images
from infra.services.specs import networks, specs, staggered, tier_volumes
from infra.settings.program import load
from infra.tiers.apps import AppsTier
from infra.tiers.edge import EdgeTier
from infra.tiers.llm import LlmTier
from infra.tiers.oauth import OAuthTier
from infra.tiers.services import ServiceTier

settings = load(pulumi.Config("dify"), pulumi.get_stack())
release = settings.dify
found = checks.check(settings, release, pulumi.Config("docker").get("host") or "")
images = Images(settings, release, found)
labels = volumes.labels(settings)
platform = DockerPlatform(settings.stack, images, keep_volumes=settings.keep_volumes, volume_labels=labels)
platform.add_networks(networks(settings, release))

data_volumes = tier_volumes(Tier.DATA, settings, release)
data_tier = ServiceTier("data", specs(Tier.DATA, settings, release), platform, volumes=data_volumes)
dify_tier = ServiceTier(
    "dify",
    staggered(specs(Tier.DIFY, settings, release), engine_cores()),
    platform,
    volumes=tier_volumes(Tier.DIFY, settings, release),
    before=data_tier.running,
)
apps_tier = AppsTier("apps", settings, api=dify_tier.running["api"])
oauth_tier = OAuthTier("oauth", settings, release, platform, apps_tier, before=dify_tier.running)
llm_tier = LlmTier("llm", settings, release, platform, before=oauth_tier.running)
# Nothing is published before the instance is claimed: otherwise anyone who reaches it could claim it.
edge_tier = EdgeTier("edge", settings, release, platform, before=llm_tier.running, after=[apps_tier])

exports.publish(settings, release, edge_tier, apps_tier, oauth_tier, networks=platform.network_names)
