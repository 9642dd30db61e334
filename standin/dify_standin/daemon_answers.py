"""The plugin daemon's form of answers: a code, and a message that is JSON once more when it is an error."""

import json
from typing import Any

from flask import Response, jsonify

Json = dict[str, Any]


def success(data: Any) -> Response:  # noqa: ANN401  # JSON
    """Return an answer with its data."""
    return jsonify({"code": 0, "message": "success", "data": data})


def problem(code: int, kind: str, message: str) -> Response:
    """Return an error of the daemon itself."""
    return jsonify(problem_body(code, f"PluginDaemon{kind}Error", message))


def problem_body(code: int, kind: str, message: str) -> Json:
    """Return the body of an error. `kind` is the name of the error's class."""
    inner = {"message": message, "error_type": kind, "args": None}
    return {"code": code, "message": json.dumps(inner, separators=(",", ":")), "data": None}


def plugin_problem(kind: str, message: str) -> Json:
    """Return the body of an error that a plugin reports: one more message inside that of the daemon."""
    inner = {"error_type": kind, "message": message, "args": {}}
    return problem_body(-500, "PluginInvokeError", json.dumps(inner))
