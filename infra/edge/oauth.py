"""OAuth at the edge: which requests a scope allows, which tenants share limits, and what else the templates read.

nginx decides about access. The gateway introspects a token (`/verify`) and returns its tenant and scopes; whether a
scope allows the route is looked up in maps rendered from `infra.edge.scopes`, and requests are counted by tenant in
zones that this module names.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from infra.catalogue import ports, route_groups
from infra.catalogue.services import GATEWAY
from infra.edge import errors as edge_errors
from infra.edge.limits import ADDRESS_KEY, ExtraLimits
from infra.edge.paths import INTROSPECTION_CACHE, INTROSPECTION_KEYS
from infra.edge.scopes import ROUTES, SCOPES, ScopedRoute
from infra.settings.oauth import OAuth, Tenant
from infra.settings.rate_limits import GroupLimits

# The upstream of the gateway's internal port, which only nginx reaches.
GATEWAY_INTERNAL = "gateway_internal"

TENANT_KEY = "$oauth_tenant"
# Requests with an invalid token, by address. Several clients behind one address may have an expired token.
REFUSED = "oauth_refused"
# Introspections by the gateway, by address.
INTROSPECTIONS = "oauth_introspections"

# The first of the statuses by which a location hands a request over to another one. No response has them.
HANDOVER_STATUS = 418

# No dot, so a segment cannot be a dot segment. No percent sign, so the matched path is the path that Dify reads.
SEGMENT = "[A-Za-z0-9_-]{1,128}"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_PATH = re.compile(r"(?:/(?:[A-Za-z0-9_-]+|\{\}))+")


@dataclass(frozen=True, kw_only=True)
class TenantClass:
    """Tenants with equal limits. They share zones, with an entry for each tenant."""

    name: str
    limits: GroupLimits
    tenants: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class EdgeOAuth:
    """OAuth as the templates read it, as `edge.oauth`.

    `calls` maps each route group that accepts OAuth tokens to the shape of its errors for such requests, `scopes` a
    scope to the pattern of `METHOD path` that it allows.
    """

    classes: tuple[TenantClass, ...]
    scopes: Mapping[str, str]
    calls: Mapping[str, str]
    introspection_cache: str = INTROSPECTION_CACHE
    introspection_keys: str = INTROSPECTION_KEYS
    gateway: str = GATEWAY
    internal: str = GATEWAY_INTERNAL
    refused: str = REFUSED
    introspections: str = INTROSPECTIONS
    seconds: int = 2

    def handover_status(self, group: str) -> int:
        """Return the status by which a location of the group hands a request over. No client receives it."""
        return HANDOVER_STATUS + list(self.calls).index(group)

    @property
    def handover_status_of_llm(self) -> int:
        """The same status for the locations of the LLM proxy."""
        return HANDOVER_STATUS + len(self.calls)


def edge_oauth(oauth: OAuth | None) -> EdgeOAuth | None:
    """Return what the edge needs for OAuth, None without it. Raises ValueError for a name that nginx cannot hold."""
    if oauth is None:
        return None
    calls = {one.name: edge_errors.TOKEN_SHAPE for one in route_groups.TABLE if one.oauth_tokens}
    return EdgeOAuth(classes=tenant_classes(oauth.tenants), scopes=scope_patterns(), calls=calls)


def oauth_services(*, on: bool) -> tuple[tuple[str, int], ...]:
    """Return the gateway's two ports by the name of their upstream, none where it does not run."""
    return ((GATEWAY, ports.GATEWAY), (GATEWAY_INTERNAL, ports.GATEWAY_INTERNAL)) if on else ()


def oauth_limits(oauth: OAuth | None) -> Mapping[str, ExtraLimits]:
    """Return the limits of OAuth by their names, empty without OAuth."""
    if oauth is None:
        return MappingProxyType({})
    limits = oauth.limits
    by_address = {
        route_groups.OAUTH: limits.address,
        REFUSED: GroupLimits(rate=limits.refused),
        INTROSPECTIONS: GroupLimits(rate=limits.unknown),
    }
    return MappingProxyType(
        {
            **{name: ExtraLimits(key=ADDRESS_KEY, limits=limits) for name, limits in by_address.items()},
            **{
                one.name: ExtraLimits(key=TENANT_KEY, limits=one.limits, size="1m")
                for one in tenant_classes(oauth.tenants)
            },
        }
    )


def tenant_classes(tenants: Iterable[Tenant]) -> tuple[TenantClass, ...]:
    """Return the tenants grouped by equal limits, in a stable order.

    A class is named after its limits, so a tenant that changes its class does not reset the counts of the others.
    """
    members: dict[GroupLimits, list[str]] = {}
    for tenant in tenants:
        if not _NAME.fullmatch(tenant.name):
            raise ValueError(
                f"tenant {tenant.name!r}: must be 1 to 63 of a-z, 0-9 and '-', the first not '-'"
            )
        # A verified request is counted by tenant: several tenants may share an address.
        limits = replace(tenant.limits, address_rate=None, address_concurrent=0)
        members.setdefault(limits, []).append(tenant.name)
    found = (
        TenantClass(name=_class_name(limits), limits=limits, tenants=tuple(sorted(names)))
        for limits, names in members.items()
    )
    return tuple(sorted(found, key=lambda one: one.name))


def _class_name(limits: GroupLimits) -> str:
    return f"tenant_{hashlib.sha256(repr(limits).encode()).hexdigest()[:8]}"


def scope_patterns(routes: Iterable[ScopedRoute] = ROUTES) -> Mapping[str, str]:
    """Return by scope a pattern of `METHOD raw-path`, for nginx's map. Raises ValueError for an unsupported route.

    A raw path matches in its normalised form only, in which nginx chooses the location by it and Dify reads it: with
    encoded letters, empty segments or dot segments it matches no route.
    """
    paths: dict[str, dict[str, list[str]]] = {}
    for route in routes:
        if route.scope not in SCOPES or not _PATH.fullmatch(route.path):
            raise ValueError(
                f"{route}: its scope must be one of {', '.join(SCOPES)}, its path of plain segments"
            )
        for method in route.methods:
            paths.setdefault(route.scope, {}).setdefault(method, []).append(route.path.replace("{}", SEGMENT))
    return MappingProxyType(
        {
            scope: "^(?:{})(?:[?]|$)".format(
                "|".join(f"{method} (?:{'|'.join(found)})" for method, found in methods.items())
            )
            for scope, methods in paths.items()
        }
    )
