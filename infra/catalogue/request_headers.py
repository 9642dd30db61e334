"""Which headers of a request go on to the services behind the edge.

Services trust headers that name the client and the address used; only the edge may write those. So it passes
names that are known here, and no other: `PASSED`, more on some routes (`MORE`), and what `dify:requestHeaders` adds.
Senders of webhooks choose their names themselves (`X-Hub-Signature-256`, `Stripe-Signature`), and so do callers of
plugin endpoints. Behind these routes everything passes but `IDENTITY`, the names by which proxies, content networks and
sign-ins tell about a request.
"""

import re
from collections.abc import Mapping
from itertools import product
from types import MappingProxyType

from infra.catalogue.route_groups import Headers

# What is negotiated about bodies and caches (RFC 9110, 9111), what browsers tell about a page's request, what Dify's
# api reads (constants, libs/token.py, core/helper/trace_id_helper.py), tracing, and the protocol of MCP. Each costs a
# look at every request, so the busiest routes have no more than they need.
PASSED = (
    *("Accept", "Accept-Encoding", "Accept-Language", "Content-Encoding", "Content-Type", "User-Agent"),
    *("If-Modified-Since", "If-None-Match", "If-Range", "Range", "Idempotency-Key", "Last-Event-ID"),
    *("Origin", "Referer", "X-App-Code", "X-App-Passport", "X-CSRF-Token", "X-Requested-With", "X-Trace-Id"),
    *("Traceparent", "Mcp-Protocol-Version", "Mcp-Session-Id"),
)
# Besides, of pages of Next.js to their own server. X-Middleware-* are its own marks, and Next-Url names a path.
_PAGES = (
    *(
        "Cache-Control",
        "Pragma",
        "Sec-Fetch-Dest",
        "Sec-Fetch-Mode",
        "Sec-Fetch-Site",
        "Sec-Purpose",
        "Purpose",
    ),
    *("Next-Action", "Next-Router-Prefetch", "Next-Router-Segment-Prefetch", "Next-Router-State-Tree"),
    *("RSC", "X-Nextjs-Data"),
)
_SOCKETS = tuple(f"Sec-WebSocket-{name}" for name in ("Extensions", "Key", "Protocol", "Version"))
# The headers besides, by the column `headers` of a route group: the templates parts/passed_<value>.conf.j2.
MORE: Mapping[Headers, tuple[str, ...]] = MappingProxyType(
    {Headers.PAGES: _PAGES, Headers.SOCKETS: _SOCKETS, Headers.OPEN: ()}
)
# What the edge writes: a client's values of these are dropped.
WRITTEN = (
    *(
        "Authorization",
        "Connection",
        "Cookie",
        "Dify-Hook-Url",
        "Host",
        "Upgrade",
        "X-Real-IP",
        "X-Request-Id",
    ),
    *(f"X-Forwarded-{name}" for name in ("For", "Host", "Port", "Proto")),
    *("X-Auth-Sub", "X-Auth-Tenant"),
)

_FORWARDED = (
    *(
        "For",
        "For-Ip",
        "For-Original",
        "By",
        "Client-Ip",
        "Host",
        "Server",
        "Port",
        "Proto",
        "Protocol",
        "Scheme",
    ),
    *("Ssl", "Https", "Prefix", "Path", "Uri", "Url", "Method", "Proxy", "Client-Cert", "Tls-Client-Cert"),
    *("Tls-Client-Cert-Info", "User", "Email", "Groups", "Preferred-Username", "Access-Token", "Roles"),
)
# Qualifiers of an address: X-Client-IP, True-Client-IP, Remote-Addr ...
_CLIENTS = (
    *("Client", "Cluster-Client", "True-Client", "Real", "Remote", "Source", "Originating", "Peer", "Proxy"),
    *("Proxy-Client", "WL-Proxy-Client", "Proxyuser", "Proxy-User", "User", "Host", "Original", "External"),
    *(
        "CF-Connecting",
        "CF-Pseudo",
        "DO-Connecting",
        "Fastly-Client",
        "Fly-Client",
        "Incap-Client",
        "Ali-CDN-Real",
    ),
    *("Cdn-Src", "Cdn-Real", "Appengine-User", "Appengine-Remote", "Envoy-External", "Nf-Client-Connection"),
)
_ADDRESSES = ("Ip", "Ipv4", "Ipv6", "Addr", "Address", "Port", "Host")
# Names for an address before a rewrite.
_ORIGINALS = (
    "Original",
    "Originating",
    "Rewrite",
    "Rewritten",
    "Request",
    "Real",
    "Base",
    "Url",
    "Http",
    "Envoy-Original",
)
_PLACES = (
    "Url",
    "Uri",
    "Path",
    "Host",
    "Scheme",
    "Proto",
    "Method",
    "Prefix",
    "For",
    "Forwarded-For",
    "Forwarded-Host",
)
# Who signed in, as proxies with a sign-in tell it.
_SIGNED_IN = (
    *(
        "Remote",
        "Auth",
        "Auth-Request",
        "Authenticated",
        "WebAuth",
        "Authentik",
        "Gate",
        "Ms-Client-Principal",
    ),
    *(
        "Goog-Authenticated-User",
        "Cf-Access-Authenticated-User",
        "Amzn-Oidc",
        "Oidc",
        "Tailscale-User",
        "SSL-Client",
    ),
)
_PEOPLE = (
    *(
        "User",
        "Username",
        "Userid",
        "Name",
        "Login",
        "Id",
        "Email",
        "Groups",
        "Roles",
        "Sub",
        "Tenant",
        "Scopes",
    ),
    *(
        "Limits",
        "Upstream",
        "Session",
        "Token",
        "Access-Token",
        "Accesstoken",
        "Preferred-Username",
        "Identity",
    ),
    *("Data", "Redirect", "Uid", "Cert", "Verify", "S-Dn", "Dn", "Entitlements"),
)
_SINGLE = (
    *(
        "Forwarded",
        "Via",
        "Proxy",
        "Proxy-Authorization",
        "Proxy-Connection",
        "Client",
        "Coming-From",
        "From",
    ),
    *(
        "Scheme",
        "Https",
        "SSL",
        "Host",
        "Http-Host-Override",
        "Host-Override",
        "Server",
        "Server-Name",
        "Server-Port",
    ),
    *("Script-Name", "Path-Info", "Prefix", "Front-End-Https", "Method-Override", "Http-Method-Override"),
    *(
        "Http-Destinationurl",
        "Destination",
        "ARR-ClientCert",
        "ARR-SSL",
        "ARR-LOG-ID",
        "Client-Cert",
        "Client-Verify",
    ),
    *("Client-Dn", "Ms-Client-Principal", "Goog-Iap-Jwt-Assertion", "Cf-Access-Jwt-Assertion", "CF-Visitor"),
    *(
        "CF-IPCountry",
        "CF-Worker",
        "Azure-ClientIP",
        "Azure-SocketIP",
        "Sucuri-ClientIP",
        "Vercel-Forwarded-For",
    ),
    *(
        "Vercel-Ip-Country",
        "Vercel-Proxied-For",
        "Fly-Forwarded-Port",
        "Fly-Forwarded-Proto",
        "Fly-Forwarded-Ssl",
    ),
    *(
        "HTTP-X-Forwarded-For",
        "Middleware-Subrequest",
        "Middleware-Prefetch",
        "Middleware-Invoke",
    ),
    *("Next-Url", "Inner-Api-Key", "Inner-Api-Signature", "Dify-Hook-Url", "Dify-Hook-Id", "User"),
    *("Accel-Redirect", "Sendfile", "Sendfile-Type", "Accel-Mapping", "Wap-Profile", "Original-Remote-Addr"),
)
# Of these shapes, and yet what senders of webhooks prove themselves by.
_SECRETS = ("Auth-Token", "X-Auth-Token")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}")


def _identity() -> frozenset[str]:
    bases = {
        *(f"Forwarded-{name}" for name in _FORWARDED),
        *(f"{whose}-{what}" for whose, what in product(_CLIENTS, _ADDRESSES)),
        *(f"{when}-{what}" for when, what in product(_ORIGINALS, _PLACES)),
        *(f"{whose}-{what}" for whose, what in product(_SIGNED_IN, _PEOPLE)),
        *_SINGLE,
    }
    found = {f"{prefix}{base}" for prefix, base in product(("", "X-"), bases)}
    own = {name.lower() for name in (*WRITTEN, *PASSED, *_PAGES, *_SECRETS)}
    # nginx tells names apart by their letters' case, which HTTP does not: each name once.
    return frozenset({name.lower(): name for name in sorted(found) if name.lower() not in own}.values())


# Names of proxies for a client, a user, a host, a scheme or a path; none of those that the edge writes itself.
IDENTITY = _identity()
_LOWER_IDENTITY = frozenset(name.lower() for name in IDENTITY)


def name_problem(name: str) -> str | None:
    """Return what keeps a header from being passed on because the operator says so, or None when it may be."""
    if not _NAME.fullmatch(name):
        return "no header name: a letter, then letters, digits and '-'"
    if name.lower() in {one.lower() for one in WRITTEN}:
        return "the edge writes this header itself"
    if name.lower() in _LOWER_IDENTITY:
        return "it names a client or an address, and services would trust it from any client"
    return None
