"""/console/api: what the console and the kit use to claim the instance, sign in, and manage apps and keys."""

import base64
import binascii
import hmac
import json
import secrets
import time
import uuid
from typing import Any

import yaml
from flask import Blueprint, Response, g, jsonify, make_response, redirect, request, session
from itsdangerous import BadSignature, URLSafeTimedSerializer
from werkzeug.security import check_password_hash, generate_password_hash

from dify_standin import datasets, facts, plugins, store
from dify_standin.config import Cookies, flag, integer, release, text
from dify_standin.dialect import number
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
        raise _unauthorized("Invalid token.") from None
    csrf = request.cookies.get(cookies.name("csrf_token"), "")
    sent = request.headers.get("X-CSRF-Token", "")
    if not csrf or not hmac.compare_digest(csrf, sent) or not _csrf_of(csrf, account):
        raise _unauthorized("CSRF token is missing or invalid.")
    found = store.row("select * from accounts where id = %s", account)
    if found is None:
        raise _unauthorized("Invalid token.")
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


def _app(app_id: uuid.UUID) -> store.Row:
    found = store.row("select * from apps where id = %s", str(app_id))
    if found is None:
        raise ApiError(404, "app_not_found", "App not found.")
    return found


def _app_json(app: store.Row) -> dict[str, Any]:
    return {
        "id": str(app["id"]),
        "name": app["name"],
        "description": app["description"],
        "mode": app["mode"],
        "enable_site": True,
        "enable_api": app["enable_api"],
        "max_active_requests": app["max_active_requests"],
        "icon_type": "emoji",
        "icon": "\U0001f916",
        "icon_background": "#FFEAD5",
        "created_at": store.timestamp(app["created_at"]),
        "updated_at": store.timestamp(app["updated_at"]),
    }


@blueprint.get("/apps")
def apps() -> Response:
    """List apps, newest first."""
    page = max(1, request.args.get("page", 1, type=int))
    limit = min(100, max(1, request.args.get("limit", 20, type=int)))
    pattern = f"%{request.args.get('name', '')}%"
    total = store.row("select count(*) as n from apps where name ilike %s", pattern)
    found = store.rows(
        "select * from apps where name ilike %s order by created_at desc limit %s offset %s",
        pattern,
        limit,
        (page - 1) * limit,
    )
    count = total["n"] if total else 0
    return jsonify(
        {
            "page": page,
            "limit": limit,
            "total": count,
            "has_more": page * limit < count,
            "data": [_app_json(one) for one in found],
        }
    )


def _dsl_status(imported: str) -> str:
    """Return what Dify makes of a DSL's version: older is fine with a warning, newer has to be confirmed."""
    current = number(facts.current().dsl)
    try:
        given = number(imported)
    except ValueError:
        return "failed"
    if given > current or given[0] < current[0]:
        return "pending"
    return "completed-with-warnings" if given[:2] < current[:2] else "completed"


def _import_result(import_id: str, status: str, imported: str = "", error: str = "") -> dict[str, Any]:
    return {
        "id": import_id,
        "status": status,
        "app_id": None,
        "app_mode": None,
        "current_dsl_version": facts.current().dsl,
        "imported_dsl_version": imported,
        "error": error,
    }


@blueprint.post("/apps/imports")
def import_app() -> tuple[Response, int]:
    """Create an app from its DSL, or overwrite the one that `app_id` names."""
    body = request.get_json()
    if body.get("mode") != "yaml-content":
        raise ApiError(400, "invalid_param", "the stand-in imports yaml-content only")
    import_id = str(uuid.uuid4())
    try:
        dsl = yaml.safe_load(str(body.get("yaml_content", "")))
        mode, version = str(dsl["app"]["mode"]), str(dsl.get("version", "0.1.0"))
        if mode in {"advanced-chat", "workflow"}:
            _ = dsl["workflow"]["graph"]["nodes"]
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as problem:
        return jsonify(_import_result(import_id, "failed", error=f"Invalid YAML format: {problem}")), 400
    status = _dsl_status(version)
    result = _import_result(import_id, status, version)
    if status == "failed":
        return jsonify(result | {"error": f"Invalid DSL version: {version}"}), 400
    if status == "pending":
        store.cache().set(f"standin:import:{import_id}", json.dumps(body), ex=IMPORT_SECONDS)
        return jsonify(result), 202
    return _store_app(result, dsl, body)


@blueprint.post("/apps/imports/<uuid:import_id>/confirm")
def confirm_import(import_id: uuid.UUID) -> tuple[Response, int]:
    """Import a confirmed DSL that is newer than this release, as far as the stand-in supports it."""
    cache, key = store.cache(), f"standin:import:{import_id}"
    kept = cache.get(key)
    if kept is None:
        error = "Import information expired or does not exist"
        return jsonify(_import_result(str(import_id), "failed", error=error)), 400
    cache.delete(key)
    body = json.loads(kept)
    dsl = yaml.safe_load(str(body["yaml_content"]))
    return _store_app(_import_result(str(import_id), "completed", str(dsl["version"])), dsl, body)


def _store_app(result: dict[str, Any], dsl: dict[str, Any], body: dict[str, Any]) -> tuple[Response, int]:
    described, mode = dsl["app"], str(dsl["app"]["mode"])
    name, description = str(body.get("name") or described["name"]), str(described.get("description", ""))
    text_of_dsl = yaml.safe_dump(dsl, allow_unicode=True)
    if body.get("app_id"):
        app = _app(uuid.UUID(str(body["app_id"])))
        if app["mode"] != mode:
            result |= {"status": "failed", "error": "Only workflow or advanced chat apps can be overwritten"}
            return jsonify(result), 400
        store.rows(
            "update apps set name = %s, description = %s, dsl = %s, updated_at = now() where id = %s",
            name,
            description,
            text_of_dsl,
            app["id"],
        )
        app_id = str(app["id"])
    else:
        created = store.row(
            "insert into apps (name, description, mode, dsl) values (%s, %s, %s, %s) returning id",
            name,
            description,
            mode,
            text_of_dsl,
        )
        app_id = str(created["id"]) if created else ""
    return jsonify(result | {"app_id": app_id, "app_mode": mode}), 200


@blueprint.get("/apps/<uuid:app_id>")
def get_app(app_id: uuid.UUID) -> Response:
    """Show an app."""
    return jsonify(_app_json(_app(app_id)))


@blueprint.put("/apps/<uuid:app_id>")
def update_app(app_id: uuid.UUID) -> Response:
    """Change an app's name, description and limit."""
    app, body = _app(app_id), request.get_json()
    changed = store.row(
        "update apps set name = %s, description = %s, max_active_requests = %s, updated_at = now() "
        "where id = %s returning *",
        body.get("name", app["name"]),
        body.get("description", app["description"]),
        body.get("max_active_requests") or app["max_active_requests"],
        app["id"],
    )
    return jsonify(_app_json(changed or app))


@blueprint.delete("/apps/<uuid:app_id>")
def delete_app(app_id: uuid.UUID) -> tuple[Response, int]:
    """Delete an app with its keys and conversations."""
    store.rows("delete from apps where id = %s", _app(app_id)["id"])
    return jsonify({"result": "success"}), 204


@blueprint.post("/apps/<uuid:app_id>/api-enable")
def enable_api(app_id: uuid.UUID) -> Response:
    """Open or close an app's service API."""
    enabled = bool(request.get_json().get("enable_api"))
    changed = store.row(
        "update apps set enable_api = %s where id = %s returning *", enabled, _app(app_id)["id"]
    )
    return jsonify(_app_json(changed) if changed else {})


@blueprint.get("/apps/<uuid:app_id>/export")
def export_app(app_id: uuid.UUID) -> Response:
    """Return an app's DSL."""
    return jsonify({"data": _app(app_id)["dsl"]})


@blueprint.post("/apps/<uuid:app_id>/workflows/publish")
def publish(app_id: uuid.UUID) -> Response:
    """Publish the draft."""
    app = _app(app_id)
    if app["mode"] not in {"advanced-chat", "workflow"}:
        raise ApiError(404, "app_not_found", "App not found.")
    store.rows("update apps set published = dsl, updated_at = now() where id = %s", app["id"])
    return jsonify({"result": "success", "created_at": int(time.time())})


def _key_json(token: store.Row) -> dict[str, Any]:
    used = token["last_used_at"]
    return {
        "id": str(token["id"]),
        "type": token["type"],
        "token": token["token"],
        "last_used_at": store.timestamp(used) if used else None,
        "created_at": store.timestamp(token["created_at"]),
    }


@blueprint.get("/apps/<uuid:app_id>/api-keys")
def keys(app_id: uuid.UUID) -> Response:
    """List an app's keys."""
    found = store.rows("select * from api_tokens where app_id = %s order by created_at", _app(app_id)["id"])
    return jsonify({"data": [_key_json(one) for one in found]})


@blueprint.post("/apps/<uuid:app_id>/api-keys")
def create_key(app_id: uuid.UUID) -> tuple[Response, int]:
    """Make a key; ten are the most."""
    app = _app(app_id)
    count = store.row("select count(*) as n from api_tokens where app_id = %s", app["id"])
    if count and count["n"] >= MAX_KEYS:
        raise ApiError(
            400, "max_keys_exceeded", f"Cannot create more than {MAX_KEYS} API keys for this resource type."
        )
    token = "app-" + "".join(
        secrets.choice("ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnpqrstuvwxyz23456789") for _ in range(24)
    )
    made = store.row("insert into api_tokens (app_id, token) values (%s, %s) returning *", app["id"], token)
    return jsonify(_key_json(made) if made else {}), 201


@blueprint.delete("/apps/<uuid:app_id>/api-keys/<uuid:key_id>")
def delete_key(app_id: uuid.UUID, key_id: uuid.UUID) -> tuple[Response, int]:
    """Delete a key; it is refused from now on."""
    gone = store.rows(
        "delete from api_tokens where id = %s and app_id = %s returning id", str(key_id), _app(app_id)["id"]
    )
    if not gone:
        raise ApiError(404, "not_found", "API key not found")
    return jsonify({"result": "success"}), 204


@blueprint.get("/datasets/api-keys")
def dataset_keys() -> Response:
    """List the workspace's keys of the knowledge API."""
    found = store.rows("select * from api_tokens where type = 'dataset' order by created_at")
    return jsonify({"data": [_key_json(one) for one in found]})


@blueprint.post("/datasets/api-keys")
def create_dataset_key() -> tuple[Response, int]:
    """Make a key of the knowledge API; ten are the most."""
    count = store.row("select count(*) as n from api_tokens where type = 'dataset'")
    if count and count["n"] >= MAX_KEYS:
        raise ApiError(
            400, "max_keys_exceeded", f"Cannot create more than {MAX_KEYS} API keys for this resource type."
        )
    made = store.row(
        "insert into api_tokens (type, token) values ('dataset', %s) returning *", datasets.new_key()
    )
    return jsonify(_key_json(made) if made else {}), 200


@blueprint.delete("/datasets/api-keys/<uuid:key_id>")
def delete_dataset_key(key_id: uuid.UUID) -> tuple[Response, int]:
    """Delete a key of the knowledge API."""
    gone = store.rows("delete from api_tokens where id = %s and type = 'dataset' returning id", str(key_id))
    if not gone:
        raise ApiError(404, "not_found", "API key not found")
    return jsonify({"result": "success"}), 204


@blueprint.get("/workspaces/current/plugin/list")
def plugin_list() -> Response:
    """List the installed plugins, which the plugin daemon has."""
    page = request.args.get("page", 1, type=int)
    size = min(plugins.MOST, request.args.get("page_size", plugins.MOST, type=int))
    listed = plugins.call("management/list", page=page, page_size=size, response_type="paged")
    return jsonify({"plugins": listed.get("list") or [], "total": listed.get("total", 0)})


@blueprint.get("/workspaces/current")
def workspace() -> Response:
    """Show the workspace."""
    found = store.row("select * from tenants limit 1")
    return jsonify(json.loads(json.dumps(found, default=str)))
