"""Routes of the edge, and the nginx locations that implement them.

A location's limits and access rules are decided here; nginx chooses the location by the normalised path.
"""

from collections.abc import Container, Iterator
from dataclasses import dataclass, replace

from infra.catalogue import route_groups
from infra.catalogue.route_groups import SIGN_IN_LIMIT, RouteGroup
from infra.edge.limits import SIGN_IN_BY_GET


@dataclass(frozen=True, kw_only=True)
class EdgeRoute:
    """One route: the paths that it covers, the group whose policy applies, and the service that answers.

    None for a size or a time means the server's own. `repeatable`: a request may be repeated, so a missing answer is a
    503 with Retry-After.
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
        """The location matches: a prefix ends at a slash, so that /v1 does not match /v10."""
        if self.prefix.endswith("/"):
            return (self.prefix,)
        return (f"= {self.prefix}", f"{self.prefix}/")


@dataclass(frozen=True, kw_only=True)
class EdgeLocation:
    """A location of nginx. `limits` name the limits of `EdgeLimits` that apply; `repeatable` is the route's.

    `console`: `dify:consoleAllowFrom` applies. `gated`: a session of the gate is required.
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
        """The path, or its prefix."""
        return self.match.removeprefix("= ")

    @property
    def exact(self) -> bool:
        """Whether the whole path has to be equal."""
        return self.match.startswith("= ")


def own_routes(group: RouteGroup) -> tuple[EdgeRoute, ...]:
    """Return the routes of a group that a service of the kit answers, none where a template does."""
    own = group.own
    if own is None or not own.service:
        return ()
    return tuple(
        EdgeRoute(
            prefix=prefix,
            group=group.name,
            service=own.service,
            max_body_megabytes=None,
            max_body_kilobytes=own.body_kilobytes,
            read_timeout_seconds=own.read_timeout_seconds,
            repeatable=own.repeatable,
        )
        for prefix in own.prefixes
    )


def locations(
    routes: tuple[EdgeRoute, ...], *, guarded: bool, limited: Container[str]
) -> tuple[EdgeLocation, ...]:
    """Return the locations of all routes, the more specific ones first.

    `guarded`: access to the console is restricted, so its pages need locations of their own. `limited` are the groups
    that have limits.
    """
    return tuple(location for route in routes for location in _of(route, guarded=guarded, limited=limited))


def _of(route: EdgeRoute, *, guarded: bool, limited: Container[str]) -> Iterator[EdgeLocation]:
    group = route_groups.group(route.group)
    own = (route.group,) if route.group in limited else ()
    for path in group.sign_in:
        sign_in = SIGN_IN_BY_GET if path in group.sign_in_by_get else SIGN_IN_LIMIT
        yield from _matching(replace(route, prefix=path), (*own, sign_in), console=group.console)
    if guarded:
        for path in group.console_pages:
            yield from _matching(replace(route, prefix=path), own, console=True)
    yield from _matching(route, own, console=group.console)


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
