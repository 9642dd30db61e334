"""Stand-in for the plugin daemon: its health, its key check, and look-ups in a database that holds no plugin.

As with the real one, its health only shows that the process runs: a look-up shows that it works.
"""

import hmac
import json
import uuid

import psycopg
import psycopg_pool
from flask import Flask, Response, jsonify, request

from dify_standin import store
from dify_standin.config import text

app = Flask(__name__)

SCHEMA = """
create table if not exists endpoints (id uuid primary key default gen_random_uuid(), hook_id text unique not null);
create table if not exists plugin_installations (
  id uuid primary key default gen_random_uuid(), tenant_id uuid not null, plugin_id text not null);
"""
LOST = (psycopg.Error, psycopg_pool.PoolTimeout)


def prepare() -> None:
    """Make the daemon's database and its tables. Raises psycopg errors."""
    store.ensure_database(text("DB_DATABASE"))
    with psycopg.connect(**store.database_parameters()) as connection:
        connection.execute(SCHEMA)


def _problem(code: int, kind: str, message: str) -> Response:
    """Return the daemon's error: the message is JSON once more."""
    inner = {"message": message, "error_type": f"PluginDaemon{kind}Error", "args": None}
    return jsonify({"code": code, "message": json.dumps(inner, separators=(",", ":")), "data": None})


@app.before_request
def check_key() -> tuple[Response, int] | None:
    """Refuse internal calls without the server's key."""
    if not request.path.startswith("/plugin/"):
        return None
    if hmac.compare_digest(request.headers.get("X-Api-Key", "").encode(), text("SERVER_KEY").encode()):
        return None
    return _problem(-401, "Unauthorized", "unauthorized"), 401


@app.get("/health/check")
def health() -> Response:
    """Answer as the daemon does."""
    return jsonify({"status": "ok", "pool_status": {}})


@app.route("/e/<hook>/", defaults={"path": ""}, methods=["GET", "HEAD", "POST", "PUT", "DELETE"])
@app.route("/e/<hook>/<path:path>", methods=["GET", "HEAD", "POST", "PUT", "DELETE"])
def endpoint(hook: str, path: str) -> tuple[Response, int]:  # noqa: ARG001  # no hook is known
    """Look the endpoint up, and find none: no plugin is installed."""
    try:
        store.row("select id from endpoints where hook_id = %s", hook)
    except LOST:
        return _problem(-500, "InternalServer", "internal server error"), 500
    return _problem(-400, "BadRequest", "endpoint not found"), 404


@app.get("/plugin/<tenant>/management/list")
def installed(tenant: str) -> Response:
    """List the installed plugins. A failure is reported with status 200, as by the real one."""
    try:
        found = store.rows(
            "select id, plugin_id from plugin_installations where tenant_id = %s", str(uuid.UUID(tenant))
        )
    except ValueError:
        return _problem(-400, "BadRequest", f"invalid UUID {tenant}")
    except LOST as problem:
        return _problem(-500, "InternalServer", str(problem).strip())
    plugins = [{"id": str(one["id"]), "plugin_id": one["plugin_id"]} for one in found]
    return jsonify({"code": 0, "message": "success", "data": {"list": plugins, "total": len(plugins)}})
