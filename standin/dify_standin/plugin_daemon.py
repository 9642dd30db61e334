"""In the place of the plugin daemon: its health, its key check, and endpoints that no plugin has."""

import hmac

from flask import Flask, Response, jsonify, request

from dify_standin.config import text

app = Flask(__name__)


@app.before_request
def check_key() -> tuple[Response, int] | None:
    """Refuse internal calls without the server's key."""
    if not request.path.startswith("/plugin/"):
        return None
    if hmac.compare_digest(request.headers.get("X-Api-Key", "").encode(), text("SERVER_KEY").encode()):
        return None
    return jsonify({"message": "unauthorized", "error_type": "unauthorized"}), 401


@app.get("/health/check")
def health() -> Response:
    """Answer as the daemon does."""
    return jsonify({"status": "ok", "pool_status": {}})


@app.route("/e/<hook>", defaults={"path": ""}, methods=["GET", "POST", "PUT", "DELETE"])
@app.route("/e/<hook>/<path:path>", methods=["GET", "POST", "PUT", "DELETE"])
def endpoint(hook: str, path: str) -> tuple[Response, int]:  # noqa: ARG001  # no hook is known
    """Refuse: no plugin is installed."""
    return jsonify(
        {"code": -404, "message": "endpoint not found", "hook_url": request.headers.get("Dify-Hook-Url")}
    ), 404


@app.get("/plugin/<tenant>/management/list")
def installed(tenant: str) -> Response:  # noqa: ARG001  # nothing is installed for anyone
    """List the installed plugins: none."""
    return jsonify({"code": 0, "message": "success", "data": {"list": [], "total": 0}})
