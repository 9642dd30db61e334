"""Errors of the edge itself, in the JSON shape that clients of each route group parse."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from infra.catalogue import route_groups
from infra.catalogue.route_groups import ErrorShape

DEFAULT_SHAPE = ErrorShape.DIFY
# The variable with the seconds to wait after a 429, and its placeholder while the JSON is serialised.
RETRY_VARIABLE = "$edge_retry_number"
_RETRY = "@retry@"
# The shape for requests with an OAuth token: its 403 names the missing scope.
TOKEN_SHAPE = "token"  # noqa: S105  # a name
_SCOPE, SCOPE_VARIABLE = "@scope@", "$oauth_scope"
_NEEDED, NEEDED_VARIABLE = "@needed@", "$oauth_needed"
UNAUTHORIZED, FORBIDDEN, TOO_MANY, SERVER_ERROR, UNAVAILABLE = 401, 403, 429, 500, 503


@dataclass(frozen=True, kw_only=True)
class EdgeError:
    """An error by its status. `code` and `message` hold no character that JSON or nginx would have to escape."""

    status: int
    code: str
    message: str


def _error(status: int, code: str, message: str) -> EdgeError:
    return EdgeError(status=status, code=code, message=message)


ERRORS = (
    _error(400, "bad_request", "The request could not be understood."),
    _error(401, "unauthorized", "Authentication is required."),
    _error(403, "forbidden", "Access is not allowed."),
    _error(404, "not_found", "There is nothing here."),
    _error(405, "method_not_allowed", "The method is not allowed here."),
    _error(413, "request_too_large", "The request body is larger than this server accepts."),
    _error(414, "uri_too_long", "The address is longer than this server accepts."),
    _error(421, "misdirected_request", "The host is none that this server answers for."),
    _error(429, "too_many_requests", "Too many requests. Wait as long as Retry-After says."),
    _error(431, "headers_too_large", "The request headers are larger than this server accepts."),
    _error(500, "internal_error", "The edge failed."),
    _error(501, "not_implemented", "The method or coding is not supported."),
    _error(503, "service_unavailable", "The service is starting or restarting. Try again."),
    _error(504, "gateway_timeout", "No answer in time. The request may have been carried out."),
    _error(505, "version_not_supported", "The HTTP version is not supported."),
)


def _dify(error: EdgeError) -> dict[str, Any]:
    return {"code": error.code, "message": error.message, "status": error.status}


def _service(error: EdgeError) -> dict[str, Any]:
    """Return Dify's shape, except for the two statuses that the OAuth gateway documents."""
    if error.status == UNAUTHORIZED:
        return {
            "error": "invalid_token",
            "error_description": "The access token is invalid or has expired",
        }
    if error.status == TOO_MANY:
        return {"error": "rate_limit_exceeded", "retry_after": _RETRY}
    return _dify(error)


def _oauth(error: EdgeError) -> dict[str, Any]:
    """Return the shape of RFC 6749, section 5.2, with the two codes of 4.1.2.1 for errors of the server.

    A 429 has the shape of the gateway's own: it is the same endpoint.
    """
    if error.status == TOO_MANY:
        return {"error": "rate_limit_exceeded", "retry_after": _RETRY}
    code = {
        UNAUTHORIZED: "invalid_client",
        FORBIDDEN: "access_denied",
        UNAVAILABLE: "temporarily_unavailable",
    }.get(error.status, "server_error" if error.status >= SERVER_ERROR else "invalid_request")
    return {"error": code, "error_description": error.message}


def _openai(error: EdgeError) -> dict[str, Any]:
    kind = {
        UNAUTHORIZED: "authentication_error",
        FORBIDDEN: "permission_error",
        TOO_MANY: "rate_limit_error",
    }.get(error.status, "server_error" if error.status >= SERVER_ERROR else "invalid_request_error")
    code = "rate_limit_exceeded" if error.status == TOO_MANY else error.code
    return {"error": {"message": error.message, "type": kind, "param": None, "code": code}}


SHAPES: Mapping[ErrorShape, Callable[[EdgeError], dict[str, Any]]] = MappingProxyType(
    {
        ErrorShape.DIFY: _dify,
        ErrorShape.SERVICE: _service,
        ErrorShape.OAUTH: _oauth,
        ErrorShape.OPENAI: _openai,
    }
)
# WWW-Authenticate of every 401 of the edge itself.
CHALLENGES: Mapping[ErrorShape, str] = MappingProxyType(
    {
        ErrorShape.DIFY: 'Bearer realm="edge"',
        ErrorShape.SERVICE: 'Bearer error="invalid_token"',
        ErrorShape.OAUTH: 'Basic realm="oauth"',
        ErrorShape.OPENAI: 'Bearer realm="edge"',
    }
)


def group_shapes() -> dict[str, ErrorShape]:
    """Return the shape of each route group whose errors do not have `DEFAULT_SHAPE`."""
    return {one.name: one.errors for one in route_groups.TABLE if one.errors is not DEFAULT_SHAPE}


def _token(error: EdgeError) -> dict[str, Any]:
    """Return the shape of the service API, with the 403 of RFC 6750 for a missing scope."""
    if error.status == FORBIDDEN:
        return {"error": "insufficient_scope", "error_description": _NEEDED, "scope": _SCOPE}
    return _service(error)


_REFUSALS: Mapping[str, EdgeError] = MappingProxyType(
    {
        "missing": _error(401, "unauthorized", "No key was sent. Send it as Authorization: Bearer <key>."),
        "unknown": _error(401, "invalid_api_key", "The key is unknown here: it is mistyped, or was revoked."),
        "expired": _error(401, "expired_api_key", "The key has expired. A new one is needed."),
        "internal": _error(
            403, "internal_api_key", "The key is accepted inside the network of the stack only."
        ),
        # nginx passes the challenge of the gateway on.
        "told": _error(401, "invalid_token", "The access token is invalid or has expired."),
    }
)


def scope_body(scope: str) -> str:
    """Return the LLM proxy's 403 for a token without `scope`: OpenAI's shape, with the code of RFC 6750."""
    shown = _openai(
        _error(FORBIDDEN, "insufficient_scope", f"insufficient_scope: the token lacks the scope {scope}.")
    )
    return json.dumps(shown, separators=(",", ":"))


def key_bodies() -> dict[str, str]:
    """Return the LLM proxy's bodies for callers that it refuses, by status and the reason as njs/llm.js sets it.

    Who may learn that a key has expired, or is for inside, holds the whole key. One that is unknown may have been
    revoked: the edge has no hash of it.
    """
    return {
        f"{error.status} {reason}": json.dumps(_openai(error), separators=(",", ":"))
        for reason, error in _REFUSALS.items()
    }


def scope_challenge(scope: str) -> str:
    """Return the WWW-Authenticate header of that 403 (RFC 6750, section 3)."""
    return f'Bearer error="insufficient_scope", scope="{scope}"'


def bodies() -> dict[str, str]:
    """Return every body by `<shape> <status>`, fit for an nginx string in single quotes."""
    return {key: text for shape, make in SHAPES.items() for key, text in _bodies(shape, make).items()}


def token_bodies() -> dict[str, str]:
    """Return the bodies for requests with an OAuth token; they use variables of http/oauth.conf."""
    return _bodies(TOKEN_SHAPE, _token)


def _bodies(shape: str, make: Callable[[EdgeError], dict[str, Any]]) -> dict[str, str]:
    found = {}
    for error in ERRORS:
        text = json.dumps(make(error), separators=(",", ":"))
        if "'" in text or "$" in text or "\\" in text:
            raise ValueError(
                f"{text}: holds a quote, a dollar sign or a backslash, which nginx would interpret"
            )
        text = text.replace(_SCOPE, SCOPE_VARIABLE).replace(_NEEDED, NEEDED_VARIABLE)
        found[f"{shape} {error.status}"] = text.replace(f'"{_RETRY}"', RETRY_VARIABLE)
    return found
