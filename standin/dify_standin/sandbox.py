"""Stand-in for dify-sandbox: it runs Python in a process of its own, inside a container that reaches nothing."""

import base64
import hmac
import subprocess
import sys

from flask import Flask, Response, jsonify, request

from dify_standin.config import integer, text

app = Flask(__name__)


@app.get("/health")
def health() -> Response:
    """Answer as the sandbox does."""
    return jsonify("ok")


@app.post("/v1/sandbox/run")
def run() -> tuple[Response, int]:
    """Run a script and return what it printed."""
    if not hmac.compare_digest(request.headers.get("X-Api-Key", "").encode(), text("API_KEY").encode()):
        return jsonify({"code": -401, "message": "Unauthorized"}), 401
    body = request.get_json()
    if body.get("language") != "python3":
        return jsonify({"code": -400, "message": "the stand-in runs python3 only", "data": None}), 400
    code = body.get("code", "")
    if body.get("preload_encoded"):
        code = base64.b64decode(code).decode()
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", code],
            capture_output=True,
            text=True,
            timeout=integer("WORKER_TIMEOUT", 15),
            check=False,
            env={"PATH": "/usr/bin:/bin"},
            cwd="/tmp",  # noqa: S108  # the container's own
        )
        data = {"stdout": done.stdout, "error": done.stderr if done.returncode else ""}
    except subprocess.TimeoutExpired:
        data = {"stdout": "", "error": "error: timeout"}
    return jsonify({"code": 0, "message": "success", "data": data}), 200
