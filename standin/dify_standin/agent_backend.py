"""Stand-in for the agent backend: health and the token check."""

import hmac

from flask import Flask, Response, jsonify, request

from dify_standin.config import text

app = Flask(__name__)


@app.get("/health")
@app.get("/healthz")
def health() -> Response:
    """Answer."""
    return jsonify({"status": "ok"})


@app.post("/runs")
def runs() -> tuple[Response, int]:
    """Refuse runs: the stand-in has no agents."""
    expected = f"Bearer {text('DIFY_AGENT_API_TOKEN')}"
    if not hmac.compare_digest(request.headers.get("Authorization", "").encode(), expected.encode()):
        return jsonify({"detail": "Unauthorized"}), 401
    return jsonify({"detail": "the stand-in runs no agents"}), 501
