"""Declare one stack: settings, platform, tiers, exports. Decisions belong in the modules it connects."""

import pulumi

from infra import exports
from infra.catalogue.service import Tier
from infra.services.specs import networks, specs, staggered, tier_volumes
from infra.settings.program import data_tier_alone, load
from infra.tiers.apps import AppsTier
from infra.tiers.edge import EdgeTier
from infra.tiers.llm import LlmTier
from infra.tiers.models import ModelsTier
from infra.tiers.oauth import OAuthTier
from infra.tiers.platform import platform_of
from infra.tiers.services import ServiceTier

settings = load(pulumi.Config("dify"), pulumi.get_stack())
release = settings.dify
platform = platform_of(settings, release, docker_host=pulumi.Config("docker").get("host") or "")
platform.add_networks(networks(settings, release))

data_volumes = tier_volumes(Tier.DATA, settings, release)
data_tier = ServiceTier("data", specs(Tier.DATA, settings, release), platform, volumes=data_volumes)


def _rest() -> None:
    """Declare what runs on the data."""
    dify_tier = ServiceTier(
        "dify",
        staggered(specs(Tier.DIFY, settings, release), platform.starts_together),
        platform,
        volumes=tier_volumes(Tier.DIFY, settings, release),
        before=data_tier.running,
    )
    apps_tier = AppsTier("apps", settings, api=dify_tier.running["api"])
    oauth_tier = OAuthTier("oauth", settings, release, platform, apps_tier, before=dify_tier.running)
    llm_tier = LlmTier("llm", settings, release, platform, before=oauth_tier.running)
    # Nothing is published before the instance is claimed: otherwise anyone who reaches it could claim it.
    edge_tier = EdgeTier("edge", settings, release, platform, before=llm_tier.running, after=[apps_tier])
    models_tier = ModelsTier(
        "models", settings, apps_tier, edge_tier, daemon=dify_tier.running["plugin-daemon"]
    )

    shown = exports.Shown(edge=edge_tier, apps=apps_tier, oauth=oauth_tier, models=models_tier)
    exports.publish(settings, release, shown, networks=platform.network_names)


# `dify-kit restore` fills the databases before Dify sees them.
if not data_tier_alone():
    _rest()
