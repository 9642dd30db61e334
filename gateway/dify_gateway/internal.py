"""The internal endpoints, reachable by nginx only: /verify checks a token, /gate a session, and /healthz.

Plain WSGI for speed: nginx calls it for most requests.
"""

import json
import re
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from dify_gateway import jose, log, tokens, workers
from dify_gateway.service import Loaded, NotLoadedError, Service
from dify_gateway.state import UnavailableError

# How long nginx caches an introspection result at most; with the poll of the configuration, the documented 5 s.
RESULT_SECONDS = 4
RETRY_SECONDS = 1
# RFC 9110: one or more spaces between the scheme and the token.
BEARER = re.compile(r"bearer +([^ ]+)", re.IGNORECASE | re.ASCII)
STATUS: Final = {
    200: "200 OK",
    401: "401 Unauthorized",
    404: "404 Not Found",
    405: "405 Method Not Allowed",
    500: "500 Internal Server Error",
    503: "503 Service Unavailable",
}
REFUSAL: Final = {
    "error": "invalid_token",
    "error_description": "The access token is invalid or has expired",
}
NO_SESSION: Final = {"error": "login_required", "error_description": "There is no session, or it has expired"}
UNDECIDED: Final = {
    "error": "temporarily_unavailable",
    "error_description": "The service is temporarily unable to decide; try again",
}

Start = Callable[[str, list[tuple[str, str]]], object]
Headers = dict[str, str]
Answer = tuple[int, Headers, dict[str, Any]]


def create_app(service: Service) -> Callable[[dict[str, Any], Start], Iterable[bytes]]:
    """Return the internal application."""

    def application(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        try:
            status, headers, body = _route(service, environ)
        except Exception as problem:  # noqa: BLE001  # without an answer the service would seem to be down
            log.crash("internal request", problem, request_id=_request_id(environ))
            status, headers, body = 500, {"Cache-Control": "no-store"}, UNDECIDED
        data = json.dumps(body).encode() if body else b""
        sent = {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}
        start(STATUS[status], list(sent.items()))
        return [data]

    return application


def _route(service: Service, environ: dict[str, Any]) -> Answer:
    path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
    if path not in {"/verify", "/gate", "/healthz"}:
        return 404, {"Cache-Control": "no-store"}, {"error": "not_found"}
    if method not in {"GET", "HEAD"}:
        return 405, {"Cache-Control": "no-store", "Allow": "GET, HEAD"}, {"error": "invalid_request"}
    if path == "/gate":
        return _pass(service, environ)
    return _verify(service, environ) if path == "/verify" else _health(service)


def _pass(service: Service, environ: dict[str, Any]) -> Answer:
    """Check a session of the gate: 200 with X-Gate-User (the subject), 401, or 503."""
    try:
        gate = service.loaded.gate
        session = gate.sessions.find(environ.get("HTTP_X_GATE_SESSION", "")) if gate else None
    except UnavailableError as problem:
        log.write("unavailable", level="error", problem=str(problem), request_id=_request_id(environ))
        return 503, {"Cache-Control": "no-store", "Retry-After": str(RETRY_SECONDS)}, UNDECIDED
    if session is None:
        return 401, {"Cache-Control": "no-store"}, NO_SESSION
    return 200, {"Cache-Control": "no-store", "X-Gate-User": session.subject}, {}


def _verify(service: Service, environ: dict[str, Any]) -> Answer:
    given = environ.get("HTTP_AUTHORIZATION", "")
    if not given:
        return 401, {"WWW-Authenticate": "Bearer", "Cache-Control": "no-store"}, REFUSAL
    try:
        return _introspect_current(service, given)
    except jose.BadTokenError as problem:
        log.write("token refused", level="warning", reason=str(problem), request_id=_request_id(environ))
        headers = {
            "WWW-Authenticate": 'Bearer error="invalid_token"',
            "Cache-Control": _cache_control(RESULT_SECONDS),
        }
        return 401, headers, REFUSAL
    except UnavailableError as problem:
        log.write("unavailable", level="error", problem=str(problem), request_id=_request_id(environ))
        return 503, {"Cache-Control": "no-store", "Retry-After": str(RETRY_SECONDS)}, UNDECIDED


def _introspect_current(service: Service, given: str) -> Answer:
    """Check a token; before refusing one that a newer configuration may accept, look for a newer configuration.

    Another worker may have read it already and issued this token.
    """
    try:
        return _introspect(service.loaded, given)
    except (jose.UnknownKeyError, tokens.StaleConfigError):
        if not service.follow():
            raise
        return _introspect(service.loaded, given)


def _introspect(loaded: Loaded, given: str) -> Answer:
    bearer = BEARER.fullmatch(given)
    if bearer is None:
        raise jose.BadTokenError("not a bearer token")
    configuration, now = loaded.configuration, time.time()
    token = jose.parse(bearer.group(1))
    if token.claims.get("iss") == configuration.settings.issuer:
        own = tokens.verify(configuration, token, now)
        if loaded.state.is_revoked(own.jti, own.issued_at):
            raise jose.BadTokenError("revoked")
        subject, tenant, scopes, expires_at = own.client_id, own.tenant, own.scopes, float(own.expires_at)
    else:
        external = loaded.issuers.verify(token, configuration.tenants, now)
        subject, tenant, scopes = external.subject, external.tenant, external.scopes
        expires_at = external.expires_at
    target = configuration.tenants[tenant]
    headers = {
        "X-Auth-Sub": subject,
        "X-Auth-Tenant": tenant,
        "X-Auth-Scopes": " ".join(scopes),
        "X-Auth-Limits": target.limits,
        # The tenant's Dify key. nginx sets it in the request to Dify; no other answer contains it.
        "X-Auth-Upstream": target.app_key,
        "Cache-Control": _cache_control(min(RESULT_SECONDS, int(expires_at - now))),
    }
    return 200, headers, {}


def _cache_control(seconds: int) -> str:
    """Return the Cache-Control that lets nginx cache a result for at most this many seconds.

    nginx counts whole seconds and includes the one in which a copy expires, hence one less.
    """
    return f"max-age={seconds - 1}" if seconds > 1 else "no-store"


def _health(service: Service) -> Answer:
    """Return the health: whether configuration, keys and clients are read and Redis answers.

    A refused configuration while an older one is served is a problem, but no reason for a restart.
    """
    problems = service.problems()
    try:
        loaded = service.loaded
        loaded.state.wait_for_memory()
    except NotLoadedError:
        loaded = None
    except UnavailableError as problem:
        problems = [*problems, str(problem)]
        loaded = None
    reports = workers.reports()
    problems += sorted({each["problem"] for each in reports if each["problem"]} - set(problems))
    body: dict[str, Any] = {
        "status": "down" if loaded is None else "degraded" if problems else "ok",
        "problems": problems,
        # Those of all workers: a change is live when only the new one is left.
        "revisions": sorted({each["revision"] for each in reports}),
        "workers": len(reports),
    }
    if loaded is not None:
        configuration = loaded.configuration
        body |= {
            "clients": len(configuration.clients),
            "tenants": len(configuration.tenants),
            "keys": len(configuration.keys),
        }
    return 503 if loaded is None else 200, {"Cache-Control": "no-store"}, body


def _request_id(environ: dict[str, Any]) -> str:
    return log.request_id(environ.get("HTTP_X_REQUEST_ID", ""))
