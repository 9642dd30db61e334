"""The route groups of the edge: one row for each, and everything that depends on a group's name derives from its row.

A route group is a set of paths that share one policy: who is counted, which origins may call, how large a body may be,
which shape an error has. A release's file says which paths of Dify belong to which group (`routes`); the groups of the
kit's own services name their paths here. Defaults of `dify:rateLimits` are in `Pulumi.yaml`, by the same names.

To add a group: a row in `TABLE`, its defaults in `Pulumi.yaml` where it has limits, its settings in
`docs/reference/settings.md`, and its routes in the files of the releases that have them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum

from dify_gateway.gate_config import PREFIX as GATE_PREFIX
from infra.catalogue.releases import Route
from infra.catalogue.services import GATEWAY

# Groups that code names: the rest of the table is reached through its columns only.
SERVICE_API = "v1"
WEB_APP_API = "api"
CONSOLE = "console"
OPENAPI = "openapi"
OAUTH = "oauth"
GATE = "gate"
LLM = "llm"
SOCKET = "socket"
# The limit on attempts to sign in. It applies to paths of several groups (`RouteGroup.sign_in`) and is no group itself.
SIGN_IN_LIMIT = "login"


class LimitKey(StrEnum):
    """What the limits of a group are counted by. Each key but the address has a higher limit on its address besides."""

    # A bearer token or API key, the passport of a web app's visitor, the session cookie of the console.
    TOKEN = "token"  # noqa: S105  # a kind of key
    PASSPORT = "passport"
    SESSION = "session"
    # For routes whose credential Dify does not read: every made-up one would have a limit of its own.
    ADDRESS = "address"


class CorsKind(StrEnum):
    """Which other origins may call a group from a browser, by a setting `dify:cors.<group>` of its own."""

    # None, and no setting.
    NONE = "none"
    # Origins of the setting; `*` is allowed, cookies are not sent.
    PUBLIC = "public"
    # Origins of the setting, which have to be named: their pages send cookies.
    CREDENTIALS = "credentials"


class Body(Enum):
    """The largest request body of a group."""

    # An upload: dify:maxUploadMegabytes.
    UPLOAD = "upload"
    # An upload or a plugin package: dify:plugins.maxPackageMegabytes.
    PACKAGE = "package"
    # An upload or a webhook's body, which Dify limits by itself.
    WEBHOOK = "webhook"


class Headers(StrEnum):
    """Which request headers pass besides those of every route: `parts/passed_<value>.conf`."""

    DEFAULT = ""
    PAGES = "pages"
    SOCKETS = "sockets"
    OPEN = "open"


class ErrorShape(StrEnum):
    """The JSON shape of the edge's own errors: `infra.edge.errors.SHAPES`."""

    DIFY = "dify"
    SERVICE = "service"
    OAUTH = "oauth"
    OPENAI = "openai"


@dataclass(frozen=True, kw_only=True)
class OwnRoutes:
    """Paths of a service of the kit. `feature` is the attribute of `Settings` that is None while it is off.

    `prefixes` cover the paths below them, `paths` are single ones; either is empty for none. Without a `service`, the
    group has a template that answers. `body_kilobytes` and `read_timeout_seconds` are None for the edge's own values.
    `repeatable`: a request may be repeated, so a missing answer is a 503 with Retry-After instead of a 504.
    """

    feature: str
    prefixes: tuple[str, ...]
    paths: tuple[str, ...] = ()
    service: str = ""
    body_kilobytes: int | None = None
    read_timeout_seconds: int | None = None
    repeatable: bool = False


@dataclass(frozen=True, kw_only=True)
class RouteGroup:
    """One route group.

    - `own`: its routes where the kit serves it, None where a release's file lists them.
    - `limit_key`: what its limits count by, None for a group without limits in `dify:rateLimits`. `app_limit`: Dify
      counts the active requests of an app here too (`dify:limits.activeRequests`).
    - `cors`: its kind of setting; without one, the origins of the group `cors_as` apply. `frontend`: the part of
      `dify:urls` whose pages may always call. `cors_variable`: the variable by which Dify gets the origins.
    - `url`: the part of `dify:urls` that clients use, empty for `dify:publicUrl`.
    - `console`: closed by `dify:consoleAllowFrom` and by the gate. `console_pages`: paths of it that are the console's.
      `web_app`: closed by the gate with `dify:oidcGate.webApp`.
    - `sign_in`: paths that claim an identity, with a limit of their own (`SIGN_IN_LIMIT`). GET requests do not count,
      except for paths that are in `sign_in_by_get` too.
    - `oauth_tokens`: access tokens of the OAuth gateway are credentials here.
    - `hook_url`: the service gets the full URL of the request.
    - `probe`: a harmless path below the prefix for the smoke tests, None for none. `schema`: the path below the prefix
      under which Dify describes its API, None where it does not.
    """

    name: str
    own: OwnRoutes | None = None
    limit_key: LimitKey | None = None
    app_limit: bool = False
    cors: CorsKind = CorsKind.NONE
    cors_as: str = ""
    frontend: str = ""
    cors_variable: str = ""
    url: str = ""
    body: Body = Body.UPLOAD
    errors: ErrorShape = ErrorShape.DIFY
    headers: Headers = Headers.DEFAULT
    console: bool = False
    web_app: bool = False
    console_pages: tuple[str, ...] = ()
    sign_in: tuple[str, ...] = ()
    sign_in_by_get: tuple[str, ...] = ()
    oauth_tokens: bool = False
    hook_url: bool = False
    probe: str | None = None
    schema: str | None = None


# What the gateway accepts, and how long a busy gateway with a slow Redis may take. After that it counts as unreachable.
_GATEWAY_KILOBYTES = 16
_TOKEN_SECONDS = 5
# A sign-in waits for the provider up to three times: its documents, the code, the user's claims.
_SIGN_IN_SECONDS = 20

# Most probes are unknown to Dify: its 404 has to carry the headers too.
TABLE: tuple[RouteGroup, ...] = (
    RouteGroup(
        name=SERVICE_API,
        limit_key=LimitKey.TOKEN,
        app_limit=True,
        cors=CorsKind.PUBLIC,
        url="service",
        errors=ErrorShape.SERVICE,
        oauth_tokens=True,
        probe="/parameters",
        schema="",
    ),
    RouteGroup(
        name=WEB_APP_API,
        limit_key=LimitKey.PASSPORT,
        app_limit=True,
        cors=CorsKind.CREDENTIALS,
        frontend="app",
        cors_variable="WEB_API_CORS_ALLOW_ORIGINS",
        web_app=True,
        sign_in=("/api/login", "/api/email-code-login", "/api/forgot-password"),
        probe="/smoke-test",
        schema="",
    ),
    RouteGroup(
        name=CONSOLE,
        limit_key=LimitKey.SESSION,
        cors=CorsKind.CREDENTIALS,
        frontend="console",
        cors_variable="CONSOLE_CORS_ALLOW_ORIGINS",
        url="console",
        body=Body.PACKAGE,
        console=True,
        # Passwords, codes sent by e-mail, first-run pages. Every page of the console reads the state of the first run,
        # so GET requests count for the sign-in by a provider alone, whose steps are GET requests.
        sign_in=(
            "/console/api/login",
            "/console/api/email-code-login",
            "/console/api/email-register",
            "/console/api/forgot-password",
            "/console/api/reset-password",
            "/console/api/activate",
            "/console/api/setup",
            "/console/api/init",
            "/console/api/oauth",
        ),
        sign_in_by_get=("/console/api/oauth",),
        probe="/setup",
        schema="",
    ),
    RouteGroup(
        name=OPENAPI,
        limit_key=LimitKey.TOKEN,
        cors=CorsKind.PUBLIC,
        cors_variable="OPENAPI_CORS_ALLOW_ORIGINS",
        probe="/smoke-test",
        schema="/v1",
    ),
    RouteGroup(
        name="files", limit_key=LimitKey.ADDRESS, cors=CorsKind.PUBLIC, probe="/smoke-test", schema=""
    ),
    RouteGroup(name="mcp", limit_key=LimitKey.ADDRESS, cors=CorsKind.PUBLIC, probe="/smoke-test", schema=""),
    RouteGroup(
        name="triggers",
        limit_key=LimitKey.ADDRESS,
        cors=CorsKind.PUBLIC,
        body=Body.WEBHOOK,
        headers=Headers.OPEN,
        probe="/smoke-test",
    ),
    # Limits: dify:oauth.limits, not dify:rateLimits.
    RouteGroup(
        name=OAUTH,
        own=OwnRoutes(
            feature="oauth",
            prefixes=("/oauth/", "/.well-known/oauth-authorization-server"),
            service=GATEWAY,
            body_kilobytes=_GATEWAY_KILOBYTES,
            read_timeout_seconds=_TOKEN_SECONDS,
            repeatable=True,
        ),
        errors=ErrorShape.OAUTH,
    ),
    # Limits: infra/edge/gate.py.
    RouteGroup(
        name=GATE,
        own=OwnRoutes(
            feature="oidc_gate",
            prefixes=(f"{GATE_PREFIX}/",),
            service=GATEWAY,
            body_kilobytes=_GATEWAY_KILOBYTES,
            read_timeout_seconds=_SIGN_IN_SECONDS,
        ),
    ),
    # Limits: dify:llm.limits. Template: nginx/parts/llm.conf.j2.
    RouteGroup(
        name=LLM,
        own=OwnRoutes(feature="llm", prefixes=("/llm",), paths=("/api/chat",)),
        cors=CorsKind.PUBLIC,
        errors=ErrorShape.OPENAI,
    ),
    # The rooms in which editors of the console meet, with the console's cookies.
    RouteGroup(name=SOCKET, cors_as=CONSOLE, headers=Headers.SOCKETS, console=True),
    RouteGroup(name="endpoints", body=Body.WEBHOOK, headers=Headers.OPEN, hook_url=True),
    RouteGroup(name="explore", headers=Headers.PAGES, console=True),
    RouteGroup(
        name="web",
        headers=Headers.PAGES,
        web_app=True,
        # The pages hold no data, all of it comes through /console/api; scripts and styles are shared with web apps.
        console_pages=(
            "/install",
            "/init",
            "/signin",
            "/signup",
            "/activate",
            "/forgot-password",
            "/reset-password",
            "/apps",
            "/app",
            "/datasets",
            "/tools",
            "/plugins",
            "/account",
        ),
    ),
)


def groups() -> Mapping[str, RouteGroup]:
    """Return every group by its name, in the table's order."""
    return {one.name: one for one in TABLE}


def group(name: str) -> RouteGroup:
    """Return one group. Raises KeyError for a name that is not in the table."""
    return groups()[name]


def release_groups() -> tuple[str, ...]:
    """Return the groups that a release's routes may name."""
    return tuple(one.name for one in TABLE if one.own is None)


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What a client can request of a route group: `path` is harmless, `schema` as in `RouteGroup`, with its prefix."""

    path: str
    schema: str | None


def probes(routes: Iterable[Route]) -> Mapping[str, Probe]:
    """Return the probes of a release's route groups, in the table's order. The first prefix of a group counts."""
    prefixes: dict[str, str] = {}
    for route in routes:
        prefixes.setdefault(route.group, route.prefix.rstrip("/"))
    return {
        one.name: Probe(
            path=f"{prefixes[one.name]}{one.probe}",
            schema=None if one.schema is None else f"{prefixes[one.name]}{one.schema}",
        )
        for one in TABLE
        if one.probe is not None and one.name in prefixes
    }


def cors_groups() -> tuple[str, ...]:
    """Return the groups with a setting in `dify:cors`."""
    return tuple(one.name for one in TABLE if one.cors is not CorsKind.NONE)


def with_credentials(name: str) -> bool:
    """Tell whether pages of other origins send cookies to a group."""
    one = group(name)
    return group(one.cors_as or name).cors is CorsKind.CREDENTIALS


def limited_groups() -> tuple[str, ...]:
    """Return what has limits in `dify:rateLimits`: groups, and `SIGN_IN_LIMIT`."""
    return (*(one.name for one in TABLE if one.limit_key), SIGN_IN_LIMIT)


def limit_keys() -> Mapping[str, LimitKey]:
    """Return by limit what it is counted by; attempts to sign in are counted by address."""
    keys = {one.name: one.limit_key for one in TABLE if one.limit_key}
    return {**keys, SIGN_IN_LIMIT: LimitKey.ADDRESS}
