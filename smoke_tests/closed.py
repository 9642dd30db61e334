"""What must not be served: Dify's API schemas to anyone, and the console's sockets to other origins."""

import ipaddress
from collections.abc import Iterable, Sequence
from urllib.parse import unquote, urlsplit

from smoke_tests.client import Answer, Client

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
# What the edge sends to an address that dify:consoleAllowFrom does not list, as in infra/edge/errors.py.
CLOSED = {"code": "forbidden", "message": "Access is not allowed.", "status": FORBIDDEN}
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


def console_closed(client: Client, url: str, allowed: Sequence[str]) -> str:
    """Return why the console is closed to this machine by its address; empty when it is not.

    `allowed` are the networks of dify:consoleAllowFrom, empty for every address. A 403 is no reason where they match
    every address, nor where it is not the edge's own: then it is a defect, and the tests of the console fail by it.
    """
    if not allowed or matches_every_address(allowed) or not edges_own(client.ask("GET", f"{url}/signin")):
        return ""
    return f"the console is open to {', '.join(allowed)} only (dify:consoleAllowFrom), not to this machine"


def edges_own(answer: Answer) -> bool:
    """Return whether an answer is the edge's 403 to an address that dify:consoleAllowFrom does not list."""
    if answer.status != FORBIDDEN or not answer.header("x-request-id") or answer.header("x-version"):
        return False
    return answer.header("content-type") == "application/json" and answer.json() == CLOSED


def matches_every_address(networks: Iterable[str]) -> bool:
    """Return whether these networks together are all of IPv4 or all of IPv6."""
    listed = [ipaddress.ip_network(one, strict=False) for one in networks]
    fourth = ipaddress.collapse_addresses(one for one in listed if isinstance(one, ipaddress.IPv4Network))
    sixth = ipaddress.collapse_addresses(one for one in listed if isinstance(one, ipaddress.IPv6Network))
    return any(one.prefixlen == 0 for one in fourth) or any(one.prefixlen == 0 for one in sixth)
