"""What must not be served: Dify's API schemas to anyone, and the console's sockets to other origins."""

from urllib.parse import unquote, urlsplit

from smoke_tests.client import Answer

# Dify's api serves a schema and its viewer beside each of these route groups.
_BLUEPRINTS = {
    "v1": "/v1",
    "console": "/console/api",
    "api": "/api",
    "files": "/files",
    "mcp": "/mcp",
    "openapi": "/openapi/v1",
}
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


def schema_paths(groups: set[str]) -> tuple[str, ...]:
    """Return the paths of schemas in a release with these route groups, normalised and not."""
    plain = [f"{_BLUEPRINTS[group]}/{name}" for group in _BLUEPRINTS if group in groups for name in _NAMES]
    spelled = [one for one in _SPELLINGS if "openapi" in groups or not one.startswith("/openapi")]
    return (*plain, *spelled)


def schema_problem(answer: Answer, path: str) -> str:
    """Return why an answer contains a schema or confirms that one exists; empty when it does not."""
    if any(sign in answer.text for sign in _OF_A_SCHEMA):
        return f"{path}: the answer is an API schema; 404 expected: {answer!r}"
    dotted = any(part in {".", ".."} for part in unquote(urlsplit(path).path).split("/"))
    if answer.status not in (CROOKED if dotted else {NOT_FOUND}):
        return f"{path}: 404 expected: {answer!r}"
    return ""
