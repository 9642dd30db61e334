"""OAuth 2.0 for the service API as the settings have it: `dify:oauth`, and the clients beside the stack's settings."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from infra.rate_limits import GroupLimits


@dataclass(frozen=True, kw_only=True)
class Tenant:
    """Who shares an app: all calls of its clients get the key of that app, and count together.

    Of `limits`, `rate` and `concurrent` hold for the tenant; no two tenants have the same `app`.
    """

    name: str
    app: str
    limits: GroupLimits


@dataclass(frozen=True, kw_only=True)
class OAuth:
    """Everything about `/oauth/`, fully checked.

    `issuer` is an origin, `clients` maps a client id to its entry of the gateway's clients.json (hashes, no
    secrets), `issuers` are external issuers as the gateway's config.json has them.
    """

    issuer: str
    audience: str
    token_seconds: int
    tenants: tuple[Tenant, ...]
    clients: Mapping[str, Mapping[str, Any]]
    issuers: tuple[Mapping[str, Any], ...]
