"""The public endpoints behind nginx: /oauth/..., the metadata under /.well-known/, and /oauth2/... of the gate."""

import base64
import binascii
import ipaddress
import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from authlib.oauth2.rfc6749 import InvalidClientError
from flask import Flask, Request, Response, g, request
from werkzeug.exceptions import HTTPException

from dify_gateway import gate, jose, keys, log
from dify_gateway.config import CLIENT_ID, SCOPES
from dify_gateway.server import METHODS, Server, create_server, unauthenticated
from dify_gateway.service import Service
from dify_gateway.state import TooManyFailuresError, UnavailableError

MOST_BODY_BYTES = 16_384
MOST_PARAMETERS = 20
FORM = "application/x-www-form-urlencoded"
RETRY_SECONDS = 1
KEY_CACHE_SECONDS = 60
IPV6_NETWORK = 64
BAD_REQUEST, UNAUTHORIZED, NOT_FOUND = HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND
FORM_ENDPOINTS = ("/oauth/token", "/oauth/revoke", "/oauth/introspect")


class RefusedError(Exception):
    """A malformed request, refused before its content is examined."""

    def __init__(self, error: str, description: str, status: int = 400) -> None:
        super().__init__(description)
        self.error, self.description, self.status = error, description, status


def create_app(service: Service) -> Flask:
    """Return the public application."""
    app = Flask("dify_gateway", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MOST_BODY_BYTES
    app.config["MAX_FORM_MEMORY_SIZE"] = MOST_BODY_BYTES
    app.config["MAX_FORM_PARTS"] = MOST_PARAMETERS
    server = create_server(app)

    @app.before_request
    def begin() -> None:
        g.request_id = log.request_id(request.headers.get("X-Request-Id", ""))
        g.loaded = service.loaded

    @app.after_request
    def end(response: Response) -> Response:
        response.headers.setdefault("Cache-Control", "no-store")
        response.headers["X-Request-Id"] = g.get("request_id", "")
        _log(response)
        return response

    app.register_blueprint(gate.create_blueprint())
    _add_endpoints(app, server)
    _add_metadata(app)
    _add_errors(app)
    return app


def _add_endpoints(app: Flask, server: Server) -> None:
    @app.post("/oauth/token")
    def token() -> Response:
        return _authenticated(server.create_token_response)

    @app.post("/oauth/revoke")
    def revoke() -> Response:
        return _authenticated(lambda: server.create_endpoint_response("revocation"))

    @app.post("/oauth/introspect")
    def introspect() -> Response:
        return _authenticated(lambda: server.create_endpoint_response("introspection"))


def _add_metadata(app: Flask) -> None:
    @app.get("/.well-known/oauth-authorization-server")
    def metadata() -> Response:
        issuer = g.loaded.configuration.settings.issuer
        algorithms = list(jose.KEY_TYPES)
        return _json(
            {
                "issuer": issuer,
                "token_endpoint": f"{issuer}/oauth/token",
                "revocation_endpoint": f"{issuer}/oauth/revoke",
                "introspection_endpoint": f"{issuer}/oauth/introspect",
                "jwks_uri": f"{issuer}/oauth/jwks.json",
                "scopes_supported": list(SCOPES),
                # There is no authorization endpoint, so no response type; the member is required anyway.
                "response_types_supported": [],
                "grant_types_supported": ["client_credentials"],
                **{
                    f"{endpoint}_endpoint_auth_{what}_supported": values
                    for endpoint in ("token", "revocation", "introspection")
                    for what, values in (("methods", METHODS), ("signing_alg_values", algorithms))
                },
            },
            headers={"Cache-Control": f"public, max-age={KEY_CACHE_SECONDS}"},
        )

    @app.get("/oauth/jwks.json")
    def jwks() -> Response:
        return _json(
            keys.public_set(g.loaded.configuration.keys),
            headers={"Cache-Control": f"public, max-age={KEY_CACHE_SECONDS}"},
        )


def _add_errors(app: Flask) -> None:
    @app.errorhandler(RefusedError)
    def refused(problem: RefusedError) -> Response:
        g.refused = problem
        return _error(problem.error, problem.description, problem.status)

    @app.errorhandler(TooManyFailuresError)
    def limited(problem: TooManyFailuresError) -> Response:
        g.refused = problem
        body = {"error": "rate_limit_exceeded", "retry_after": problem.seconds}
        return _json(body, 429, {"Retry-After": str(problem.seconds)})

    @app.errorhandler(UnavailableError)
    def unavailable(problem: UnavailableError) -> Response:
        g.unavailable = str(problem)
        answer = _error(
            "temporarily_unavailable", "The service is temporarily unable to decide; try again", 503
        )
        answer.headers["Retry-After"] = str(RETRY_SECONDS)
        return answer

    @app.errorhandler(HTTPException)
    def http_error(problem: HTTPException) -> Response:
        status = problem.code or 500
        error = "not_found" if status == NOT_FOUND else "invalid_request"
        answer = _error(error, problem.name, status)
        allowed = getattr(problem, "valid_methods", None)
        if allowed:
            answer.headers["Allow"] = ", ".join(sorted(allowed))
        return answer

    @app.errorhandler(Exception)
    def crashed(problem: Exception) -> Response:
        log.crash("request", problem, request_id=g.get("request_id", ""), path=request.path)
        return _error("server_error", "The service failed; the log has the request id", 500)


def _authenticated(answer: Callable[[], Response]) -> Response:
    """Let Authlib answer, unless the request is malformed or there were too many failures before."""
    client, address = _claimed_client(request), _address(request)
    g.claimed = client
    g.loaded.state.check_failures(client, address)
    _check_form(request)
    # Authlib fails on some malformed headers; none of them can be valid.
    readable = "Authorization" not in request.headers or _basic(request) is not None
    response = answer() if readable else unauthenticated()
    if response.status_code == UNAUTHORIZED:
        g.loaded.state.note_failure(client, address)
    return response


def _check_form(sent: Request) -> None:
    """Refuse what RFC 6749 forbids and Authlib does not check."""
    if sent.mimetype != FORM:
        raise RefusedError("invalid_request", f"The body must be {FORM}")
    if sent.query_string:
        raise RefusedError("invalid_request", "Parameters must be in the body, not in the URL")
    repeated = [name for name in sent.form if len(sent.form.getlist(name)) > 1]
    if repeated:
        raise RefusedError("invalid_request", "A parameter occurs more than once")
    ways = [
        "Authorization" in sent.headers,
        "client_secret" in sent.form,
        "client_assertion" in sent.form or "client_assertion_type" in sent.form,
    ]
    if sum(ways) > 1:
        raise RefusedError("invalid_request", "The client authenticates in more than one way")
    if "Authorization" in sent.headers and "client_id" in sent.form:
        identity, _ = _basic(sent) or ("", "")
        if identity != sent.form["client_id"]:
            raise RefusedError("invalid_request", "client_id differs from the one that authenticates")


def _basic(sent: Request) -> tuple[str, str] | None:
    """Return id and secret of a Basic header, None when it is absent or malformed."""
    scheme, _, encoded = sent.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        text = base64.b64decode(encoded, validate=True).decode()
    except (ValueError, binascii.Error):
        return None
    identity, separator, secret = text.partition(":")
    return (unquote(identity), unquote(secret)) if separator else None


def _claimed_client(sent: Request) -> str:
    """Return the client id of a request, to count failures; empty when it is malformed."""
    claimed = (_basic(sent) or ("", ""))[0] or sent.form.get("client_id", "")
    if not claimed and "client_assertion" in sent.form:
        try:
            claimed = str(jose.parse(sent.form["client_assertion"]).claims.get("sub", ""))
        except jose.BadTokenError:
            claimed = ""
    return claimed if CLIENT_ID.fullmatch(claimed) else ""


def _address(sent: Request) -> str:
    """Return the address to count failures for: the client's IPv4 address, or its IPv6 network."""
    given = sent.headers.get("X-Real-IP") or sent.remote_addr or ""
    try:
        address = ipaddress.ip_address(given)
    except ValueError:
        return "unknown"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, IPV6_NETWORK), strict=False))
    return str(address)


def _log(response: Response) -> None:
    fields: dict[str, Any] = {"status": response.status_code, "request_id": g.get("request_id", "")}
    if "unavailable" in g:
        log.write("unavailable", level="error", path=request.path, problem=g.unavailable, **fields)
    elif "event" in g:
        log.write(**g.event, **fields)
    elif request.path in FORM_ENDPOINTS and response.status_code >= BAD_REQUEST:
        log.write("refused", level="warning", path=request.path, **_about_refusal(), **fields)


def _about_refusal() -> dict[str, Any]:
    """Return the refused client and the reason. An unknown client id is omitted: it may be a misplaced secret."""
    problem = g.get("refused")
    client = g.loaded.configuration.clients.get(g.get("claimed", ""))
    return {
        "client": client.id if client else "",
        "tenant": client.tenant if client else "",
        "error": getattr(problem, "error", None) or type(problem).__name__,
        # Only these descriptions are fixed phrases; others quote the request.
        "reason": problem.description if isinstance(problem, InvalidClientError) else "",
        "address": _address(request),
    }


def _error(error: str, description: str, status: int) -> Response:
    return _json({"error": error, "error_description": description}, status)


def _json(body: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps(body), status, headers, content_type="application/json")
