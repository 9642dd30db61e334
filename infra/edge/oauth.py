"""OAuth at the edge: which calls a scope opens, which tenants share limits, and what else the templates read.

nginx alone decides here. The gateway says whose a token is (`/verify`); whether that opens the route is looked up in
tables made of `infra.edge.scopes`, and tenants are counted in zones that this module names.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from infra.catalogue import ports
from infra.edge import errors as edge_errors
from infra.edge.limits import ADDRESS_KEY, Counted
from infra.edge.paths import VERDICT_KEYS, VERDICTS
from infra.edge.routes import EdgeRoute
from infra.edge.scopes import ROUTES, SCOPES, ScopedRoute
from infra.settings.oauth import OAuth, Tenant
from infra.settings.rate_limits import GroupLimits

# The service, and the name by which nginx reaches the port that is its own.
GATEWAY = "gateway"
GATEWAY_INTERNAL = "gateway_internal"
# The route group of the service's public endpoints.
GROUP = "oauth"
PUBLIC_PREFIXES = ("/oauth/", "/.well-known/oauth-authorization-server")
# What the gateway itself takes.
MAX_BODY_KILOBYTES = 16
# Long enough for a busy gateway with a slow Redis. Later than that it is away: 503, as when it cannot be reached.
PUBLIC_SECONDS = 5
# Route groups in which a token of OAuth is a credential, and the shape of their errors for such calls.
CALLS: Mapping[str, str] = MappingProxyType({"v1": edge_errors.TOKEN_SHAPE})

TENANT_KEY = "$oauth_tenant"
# Answers to tokens that are not valid, by address. Clients behind one address may all meet an expired token.
REFUSED = "oauth_refused"
# Tokens that nginx asks the gateway about, by address.
ASKED = "oauth_asked"

# Statuses that nothing else here ends with.
TURN = 418

# No dot: such a segment can be no step in a path. No percent sign: what is matched is what Dify reads.
SEGMENT = "[A-Za-z0-9_-]{1,128}"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_PATH = re.compile(r"(?:/(?:[A-Za-z0-9_-]+|\{\}))+")


@dataclass(frozen=True, kw_only=True)
class TenantClass:
    """Tenants with equal limits: they share zones, in which each of them is counted by itself."""

    name: str
    limits: GroupLimits
    tenants: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class EdgeOAuth:
    """OAuth as the templates read it, as `edge.oauth`.

    `calls` maps a route group to the shape of errors, `scopes` a scope to the pattern of `METHOD path` it opens.
    """

    classes: tuple[TenantClass, ...]
    scopes: Mapping[str, str]
    calls: Mapping[str, str]
    verdicts: str = VERDICTS
    verdict_keys: str = VERDICT_KEYS
    gateway: str = GATEWAY
    internal: str = GATEWAY_INTERNAL
    refused: str = REFUSED
    asked: str = ASKED
    seconds: int = 2

    def turn(self, group: str) -> int:
        """Return the status by which a location of the group sends a call on its way. No client ever sees it."""
        return TURN + list(self.calls).index(group)

    @property
    def turn_to_llm(self) -> int:
        """The same for the LLM proxy's locations."""
        return TURN + len(self.calls)


def edge_oauth(oauth: OAuth | None) -> EdgeOAuth | None:
    """Return what the edge needs for OAuth, None without it. Raises ValueError for what nginx could not hold."""
    if oauth is None:
        return None
    return EdgeOAuth(classes=tenant_classes(oauth.tenants), scopes=scope_patterns(), calls=CALLS)


def oauth_routes(oauth: OAuth | None) -> tuple[EdgeRoute, ...]:
    """Return the routes of the gateway's public endpoints, none without OAuth."""
    if oauth is None:
        return ()
    return tuple(
        EdgeRoute(
            prefix=prefix,
            group=GROUP,
            service=GATEWAY,
            max_body_megabytes=None,
            max_body_kilobytes=MAX_BODY_KILOBYTES,
            read_timeout_seconds=PUBLIC_SECONDS,
            repeatable=True,
        )
        for prefix in PUBLIC_PREFIXES
    )


def oauth_services(*, on: bool) -> tuple[tuple[str, int], ...]:
    """Return the gateway's two ports, by the name of nginx's upstream, none where it does not run."""
    return ((GATEWAY, ports.GATEWAY), (GATEWAY_INTERNAL, ports.GATEWAY_INTERNAL)) if on else ()


def oauth_limits(oauth: OAuth | None) -> Mapping[str, Counted]:
    """Return what is counted because of OAuth, by the name under which it applies; nothing without OAuth."""
    if oauth is None:
        return MappingProxyType({})
    limits = oauth.limits
    by_address = {
        GROUP: limits.address,
        REFUSED: GroupLimits(rate=limits.refused),
        ASKED: GroupLimits(rate=limits.unknown),
    }
    return MappingProxyType(
        {
            **{name: Counted(key=ADDRESS_KEY, limits=limits) for name, limits in by_address.items()},
            **{
                one.name: Counted(key=TENANT_KEY, limits=one.limits, size="1m")
                for one in tenant_classes(oauth.tenants)
            },
        }
    )


def tenant_classes(tenants: Iterable[Tenant]) -> tuple[TenantClass, ...]:
    """Return tenants by equal limits, in a stable order.

    A class is named after its limits: a tenant that moves to another one leaves the counts of the rest alone.
    """
    members: dict[GroupLimits, list[str]] = {}
    for tenant in tenants:
        if not _NAME.fullmatch(tenant.name):
            raise ValueError(
                f"tenant {tenant.name!r}: nginx's tables take a-z, 0-9 and '-', at most 63 of them"
            )
        # Who is verified is counted as a tenant. An address may be many tenants'.
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
    """Return by scope a pattern of `METHOD raw-path`, for nginx's map. Raises ValueError for a route it cannot hold.

    The raw path has to be in its plain form, in which it is the one that nginx chose the location by and that Dify
    will read: with encoded letters, empty segments or dots it is no route at all.
    """
    paths: dict[str, dict[str, list[str]]] = {}
    for route in routes:
        if route.scope not in SCOPES or not _PATH.fullmatch(route.path):
            raise ValueError(f"{route}: no known scope, or a path that is not made of plain segments")
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
