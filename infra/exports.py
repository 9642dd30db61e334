"""The exports of a stack. Smoke tests and the command line read them and nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import pulumi

from infra.catalogue import ports, route_groups
from infra.catalogue.releases import Release
from infra.catalogue.route_groups import LLM, SIGN_IN_LIMIT
from infra.platforms.platform import Running
from infra.settings.gate import Gate
from infra.settings.oauth import OAuth
from infra.settings.rate_limits import Bucket, RateLimits
from infra.settings.stack import Settings
from infra.tiers.apps import AppsTier
from infra.tiers.edge import EdgeTier
from infra.tiers.models import ModelsTier
from infra.tiers.oauth import OAuthTier

# The members of an exported rate.
BUCKET = ("requests", "seconds", "burst")


@dataclass(frozen=True, kw_only=True)
class Shown:
    """The tiers whose facts are exported."""

    edge: EdgeTier
    apps: AppsTier
    oauth: OAuthTier
    models: ModelsTier


def publish(settings: Settings, release: Release, tiers: Shown, *, networks: list[str]) -> None:
    """Export the facts of the stack. Keys and the canary's OAuth client are secrets; no other export is one.

    Keys of tenants are not exported.
    """
    for name, value in facts(settings, release, tiers.edge.running, networks).items():
        pulumi.export(name, value)
    pulumi.export("edgeRevision", tiers.edge.revision)
    pulumi.export("llmEdgeRevision", tiers.edge.owner_revision)
    pulumi.export("gatewayRevision", tiers.oauth.revision)
    pulumi.export("apps", tiers.apps.facts)
    pulumi.export("modelProviders", tiers.models.facts)
    pulumi.export("appKeys", pulumi.Output.secret(tiers.apps.keys))
    pulumi.export("canary", tiers.apps.canary)
    pulumi.export("canaryKey", pulumi.Output.secret(tiers.apps.canary_key))
    pulumi.export("canaryNodes", tiers.apps.canary_nodes)
    pulumi.export("canaryNodesKey", pulumi.Output.secret(tiers.apps.canary_nodes_key))
    pulumi.export("canaryDatasetKey", pulumi.Output.secret(tiers.apps.canary_dataset_key))
    canary = tiers.oauth.canary
    pulumi.export(
        "oauthCanary",
        pulumi.Output.secret(
            {"clientId": canary.client_id, "clientSecret": canary.secret} if canary else None
        ),
    )


def publish_rotations(
    settings: Settings, *, after: Sequence[pulumi.Resource], running: Mapping[str, Running]
) -> None:
    """Export how often each secret was rotated, once all that has one of them has its new value."""
    done = [*after, *(one.ready for one in running.values())]
    numbers = dict(settings.secret_rotations)
    pulumi.export("secretRotations", pulumi.Output.all(*(one.urn for one in done)).apply(lambda _: numbers))


def facts(
    settings: Settings, release: Release, running: Mapping[str, Running], networks: list[str]
) -> dict[str, Any]:
    """Return the exports that do not depend on the apps."""
    jobs = {name: one.name for name, one in running.items() if one.spec.job}
    containers = {name: one.name for name, one in running.items() if not one.spec.job}
    callback = f"{settings.urls.console}/console/api/oauth/authorize"
    return {
        "stack": settings.stack,
        "kit": version("dify-kit"),
        "platform": settings.platform,
        "release": release.version,
        "images": settings.images,
        # The stand-in takes the place of Dify's own services.
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
        "routeGroups": group_facts(settings, release),
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
    """Return the LLM proxy's URLs and its models; None when it is off."""
    llm = settings.llm
    if llm is None:
        return None
    return {
        "url": f"{settings.public_url}/llm/v1",
        "internalUrl": f"http://nginx:{ports.EDGE_LLM}/llm/v1",
        "engine": llm.engine,
        "models": sorted(llm.models),
        "embeddings": sorted(llm.embeddings),
        "corsOrigins": list(settings.cors.origins(LLM)),
        "limits": _bucket_facts(llm.limits.rate, *BUCKET),
    }


def tls_facts(settings: Settings) -> dict[str, Any]:
    """Return the TLS settings of the edge.

    Certificates that certbot obtains are unknown here. `ca` is the certificate, in PEM, that a client of a self-signed
    stack has to trust; empty otherwise.
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
    """Return the OAuth endpoints and the tenants, None when OAuth is off. Of the clients, only their number."""
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
        "limits": {
            "address": _bucket_facts(oauth.limits.address.rate, *BUCKET),
            "refusedTokens": _bucket_facts(oauth.limits.refused, *BUCKET),
            "newTokens": _bucket_facts(oauth.limits.unknown, *BUCKET),
            "failures": {
                "client": oauth.limits.failures.client,
                "address": oauth.limits.failures.address,
                "seconds": oauth.limits.failures.seconds,
            },
        },
    }


def gate_facts(gate: Gate | None) -> dict[str, Any] | None:
    """Return what to register at the gate's provider, and what the gate protects; None when it is off."""
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
    """Return the limits by group, 0 for none, with the seconds in Retry-After of a 429 for the rate.

    Groups that the release does not have are left out.
    """
    groups = {route.group for route in release.routes} | {SIGN_IN_LIMIT}
    return {
        "dryRun": limits.dry_run,
        "groups": {
            group: {
                **_bucket_facts(found.rate, *BUCKET),
                "concurrent": found.concurrent,
                **_bucket_facts(found.address_rate, "addressRequests", "addressSeconds", "addressBurst"),
                "addressConcurrent": found.address_concurrent,
                "retryAfter": found.retry_seconds,
            }
            for group, found in limits.groups.items()
            if group in groups
        },
    }


def group_facts(settings: Settings, release: Release) -> dict[str, Any]:
    """Return the release's route groups that a client can probe.

    `url` is the origin to reach a group at, `probe` the path of a harmless request, `origins` those that may call it,
    `credentials` whether their pages send cookies, `schema` the path below which Dify describes its API, if it does.
    """
    found = {}
    for name, probe in route_groups.probes(release.routes).items():
        part = route_groups.group(name).url
        found[name] = {
            "url": getattr(settings.urls, part) if part else settings.public_url,
            "probe": probe.path,
            "origins": list(settings.cors.origins(name)),
            "credentials": route_groups.with_credentials(name),
            "schema": probe.schema,
        }
    return found


def _bucket_facts(bucket: Bucket | None, *names: str) -> dict[str, int]:
    values = (bucket.requests, bucket.seconds, bucket.burst) if bucket else (0, 0, 0)
    return dict(zip(names, values, strict=True))
