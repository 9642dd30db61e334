"""What must not be served: Dify's API schemas to anyone, and the console's sockets to other origins."""

from collections.abc import Iterable
from urllib.parse import unquote, urlsplit

from smoke_tests.client import Answer

# Dify serves a schema of its routes, and a viewer of it.
_NAMES = ("swagger.json", "swagger-ui.html")
# Non-normalised paths, which the edge and Dify could interpret differently.
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
# Every schema version has one of these members.
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
    """Return the paths of schemas in a release whose schemas are below `places`, normalised and not."""
    places = tuple(places)
    plain = [f"{place}/{name}" for place in places for name in _NAMES]
    has_openapi = any(place.startswith("/openapi") for place in places)
    spelled = [one for one in _SPELLINGS if has_openapi or not one.startswith("/openapi")]
    return (*plain, *spelled)


def schema_problem(answer: Answer, path: str) -> str:
    """Return why an answer contains a schema or confirms that one exists; empty when it does not."""
    if any(sign in answer.text for sign in _OF_A_SCHEMA):
        return f"{path}: the answer is an API schema; 404 expected: {answer!r}"
    dotted = any(part in {".", ".."} for part in unquote(urlsplit(path).path).split("/"))
    if answer.status not in (CROOKED if dotted else {NOT_FOUND}):
        return f"{path}: 404 expected: {answer!r}"
    return ""
