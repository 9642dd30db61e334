"""Where requests go: the release's routes, and the locations of nginx that they become.

What a location limits and whom it lets in is decided here, by nginx's own matching of the normalised path.
"""

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from infra.edge.limits import READS

# Where somebody claims an identity, by the route group they are in: password guesses, codes by e-mail, first-run
# pages. Dify asks for the state of the first run on each page, so what only reads is not counted there.
LOGIN_PATHS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "console": (
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
        "api": ("/api/login", "/api/email-code-login", "/api/forgot-password"),
    }
)
# Sign-in by a provider: its steps are GETs.
READS_COUNT = ("/console/api/oauth",)
# What belongs to the console besides its API: rooms where editors meet, and pages that nobody else needs. The pages
# hold no data, all of it comes through /console/api; scripts and styles are shared with published web apps.
SOCKET_GROUP = "socket"
CONSOLE_GROUPS = ("console", SOCKET_GROUP, "explore")
CONSOLE_PAGES = (
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
)


@dataclass(frozen=True, kw_only=True)
class EdgeRoute:
    """One route: how nginx matches it, whose policy applies, who answers.

    `repeatable`: what is asked for there may be asked again, so that no answer in time is a 503 with Retry-After.
    """

    prefix: str
    group: str
    service: str
    max_body_megabytes: int | None
    max_body_kilobytes: int | None = None
    read_timeout_seconds: int | None = None
    repeatable: bool = False

    @property
    def matches(self) -> tuple[str, ...]:
        """The location matches: a prefix ends at a slash, so that /v1 does not catch /v10."""
        if self.prefix.endswith("/"):
            return (self.prefix,)
        return (f"= {self.prefix}", f"{self.prefix}/")


@dataclass(frozen=True, kw_only=True)
class EdgeLocation:
    """A location of nginx. `limits` name what of `EdgeLimits` applies; `repeatable` is the route's.

    Who is `gated` has to sign in at the gate.
    """

    match: str
    group: str
    service: str
    max_body_megabytes: int | None
    limits: tuple[str, ...]
    console: bool
    gated: bool = False
    max_body_kilobytes: int | None = None
    read_timeout_seconds: int | None = None
    repeatable: bool = False

    @property
    def path(self) -> str:
        """The path, or how it begins."""
        return self.match.removeprefix("= ")

    @property
    def exact(self) -> bool:
        """Whether the whole path has to be equal."""
        return self.match.startswith("= ")


def locations(
    routes: tuple[EdgeRoute, ...], *, guarded: bool, limited: Container[str]
) -> tuple[EdgeLocation, ...]:
    """Return the locations of all routes, the more particular ones first.

    `guarded`: the console is not open to everyone, so that its pages need locations of their own. `limited` are the
    groups that have limits.
    """
    return tuple(location for route in routes for location in _of(route, guarded=guarded, limited=limited))


def _of(route: EdgeRoute, *, guarded: bool, limited: Container[str]) -> Iterator[EdgeLocation]:
    own = (route.group,) if route.group in limited else ()
    for path in LOGIN_PATHS.get(route.group, ()):
        login = READS if path in READS_COUNT else "login"
        yield from _matching(replace(route, prefix=path), (*own, login), console=route.group == "console")
    if guarded and route.prefix == "/":
        for path in CONSOLE_PAGES:
            yield from _matching(replace(route, prefix=path), own, console=True)
    yield from _matching(route, own, console=route.group in CONSOLE_GROUPS)


def _matching(route: EdgeRoute, limits: tuple[str, ...], *, console: bool) -> Iterator[EdgeLocation]:
    for match in route.matches:
        yield EdgeLocation(
            match=match,
            group=route.group,
            service=route.service,
            max_body_megabytes=route.max_body_megabytes,
            limits=limits,
            console=console,
            max_body_kilobytes=route.max_body_kilobytes,
            read_timeout_seconds=route.read_timeout_seconds,
            repeatable=route.repeatable,
        )
