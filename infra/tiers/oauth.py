"""The OAuth tier: the gateway, the tenants' keys, and the configuration that it loads without a restart."""

from collections.abc import Mapping
from typing import Any

import pulumi

from dify_gateway import scopes
from infra.catalogue.container_paths import GATEWAY_DIRECTORY, GATEWAY_UID
from infra.catalogue.releases import Release
from infra.catalogue.service import Tier
from infra.catalogue.services import GATEWAY, GATEWAY_REDIS
from infra.platforms.platform import Content, Platform, Running, Workload
from infra.resources.gateway_config import GatewayConfig, all_files, digest_of
from infra.resources.oauth_client import OAuthClient
from infra.services import gateway, gateway_secrets, outbound
from infra.services.environment import redis_url
from infra.services.gateway_files import gateway_files
from infra.services.specs import specs, tier_volumes
from infra.settings.oauth_clients import CANARY_CLIENT, CANARY_SCOPES, CANARY_TENANT
from infra.settings.stack import Settings
from infra.tiers.apps import AppsTier


class OAuthTier(pulumi.ComponentResource):
    """Runs the gateway, unless OAuth and the gate are off.

    `running` holds the containers of this tier and the tiers before it, by service. `canary` is the client of the smoke
    tests, None without one; its secret is a Pulumi secret. `revision` is that of the gateway's
    configuration, empty without a gateway.
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        release: Release,
        platform: Platform,
        apps: AppsTier,
        *,
        before: Mapping[str, Running],
    ) -> None:
        super().__init__("dify-kit:tiers:OAuth", name)
        self.running: dict[str, Running] = dict(before)
        self.canary: OAuthClient | None = None
        self.revision: pulumi.Input[str] = ""
        if settings.gateway:
            self._run(settings, release, platform, apps)
        self.register_outputs({})

    def _run(self, settings: Settings, release: Release, platform: Platform, apps: AppsTier) -> None:
        oauth = settings.oauth
        if oauth and settings.canary:
            self.canary = OAuthClient(
                "oauth-canary", client_id=CANARY_CLIENT, opts=pulumi.ResourceOptions(parent=self)
            )

        files = _files(settings, apps)
        clients_file = str(oauth.clients_file) if oauth else ""
        clients_digest = oauth.clients_digest if oauth else ""
        own = {CANARY_CLIENT: _entry(self.canary, llm=settings.llm is not None)} if self.canary else {}

        def configure(workload: Workload) -> GatewayConfig:
            config = GatewayConfig(
                "gateway-config",
                container=workload.reference,
                directory=GATEWAY_DIRECTORY,
                files=files,
                clients_file=clients_file,
                clients_digest=clients_digest,
                own_clients=own,
                owner=GATEWAY_UID,
                workers=gateway.WORKERS,
                opts=pulumi.ResourceOptions(parent=workload.resource),
            )
            # A digest of what is secret.
            self.revision = pulumi.Output.unsecret(config.revision)
            return config

        def live() -> Content:
            whole = pulumi.Output.all(
                files=files, own_clients=own, clients_file=clients_file, clients_digest=clients_digest
            ).apply(all_files)
            # A digest of what is secret; it names a directory, as on Docker.
            self.revision = revision = pulumi.Output.unsecret(whole.apply(digest_of))
            return Content(directory=GATEWAY_DIRECTORY, revision=revision, private_files=whole)

        platform.add_volumes(tier_volumes(Tier.OAUTH, settings, release), parent=self)
        for spec in specs(Tier.OAUTH, settings, release):
            self.running[spec.name] = platform.run(
                spec,
                parent=self,
                after=[self.running[service].ready for service in spec.after],
                configure=configure if spec.name == GATEWAY else None,
                live=live if spec.name == GATEWAY else None,
            )


def _files(settings: Settings, apps: AppsTier) -> pulumi.Output[dict[str, str]]:
    """Return the files of the gateway's configuration except the clients. They hold keys and a password: a secret."""
    oauth, gate = settings.oauth, settings.oidc_gate

    def written(values: dict[str, Any]) -> dict[str, str]:
        return {**gateway_files(oauth, gate, **values), **outbound.gateway_files(settings)}

    return pulumi.Output.secret(
        pulumi.Output.all(
            redis_url=redis_url(
                gateway.secret(settings).apply(gateway_secrets.redis_password), 0, GATEWAY_REDIS
            ),
            seal_key=gateway.secret(settings).apply(gateway_secrets.seal_key),
            app_keys=pulumi.Output.all(**apps.tenant_keys),
            signing_keys=(oauth.signing_keys if oauth else None) or "",
            client_secret=(gate.client_secret if gate else None) or "",
        ).apply(written)
    )


def _entry(canary: OAuthClient, *, llm: bool) -> pulumi.Output[dict[str, Any]]:
    granted = [*CANARY_SCOPES, *([scopes.LLM] if llm else [])]
    return canary.hash.apply(lambda stored: {"tenant": CANARY_TENANT, "scopes": granted, "secrets": [stored]})
