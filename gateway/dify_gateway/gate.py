"""The gate's endpoints, /oauth2/...: start of the sign-in, callback, user info and sign-out."""

import html
import json
import re
from urllib.parse import urlencode

import requests
from authlib.integrations.base_client import MismatchingStateError, OAuthError
from flask import Blueprint, Response, g, request

from dify_gateway import jose, log
from dify_gateway.gate_client import Client, login_cookie, login_cookies, session_cookie
from dify_gateway.gate_config import CALLBACK, PREFIX, SIGNED_OUT
from dify_gateway.gate_provider import RefusedError, admitted, lacks
from dify_gateway.gate_sessions import SIGN_IN_SECONDS, Gate, Session
from dify_gateway.state import UnavailableError

# The path to return to: of this host, in printable ASCII. Browsers interpret `//` and `/\` as another host.
PATH = re.compile(r"/(?![/\\])[!-\[\]-~]{0,1023}", re.ASCII)
RETURN = "rd="
# Pending sign-ins of one browser. Each is a cookie of half a kilobyte, two with the longest path.
MOST_TABS = 4
RETRY_SECONDS = 1
PAGE_HEADERS = {
    "Cache-Control": "no-store",
    # The callback's URL contains the authorization code.
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
}
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>
<body><h1>{title}</h1><p>{text}</p>{link}<p><small>Request {request_id}</small></p></body></html>
"""


class NoGateError(Exception):
    """There is no gate, or not for the requested host."""


def create_blueprint() -> Blueprint:
    """Return the gate's endpoints."""
    pages = Blueprint("gate", __name__, url_prefix=PREFIX)
    _add_sign_in(pages)
    _add_sign_out(pages)
    _add_errors(pages)

    @pages.after_request
    def end(response: Response) -> Response:
        for name, value in PAGE_HEADERS.items():
            response.headers[name] = value
        return response

    return pages


def _add_sign_in(pages: Blueprint) -> None:
    @pages.get("/start")
    def start() -> Response:
        gate = _gate()
        path, origin = local_path(request.query_string.decode("latin-1")), _origin(gate)
        if not origin:
            # Cookies and the callback need a host that is registered at the provider.
            return _redirect(f"{gate.settings.origins[0]}{PREFIX}/start?{RETURN}{path}")
        g.gate_path = path
        answer: Response = Client(gate).authorize_redirect(f"{origin}{CALLBACK}")
        _set_login_cookie(answer, gate)
        return answer

    @pages.get("/callback")
    def callback() -> Response:
        gate = _gate()
        if not (origin := _origin(gate)):
            raise NoGateError
        if request.args.get("iss", gate.settings.issuer) != gate.settings.issuer:
            raise jose.BadTokenError("the answer is from another provider")
        client = Client(gate)
        token = client.authorize_access_token()
        claims = token.get("userinfo")
        if claims is None:
            raise jose.BadTokenError("no ID token")
        if lacks(gate.settings, claims):
            more = client.userinfo_claims(token)
            # Only of the same subject, and the ID token's claims take precedence.
            claims = {**more, **claims} if more.get("sub") == claims.get("sub") else claims
        person = admitted(gate.settings, claims)
        gate.sessions.close(request.cookies.get(session_cookie(gate), ""))
        made = gate.sessions.open(person, token["id_token"])
        g.event = {"event": "signed in", "user": person.subject, "email": person.email}
        answer = _redirect(f"{origin}{g.gate_path}")
        _set_cookie(answer, gate, session_cookie(gate), made, gate.settings.session_seconds)
        _drop_cookie(answer, gate, login_cookie(gate, request.args.get("state", "")))
        return answer

    @pages.get("/userinfo")
    def userinfo() -> Response:
        session = _session(_gate())
        if session is None:
            return Response('{"error":"login_required"}', 401, content_type="application/json")
        claims = {"user": session.subject, "email": session.email, "expires_at": session.expires_at}
        return Response(json.dumps(claims), content_type="application/json")


def _add_sign_out(pages: Blueprint) -> None:
    @pages.get("/sign_out")
    def sign_out() -> Response:
        gate = _gate()
        if request.headers.get("Sec-Fetch-Site", "") in {"cross-site", "same-site"}:
            # A page of another origin may link here, but must not end a session.
            return _page(200, "Sign out?", "Another page links to the sign-out.", "sign_out", "Sign out")
        session = gate.sessions.close(request.cookies.get(session_cookie(gate), ""))
        origin = _origin(gate) or gate.settings.origins[0]
        answer = _redirect(_goodbye(gate, session, origin))
        _drop_cookie(answer, gate, session_cookie(gate))
        if session:
            g.event = {"event": "signed out", "user": session.subject}
        return answer

    @pages.get("/signed_out")
    def signed_out() -> Response:
        return _page(200, "Signed out", "You are signed out.", "start", "Sign in")


def _add_errors(pages: Blueprint) -> None:
    @pages.errorhandler(NoGateError)
    def no_gate(_: NoGateError) -> Response:
        return _page(404, "Nothing here", "There is no sign-in at this address.")

    @pages.errorhandler(RefusedError)
    def refused(problem: RefusedError) -> Response:
        g.event = {"event": "sign-in refused", "level": "warning", "reason": str(problem)}
        return _page(
            403,
            "No access",
            f"You signed in, but your account is not admitted: {problem}.",
            "sign_out",
            "Sign out and use another account",
        )

    @pages.errorhandler(MismatchingStateError)
    def over(_: MismatchingStateError) -> Response:
        g.event = {"event": "sign-in refused", "level": "warning", "reason": "state unknown, used or expired"}
        text = "This sign-in has expired, or was started in another browser."
        return _page(400, "Sign-in not finished", text, "start", "Sign in again")

    @pages.errorhandler(OAuthError)
    def provider_error(problem: OAuthError) -> Response:
        # The description is untrusted, as anyone can make such a link: only a single word of it is logged.
        word = str(problem.error) if re.fullmatch(r"[a-z_]{1,40}", str(problem.error)) else "unknown"
        g.event = {"event": "sign-in refused", "level": "warning", "reason": f"the provider returned {word}"}
        return _page(
            400, "Sign-in not finished", "The provider refused the sign-in.", "start", "Sign in again"
        )

    @pages.errorhandler(jose.BadTokenError)
    def bad_token(problem: jose.BadTokenError) -> Response:
        g.event = {"event": "sign-in refused", "level": "warning", "reason": str(problem)}
        text = "The provider's answer could not be verified."
        return _page(400, "Sign-in not finished", text, "start", "Sign in again")

    @pages.errorhandler(requests.RequestException)
    @pages.errorhandler(UnavailableError)
    def unavailable(problem: Exception) -> Response:
        # Messages of the HTTP library may contain a URL, and with it an authorization code.
        g.unavailable = str(problem) if isinstance(problem, UnavailableError) else type(problem).__name__
        answer = _page(503, "Try again", "Sign-in is not possible at the moment.", "start", "Try again")
        answer.headers["Retry-After"] = str(RETRY_SECONDS)
        return answer

    @pages.errorhandler(Exception)
    def crashed(problem: Exception) -> Response:
        log.crash("request", problem, request_id=g.get("request_id", ""), path=request.path)
        return _page(500, "It failed", "The service failed; its log has the request id.")


def local_path(query: str) -> str:
    """Return the path to return to: all that follows `rd=` in the query string if it is a path of this host, or `/`.

    nginx cannot encode it, so it is the original request URI; there is no other parameter.
    """
    path = query[len(RETURN) :] if query.startswith(RETURN) else "/"
    return path if PATH.fullmatch(path) and not path.startswith(f"{PREFIX}/") else "/"


def _gate() -> Gate:
    gate: Gate | None = g.loaded.gate
    if gate is None:
        raise NoGateError
    return gate


def _origin(gate: Gate) -> str:
    return gate.settings.origin_of(request.headers.get("Host", ""))


def _session(gate: Gate) -> Session | None:
    return gate.sessions.find(request.cookies.get(session_cookie(gate), ""))


def _goodbye(gate: Gate, session: Session | None, origin: str) -> str:
    """Return the URL to go to after the sign-out: the provider's end-session endpoint if it has one."""
    here = f"{origin}{SIGNED_OUT}"
    try:
        end = gate.provider.metadata().end_session
    except UnavailableError:
        # The session here has ended anyway.
        return here
    if not end:
        return here
    asked = {"client_id": gate.settings.client_id, "post_logout_redirect_uri": here}
    if session and session.id_token:
        asked["id_token_hint"] = session.id_token
    return f"{end}{'&' if '?' in end else '?'}{urlencode(asked)}"


def _redirect(address: str) -> Response:
    return Response(status=302, headers={"Location": address})


def _set_cookie(answer: Response, gate: Gate, name: str, value: str, seconds: int) -> None:
    answer.set_cookie(
        name,
        value,
        max_age=seconds,
        path="/",
        secure=gate.settings.secure,
        httponly=True,
        # Lax: sent with the provider's redirect, but not with forms or scripts of another site.
        samesite="Lax",
    )


def _set_login_cookie(answer: Response, gate: Gate) -> None:
    """Set the cookie of a sign-in, and delete the oldest ones beyond the limit."""
    name, value = g.gate_cookie
    _set_cookie(answer, gate, name, value, SIGN_IN_SECONDS)
    # Abandoned tabs, or a page that starts many sign-ins, would exceed the size limit of request headers.
    for old in login_cookies(gate)[: -(MOST_TABS - 1)]:
        _drop_cookie(answer, gate, old)


def _drop_cookie(answer: Response, gate: Gate, name: str) -> None:
    answer.delete_cookie(name, path="/", secure=gate.settings.secure, httponly=True, samesite="Lax")


def _page(status: int, title: str, text: str, to: str = "", label: str = "") -> Response:
    link = f'<p><a href="{PREFIX}/{to}">{html.escape(label)}</a></p>' if to else ""
    body = PAGE.format(
        title=html.escape(title),
        text=html.escape(text),
        link=link,
        request_id=html.escape(g.get("request_id", "")),
    )
    return Response(body, status, content_type="text/html; charset=utf-8")
