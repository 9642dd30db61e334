"""Stand-in for the agents' local sandbox: health and the token check."""

import hmac

from flask import Flask, Response, jsonify, request

from dify_standin.config import text

app = Flask(__name__)


@app.get("/healthz")
def health() -> Response:
    """Answer."""
    return jsonify({"status": "ok"})


@app.before_request
def check_token() -> tuple[Response, int] | None:
    """Refuse everything else without the token."""
    if request.path == "/healthz":
        return None
    expected = f"Bearer {text('SHELLCTL_AUTH_TOKEN')}"
    if hmac.compare_digest(request.headers.get("Authorization", "").encode(), expected.encode()):
        return None
    return jsonify({"detail": "Unauthorized"}), 401
