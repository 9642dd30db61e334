"""What the stack says about itself. Smoke tests and the command line read this and nothing else."""

from collections.abc import Mapping
from typing import Any

import pulumi

from infra.catalogue import ports
from infra.catalogue.releases import Release
from infra.platforms.docker import Running
from infra.settings.gate import Gate
from infra.settings.oauth import OAuth
from infra.settings.rate_limits import Bucket, RateLimits
from infra.settings.stack import Settings
from infra.tiers.apps import AppsTier
from infra.tiers.edge import EdgeTier
from infra.tiers.oauth import OAuthTier

CORS_GROUPS = ("v1", "api", "console", "openapi", "files", "mcp", "triggers")


def publish(
    settings: Settings,
    release: Release,
    edge: EdgeTier,
    apps: AppsTier,
    oauth: OAuthTier,
    *,
    networks: list[str],
) -> None:
    """Export the facts of the stack. Keys and the canary's OAuth client are secret; nothing else here is.

    Keys of tenants are not exported at all.
    """
    for name, value in facts(settings, release, edge.running, networks).items():
        pulumi.export(name, value)
    pulumi.export("edgeRevision", edge.revision)
    pulumi.export("apps", apps.facts)
    pulumi.export("appKeys", pulumi.Output.secret(apps.keys))
    pulumi.export("canary", apps.canary)
    pulumi.export("canaryKey", pulumi.Output.secret(apps.canary_key))
    pulumi.export("canaryNodes", apps.canary_nodes)
    pulumi.export("canaryNodesKey", pulumi.Output.secret(apps.canary_nodes_key))
    pulumi.export("canaryDatasetKey", pulumi.Output.secret(apps.canary_dataset_key))
    canary = oauth.canary
    pulumi.export(
        "oauthCanary",
        pulumi.Output.secret(
            {"clientId": canary.client_id, "clientSecret": canary.secret} if canary else None
        ),
    )


def facts(
    settings: Settings, release: Release, running: Mapping[str, Running], networks: list[str]
) -> dict[str, Any]:
    """Return the exports that are known without the apps."""
    jobs = {name: one.container.name for name, one in running.items() if one.spec.job}
    containers = {name: one.container.name for name, one in running.items() if not one.spec.job}
    callback = f"{settings.urls.console}/console/api/oauth/authorize"
    return {
        "stack": settings.stack,
        "release": release.version,
        "images": settings.images,
        # Dify's own services are not Dify then; the exports say so.
        "standIn": settings.images == "local",
        "publicUrl": settings.public_url,
        "serviceApiUrl": f"{settings.urls.service}/v1",
        "consoleUrl": settings.urls.console,
        "bindAddress": settings.bind_address,
        "httpPort": settings.http_port,
        "tls": tls_facts(settings),
        "containers": containers,
        "jobs": jobs,
        "edge": "nginx",
        "networks": networks,
        "corsOrigins": {group: list(settings.cors.origins(group)) for group in CORS_GROUPS},
        "maxUploadMegabytes": settings.max_upload_megabytes,
        "rateLimits": limit_facts(settings.rate_limits, release),
        "oauth": oauth_facts(settings.oauth),
        "oidcGate": gate_facts(settings.oidc_gate),
        "apiSchema": settings.api_schema,
        "consoleAllowFrom": list(settings.console_allow_from),
        "ssrfAllowPrivate": list(settings.ssrf_allow_private),
        "adminEmail": settings.admin_email,
        "llm": llm_facts(settings),
        "oauthCallbackUrls": {provider: f"{callback}/{provider}" for provider in ("github", "google")},
    }


def llm_facts(settings: Settings) -> dict[str, Any] | None:
    """Return where the LLM proxy answers and what it serves; None when it is off."""
    llm = settings.llm
    if llm is None:
        return None
    return {
        "url": f"{settings.public_url}/llm/v1",
        "internalUrl": f"http://nginx:{ports.EDGE_LLM}/llm/v1",
        "engine": llm.engine,
        "models": sorted(llm.models),
        "embeddings": sorted(llm.embeddings),
        "corsOrigins": list(settings.cors.origins("llm")),
    }


def tls_facts(settings: Settings) -> dict[str, Any]:
    """Return the TLS settings of the edge.

    Certificates that certbot gets are not known here. `ca` is in PEM: what a client of a self-signed stack has
    to trust, empty otherwise.
    """
    tls = settings.tls
    certificate = tls.certificate
    return {
        "mode": tls.mode,
        "httpsPort": settings.https_port if tls.on else None,
        "redirect": tls.on and tls.redirect,
        "hstsSeconds": tls.hsts_seconds,
        "sha256": certificate.fingerprint if certificate else "",
        "expires": certificate.not_after.isoformat() if certificate else "",
        "ca": tls.ca,
    }


def oauth_facts(oauth: OAuth | None) -> dict[str, Any] | None:
    """Return endpoints and tenants, None when OAuth is off. Of the clients only their number is exported."""
    if oauth is None:
        return None
    return {
        "issuer": oauth.issuer,
        "audience": oauth.audience,
        "tokenUrl": f"{oauth.issuer}/oauth/token",
        "revokeUrl": f"{oauth.issuer}/oauth/revoke",
        "introspectUrl": f"{oauth.issuer}/oauth/introspect",
        "jwksUrl": f"{oauth.issuer}/oauth/jwks.json",
        "metadataUrl": f"{oauth.issuer}/.well-known/oauth-authorization-server",
        "tokenSeconds": oauth.token_seconds,
        "tenants": [tenant.name for tenant in oauth.tenants],
        "clients": len(oauth.clients),
        "externalIssuers": [str(one["issuer"]) for one in oauth.issuers],
    }


def gate_facts(gate: Gate | None) -> dict[str, Any] | None:
    """Return what to register at the gate's provider, and what is behind the gate; None when it is off."""
    if gate is None:
        return None
    return {
        "issuer": gate.issuer,
        "clientId": gate.client_id,
        "callbackUrls": list(gate.callback_urls),
        "signedOutUrls": list(gate.signed_out_urls),
        "sessionSeconds": gate.session_seconds,
        "webApp": gate.web_app,
    }


def limit_facts(limits: RateLimits, release: Release) -> dict[str, Any]:
    """Return the limits as they hold: by group, with the seconds that a 429 for the rate names. 0: no limit.

    Groups that the release does not have are left out; signing in is one in every release.
    """
    groups = {route.group for route in release.routes} | {"login"}
    return {
        "dryRun": limits.dry_run,
        "groups": {
            group: {
                **_bucket_facts(found.rate, "requests", "seconds", "burst"),
                "concurrent": found.concurrent,
                **_bucket_facts(found.address_rate, "addressRequests", "addressSeconds", "addressBurst"),
                "addressConcurrent": found.address_concurrent,
                "retryAfter": found.retry_seconds,
            }
            for group, found in limits.groups.items()
            if group in groups
        },
    }


def _bucket_facts(bucket: Bucket | None, *names: str) -> dict[str, int]:
    values = (bucket.requests, bucket.seconds, bucket.burst) if bucket else (0, 0, 0)
    return dict(zip(names, values, strict=True))
