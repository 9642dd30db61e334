"""What nobody may get from outside: Dify's description of its own API, and the console's rooms for other pages."""

from collections.abc import Iterable
from urllib.parse import unquote, urlsplit

from smoke_tests.client import Answer

# Dify's schema of its routes, and a page that shows it.
_NAMES = ("swagger.json", "swagger-ui.html")
# What the edge and Dify could read in two ways.
_SPELLINGS = (
    "//v1//swagger.json",
    "/v1/%73wagger.json",
    "/v1%2Fswagger%2Ejson",
    "/v1/Swagger.JSON",
    "/v1/swagger.json/",
    "/v1/./swagger.json",
    "/files/../v1/swagger.json",
    "/v1/swagger.json?x=1",
    "/swaggerui/swagger-ui.css",
    "/openapi/v1/_catalog",
)
# Every schema has one of these, whatever its version.
_OF_A_SCHEMA = ('"swagger"', '"openapi"', '"paths"', '"ops"', "swagger-ui")
NOT_FOUND, FORBIDDEN, CROOKED = 404, 403, {400, 404}
SOCKETS = "/socket.io/?EIO=4&transport="
WEBSOCKET = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "c21va2UtdGVzdHMtYXJlLQ==",
}


def schema_paths(places: Iterable[str]) -> tuple[str, ...]:
    """Return the paths of schemas, written in several ways, in a release whose schemas are below `places`."""
    places = tuple(places)
    plain = [f"{place}/{name}" for place in places for name in _NAMES]
    has_openapi = any(place.startswith("/openapi") for place in places)
    spelled = [one for one in _SPELLINGS if has_openapi or not one.startswith("/openapi")]
    return (*plain, *spelled)


def schema_problem(answer: Answer, path: str) -> str:
    """Return why an answer lets a schema out, or says that there is one; empty when it does not."""
    if any(sign in answer.text for sign in _OF_A_SCHEMA):
        return f"{path}: a schema came: {answer!r}"
    dotted = any(part in {".", ".."} for part in unquote(urlsplit(path).path).split("/"))
    if answer.status not in (CROOKED if dotted else {NOT_FOUND}):
        return f"{path}: 404 is right: {answer!r}"
    return ""
