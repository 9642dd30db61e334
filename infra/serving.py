"""Declare what runs on the data tier: everything that reads the data, and the exports."""

from infra import exports
from infra.catalogue.releases import Release
from infra.catalogue.service import Tier
from infra.platforms.platform import Platform
from infra.services.specs import specs, staggered, tier_volumes
from infra.settings.program import data_tier_alone
from infra.settings.stack import Settings
from infra.tiers.apps import AppsTier
from infra.tiers.data import DataTier, retire_passwords
from infra.tiers.edge import EdgeTier
from infra.tiers.llm import LlmTier
from infra.tiers.models import ModelsTier
from infra.tiers.oauth import OAuthTier
from infra.tiers.services import ServiceTier


def declare(settings: Settings, release: Release, platform: Platform, data_tier: DataTier) -> None:
    """Declare the tiers above the data tier; nothing while `dify-kit restore` fills the databases."""
    if data_tier_alone():
        return
    dify_tier = ServiceTier(
        "dify",
        staggered(specs(Tier.DIFY, settings, release), platform.starts_together),
        platform,
        volumes=tier_volumes(Tier.DIFY, settings, release),
        before=data_tier.running,
    )
    retired = retire_passwords(settings, data_tier, clients=dify_tier.running.values())
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
    exports.publish_rotations(settings, after=[*retired, apps_tier.admin], running=dify_tier.running)
