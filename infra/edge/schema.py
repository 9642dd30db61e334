"""Where Dify describes its own API, so that the edge can keep that to itself.

Dify's api serves a schema and a page to look at it beside the routes of each of its blueprints, to anybody, when
`SWAGGER_UI_ENABLED` is true, which is the default in its code; newer releases have a catalogue below `/openapi/v1`
that no variable turns off. nginx compares the path in its normal form (decoded once, slashes merged, as Dify reads
it) and in any case of letters. Nothing else of Dify has a name of these in that place.
"""

from collections.abc import Iterable

from infra.catalogue.releases import Route

# Who serves schemas.
API_SERVICE = "api"
# A blueprint is at its route's prefix, or below it at a version: /openapi/v1.
_VERSION = "(?:/v[0-9]+)?"
# swagger.json and swagger-ui.html of today's releases, docs of older ones, _catalog of newer ones; the other names are
# those that the same libraries use elsewhere.
_NAMES = "(?:swagger[^/]*|openapi[.](?:json|ya?ml)|docs|redoc|_catalog)"
_END = "(?:/|$)"
# What the page loads is beside no blueprint. The web frontend answers there today.
AT_THE_ROOT = f"^/swagger(?:[.]json|ui|-ui[^/]*){_END}"


def schema_patterns(routes: Iterable[Route], *, opened: bool) -> tuple[str, ...]:
    """Return regular expressions, to be matched in any case, of the paths of schemas; none when they are `opened`."""
    if opened:
        return ()
    prefixes = dict.fromkeys(
        route.prefix.strip("/") for route in routes if route.service == API_SERVICE and route.prefix != "/"
    )
    return (f"^/(?:{'|'.join(prefixes)}){_VERSION}/{_NAMES}{_END}", AT_THE_ROOT)
