"""The paths of the schemas of Dify's own API, which the edge hides unless `dify:apiSchema` is true.

Dify's api serves a schema and a page that shows it below the prefix of each of its blueprints, without authentication,
when `SWAGGER_UI_ENABLED` is true, which is the default in its code. Newer releases have a catalogue below `/openapi/v1`
that no variable turns off. nginx compares the normalised path (decoded once, slashes merged, as Dify reads it) and
ignores case. No other path of Dify matches.
"""

from collections.abc import Iterable

from infra.catalogue.releases import Route

# The service with the schemas.
API_SERVICE = "api"
# The path of a blueprint is its route's prefix, with or without a version: /openapi/v1.
_VERSION = "(?:/v[0-9]+)?"
# swagger.json and swagger-ui.html of current releases, docs of older ones, _catalog of newer ones. The other names are
# defaults of the same libraries.
_NAMES = "(?:swagger[^/]*|openapi[.](?:json|ya?ml)|docs|redoc|_catalog)"
_END = "(?:/|$)"
# The files that the page loads are at the root, where the web frontend answers in current releases.
AT_THE_ROOT = f"^/swagger(?:[.]json|ui|-ui[^/]*){_END}"


def schema_patterns(routes: Iterable[Route], *, opened: bool) -> tuple[str, ...]:
    """Return regular expressions, to match without case, for the paths of schemas; none when they are `opened`."""
    if opened:
        return ()
    prefixes = dict.fromkeys(
        route.prefix.strip("/") for route in routes if route.service == API_SERVICE and route.prefix != "/"
    )
    return (f"^/(?:{'|'.join(prefixes)}){_VERSION}/{_NAMES}{_END}", AT_THE_ROOT)
