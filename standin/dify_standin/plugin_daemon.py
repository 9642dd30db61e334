"""Stand-in for the plugin daemon: its health, its key check, its endpoints, and the routes for plugins.

As with the real one, its health only shows that the process runs: a look-up shows that it works.
"""

import hmac

import psycopg
import psycopg_pool
from flask import Flask, Response, jsonify, request

from dify_standin import plugin_dispatch, plugin_management, plugin_records, store
from dify_standin.config import integer, text
from dify_standin.daemon_answers import problem

app = Flask(__name__)
MEGABYTE = 1024 * 1024
app.config["MAX_CONTENT_LENGTH"] = integer("MAX_PLUGIN_PACKAGE_SIZE", 50 * MEGABYTE) + MEGABYTE

LOST = (psycopg.Error, psycopg_pool.PoolTimeout)


def prepare() -> None:
    """Make the daemon's database and its tables. Raises psycopg errors."""
    store.ensure_database(text("DB_DATABASE"))
    with psycopg.connect(**store.database_parameters()) as connection:
        connection.execute(plugin_records.SCHEMA)


@app.errorhandler(psycopg.Error)
@app.errorhandler(psycopg_pool.PoolTimeout)
def lost(found: Exception) -> Response:
    """Report a failure of the database with status 200, as the real daemon does on its internal routes."""
    return problem(-500, "InternalServer", str(found).strip())


@app.before_request
def check_key() -> tuple[Response, int] | None:
    """Refuse internal calls without the server's key."""
    if not request.path.startswith("/plugin/"):
        return None
    if hmac.compare_digest(request.headers.get("X-Api-Key", "").encode(), text("SERVER_KEY").encode()):
        return None
    return problem(-401, "Unauthorized", "unauthorized"), 401


@app.get("/health/check")
def health() -> Response:
    """Answer as the daemon does."""
    return jsonify({"status": "ok", "pool_status": {}})


@app.route("/e/<hook>/", defaults={"path": ""}, methods=["GET", "HEAD", "POST", "PUT", "DELETE"])
@app.route("/e/<hook>/<path:path>", methods=["GET", "HEAD", "POST", "PUT", "DELETE"])
def endpoint(hook: str, path: str) -> tuple[Response, int]:  # noqa: ARG001  # no hook is known
    """Look the endpoint up, and find none: no plugin of the stand-in has one."""
    try:
        store.row("select id from endpoints where hook_id = %s", hook)
    except LOST:
        return problem(-500, "InternalServer", "internal server error"), 500
    return problem(-400, "BadRequest", "endpoint not found"), 404


app.register_blueprint(plugin_management.blueprint)
app.register_blueprint(plugin_dispatch.blueprint)
