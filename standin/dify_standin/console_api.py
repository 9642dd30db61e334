"""/console/api: claim the instance, sign in, accounts."""

import base64
import binascii
import hmac
from typing import Any

from flask import Blueprint, Response, g, jsonify, make_response, redirect, request, session
from itsdangerous import BadSignature, URLSafeTimedSerializer
from werkzeug.security import check_password_hash, generate_password_hash

from dify_standin import store
from dify_standin.config import Cookies, flag, integer, release, text
from dify_standin.errors import ApiError

blueprint = Blueprint("console", __name__, url_prefix="/console/api")


# Dify locks at the seventh wrong password.
MAX_LOGIN_ERRORS = 5


MAX_KEYS = 10


DAY = 86400


# How long Dify keeps a DSL that has to be confirmed.
IMPORT_SECONDS = 600


MIN_PASSWORD = 8


OPEN_ENDPOINTS = {
    "setup",
    "do_setup",
    "init",
    "do_init",
    "login",
    "refresh",
    "features",
    "version",
    "oauth",
    "ping",
}


OPEN = {f"console.{name}" for name in OPEN_ENDPOINTS}


AUTHORIZE = {
    "github": "https://github.com/login/oauth/authorize",
    "google": "https://accounts.google.com/o/oauth2/v2/auth",
}


def _signer(purpose: str) -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(text("SECRET_KEY"), salt=purpose)


def _unauthorized(message: str, code: str = "unauthorized") -> ApiError:
    return ApiError(401, code, message)


@blueprint.before_request
def authenticate() -> None:
    """Demand a session and its CSRF token, except where Dify does not."""
    if request.method == "OPTIONS" or request.endpoint in OPEN:
        return
    cookies = Cookies.from_environment()
    token = request.cookies.get(cookies.name("access_token"), "")
    try:
        account = _signer("access").loads(token, max_age=integer("ACCESS_TOKEN_EXPIRE_MINUTES", 60) * 60)
    except BadSignature:
        raise _unauthorized("Invalid Authorization token.") from None
    csrf = request.cookies.get(cookies.name("csrf_token"), "")
    sent = request.headers.get("X-CSRF-Token", "")
    if not csrf or not hmac.compare_digest(csrf, sent) or not _csrf_of(csrf, account):
        raise _unauthorized("CSRF token is missing or invalid.")
    found = store.row("select * from accounts where id = %s", account)
    if found is None:
        raise _unauthorized("Invalid Authorization token.")
    g.account = found


def _csrf_of(token: str, account: str) -> bool:
    try:
        return bool(_signer("csrf").loads(token) == account)
    except BadSignature:
        return False


def _is_set_up() -> store.Row | None:
    return store.row("select * from setups limit 1")


@blueprint.get("/setup")
def setup() -> Response:
    """Return whether the instance is claimed."""
    done = _is_set_up()
    if done is None:
        return jsonify({"step": "not_started", "setup_at": None})
    return jsonify({"step": "finished", "setup_at": done["setup_at"].isoformat()})


@blueprint.post("/setup")
def do_setup() -> tuple[Response, int]:
    """Claim the instance."""
    if _is_set_up():
        raise ApiError(403, "already_setup", "Dify has been successfully installed.")
    if text("INIT_PASSWORD") and not session.get("is_init_validated"):
        raise _unauthorized(
            "Init validation has not been completed yet. Please proceed with the init validation process first.",
            "not_init_validated",
        )
    body = request.get_json()
    problems = [
        name
        for name in ("email", "name", "password")
        if not isinstance(body.get(name), str) or not body[name]
    ]
    password = str(body.get("password", ""))
    if len(password) < MIN_PASSWORD or password.isalpha() or password.isdigit():
        problems.append("password")
    if "@" not in str(body.get("email", "")):
        problems.append("email")
    if problems:
        error = {"type": "validation_error", "message": f"invalid: {', '.join(dict.fromkeys(problems))}"}
        return jsonify({"error": error}), 422
    with store.transaction() as connection:
        connection.execute("lock table setups in exclusive mode")
        if connection.execute("select 1 from setups").fetchone():
            raise ApiError(403, "already_setup", "Dify has been successfully installed.")
        connection.execute("insert into setups (version) values (%s)", (release(),))
        connection.execute("insert into tenants (name) values (%s)", (f"{body['name']}'s Workspace",))
        connection.execute(
            "insert into accounts (email, name, password) values (%s, %s, %s)",
            (body["email"].lower(), body["name"], generate_password_hash(password)),
        )
    return jsonify({"result": "success"}), 201


@blueprint.get("/init")
def init() -> Response:
    """Return whether the password before /install was given."""
    passed = not text("INIT_PASSWORD") or session.get("is_init_validated") or _is_set_up()
    return jsonify({"status": "finished" if passed else "not_started"})


@blueprint.post("/init")
def do_init() -> tuple[Response, int]:
    """Check the password before /install."""
    if _is_set_up():
        raise ApiError(403, "already_setup", "Dify has been successfully installed.")
    given = str(request.get_json().get("password", ""))
    if not hmac.compare_digest(given.encode(), text("INIT_PASSWORD").encode()):
        session["is_init_validated"] = False
        raise _unauthorized(
            "Init validation failed. Please check the password and try again.", "init_validate_failed"
        )
    session["is_init_validated"] = True
    return jsonify({"result": "success"}), 201


def _count_failure(email: str) -> None:
    cache = store.cache()
    key = f"login_error_rate_limit:{email}"
    cache.incr(key)
    cache.expire(key, integer("LOGIN_LOCKOUT_DURATION", DAY))


@blueprint.post("/login")
def login() -> Response:
    """Sign in with e-mail and base64 of the password."""
    body = request.get_json()
    email = str(body.get("email", "")).lower()
    failures = int(store.cache().get(f"login_error_rate_limit:{email}") or 0)
    if failures > MAX_LOGIN_ERRORS:
        raise ApiError(
            429, "email_code_login_limit", "Too many incorrect password attempts. Please try again later."
        )
    try:
        password = base64.b64decode(str(body.get("password", "")), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise _unauthorized("Invalid encrypted data", "authentication_failed") from None
    account = store.row("select * from accounts where email = %s", email)
    if account is None or not check_password_hash(account["password"], password):
        _count_failure(email)
        raise _unauthorized("Invalid email or password.", "authentication_failed")
    store.cache().delete(f"login_error_rate_limit:{email}")
    return _signed_in(str(account["id"]))


def _signed_in(account: str) -> Response:
    cookies = Cookies.from_environment()
    response = make_response(jsonify({"result": "success"}))
    refresh_age = integer("REFRESH_TOKEN_EXPIRE_DAYS", 30) * DAY
    access_age = integer("ACCESS_TOKEN_EXPIRE_MINUTES", 60) * 60
    values = {
        "access_token": (_signer("access").dumps(account), access_age, True),
        "refresh_token": (_signer("refresh").dumps(account), refresh_age, True),
        "csrf_token": (_signer("csrf").dumps(account), access_age, False),
    }
    for base, (value, age, http_only) in values.items():
        response.set_cookie(
            cookies.name(base),
            value,
            max_age=age,
            httponly=http_only,
            secure=cookies.secure,
            samesite="Lax",
            domain=cookies.domain or None,
        )
    return response


@blueprint.post("/refresh-token")
def refresh() -> Response:
    """Exchange the refresh token."""
    cookies = Cookies.from_environment()
    token = request.cookies.get(cookies.name("refresh_token"), "")
    try:
        account = _signer("refresh").loads(token, max_age=integer("REFRESH_TOKEN_EXPIRE_DAYS", 30) * DAY)
    except BadSignature:
        raise _unauthorized("Invalid refresh token") from None
    return _signed_in(str(account))


@blueprint.post("/logout")
def logout() -> Response:
    """Delete the session."""
    cookies = Cookies.from_environment()
    response = make_response(jsonify({"result": "success"}))
    for base in ("access_token", "refresh_token", "csrf_token"):
        response.delete_cookie(cookies.name(base), domain=cookies.domain or None, secure=cookies.secure)
    return response


@blueprint.get("/ping")
def ping() -> Response:
    """Answer."""
    return jsonify({"result": "pong"})


@blueprint.get("/version")
def version() -> Response:
    """Name the release."""
    return jsonify({"version": release(), "release_date": "", "release_notes": "", "can_auto_update": False})


@blueprint.get("/system-features")
def features() -> Response:
    """Return the enabled sign-in methods."""
    return jsonify(
        {
            "enable_email_password_login": flag("ENABLE_EMAIL_PASSWORD_LOGIN", default=True),
            "enable_email_code_login": flag("ENABLE_EMAIL_CODE_LOGIN"),
            "enable_social_oauth_login": flag("ENABLE_SOCIAL_OAUTH_LOGIN"),
            "enable_marketplace": flag("MARKETPLACE_ENABLED", default=True),
            "is_allow_register": flag("ALLOW_REGISTER"),
            "is_allow_create_workspace": flag("ALLOW_CREATE_WORKSPACE"),
            "is_email_setup": bool(text("MAIL_TYPE")),
            "sso_enforced_for_signin": False,
            "branding": {"enabled": False},
        }
    )


@blueprint.get("/oauth/login/<provider>")
def oauth(provider: str) -> Any:  # noqa: ANN401  # a redirect or an error with its status
    """Send the browser to the provider, when it is configured."""
    client = text(f"{provider.upper()}_CLIENT_ID") if provider in AUTHORIZE else ""
    if not client:
        return jsonify({"error": "Invalid provider"}), 400
    back = f"{text('CONSOLE_API_URL')}/console/api/oauth/authorize/{provider}"
    return redirect(f"{AUTHORIZE[provider]}?client_id={client}&redirect_uri={back}&response_type=code")


@blueprint.get("/account/profile")
def profile() -> Response:
    """Show the account."""
    account = g.account
    return jsonify({"id": str(account["id"]), "name": account["name"], "email": account["email"]})


@blueprint.post("/account/name")
def account_name() -> Response:
    """Rename the account."""
    name = str(request.get_json().get("name", ""))
    store.rows("update accounts set name = %s where id = %s", name, g.account["id"])
    return jsonify({"id": str(g.account["id"]), "name": name, "email": g.account["email"]})


@blueprint.post("/account/password")
def account_password() -> Response:
    """Change the account's password."""
    body = request.get_json()
    if not check_password_hash(g.account["password"], str(body.get("password", ""))):
        raise ApiError(400, "current_password_incorrect", "Current password is incorrect.")
    if body.get("new_password") != body.get("repeat_new_password"):
        raise ApiError(400, "repeat_password_not_match", "New password and repeat password does not match.")
    hashed = generate_password_hash(str(body["new_password"]))
    store.rows("update accounts set password = %s where id = %s", hashed, g.account["id"])
    return jsonify({"result": "success"})
