"""What api asks the plugin daemon for, carried there with the key of both: lists, packages, and calls of a model."""

import http.client
import json
import urllib.request
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode

from dify_standin import store
from dify_standin.config import integer, text
from dify_standin.errors import ApiError, PlainError

Json = dict[str, Any]

MOST = 256
INTERNAL = "PluginDaemonInternalServerError"
INVOKE = "PluginInvokeError"


class DaemonError(Exception):
    """The daemon answered with an error, or a plugin did. `kind` is the name of the error's class."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class LostError(Exception):
    """The daemon did not answer at all."""


def tenant_id() -> str:
    """Return the id of the workspace, empty before the instance is claimed."""
    found = store.row("select id from tenants limit 1")
    return str(found["id"]) if found else ""


def call(path: str, **query: str | int) -> Any:  # noqa: ANN401  # JSON
    """GET a path of this workspace from the plugin daemon; return its data.

    Raises ApiError in Dify's words when the daemon does not answer, refuses the key, or fails.
    """
    return _answered(path, f"?{urlencode(query)}" if query else "")


def post(path: str, body: Json) -> Any:  # noqa: ANN401  # JSON
    """POST a body to a path of this workspace at the plugin daemon; return its data. Raises ApiError."""
    return _answered(path, "", json.dumps(body).encode(), "application/json")


def upload(content: bytes) -> Json:
    """Send a package to the plugin daemon; return what it reads of it. Raises ApiError."""
    mark = uuid.uuid4().hex
    head = (
        f'--{mark}\r\nContent-Disposition: form-data; name="dify_pkg"; filename="dify_pkg"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    body = head.encode() + content + f"\r\n--{mark}--\r\n".encode()
    path = "management/install/upload/package"
    found: Json = _answered(path, "", body, f"multipart/form-data; boundary={mark}")
    return found


def _answered(path: str, query: str, body: bytes | None = None, kind: str = "") -> Any:  # noqa: ANN401  # JSON
    full = f"plugin/{tenant_id()}/{path}"
    try:
        with _open(full + query, body, {"Content-Type": kind} if kind else {}) as answer:
            return _data(json.load(answer))
    except (LostError, ValueError, OSError, http.client.HTTPException):
        raise ApiError(400, "invalid_param", f"Failed to request plugin daemon, url: {full}") from None
    except DaemonError as problem:
        if problem.kind == INTERNAL:
            raise ApiError(500, "unknown", "Internal Server Error") from None
        raise PlainError(400, "plugin_error", str(problem)) from None


def invoke(plugin: str, path: str, data: Json, user: str = "") -> Any:  # noqa: ANN401  # JSON
    """Call a model through a plugin, `author/name`; return the answer's data. Raises DaemonError and LostError."""
    with _dispatched(plugin, path, data, user) as answer:
        try:
            body = json.load(answer)
        except (ValueError, OSError, http.client.HTTPException):
            raise LostError from None
    return _data(body)


def stream(plugin: str, path: str, data: Json, user: str = "") -> Iterator[Json]:
    """Call a model through a plugin and yield the pieces of its answer. Raises DaemonError and LostError."""
    with _dispatched(plugin, path, data, user) as answer:
        if "text/event-stream" not in answer.headers.get("Content-Type", ""):
            try:
                body = json.load(answer)
            except (ValueError, OSError, http.client.HTTPException):
                raise LostError from None
            yield _data(body)
            return
        try:
            for line in answer:
                if line.startswith(b"data:"):
                    yield _data(json.loads(line.removeprefix(b"data:")))
        except (ValueError, OSError, http.client.HTTPException):
            raise LostError from None


def _dispatched(plugin: str, path: str, data: Json, user: str) -> http.client.HTTPResponse:
    body = json.dumps({"user_id": user, "data": {**data, "user_id": user}}).encode()
    headers = {"Content-Type": "application/json", "X-Plugin-ID": plugin}
    return _open(f"plugin/{tenant_id()}/dispatch/{path}", body, headers)


def _open(path: str, body: bytes | None, headers: dict[str, str]) -> http.client.HTTPResponse:
    called = urllib.request.Request(  # noqa: S310  # the daemon of this stack
        f"{text('PLUGIN_DAEMON_URL').rstrip('/')}/{path}",
        data=body,
        headers={"X-Api-Key": text("PLUGIN_DAEMON_KEY"), **headers},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        answer: http.client.HTTPResponse = opener.open(called, timeout=integer("PLUGIN_DAEMON_TIMEOUT", 600))
    except (HTTPError, OSError, http.client.HTTPException):
        raise LostError from None
    return answer


def _data(body: Json) -> Any:  # noqa: ANN401  # JSON
    """Return the data of an answer. Raises DaemonError: an error's message is JSON once more, a plugin's twice."""
    if body.get("code") == 0:
        return body.get("data")
    kind, message = "", str(body.get("message"))
    while True:
        try:
            inner = json.loads(message)
            kind, message = str(inner["error_type"]), str(inner["message"])
        except (ValueError, KeyError, TypeError):
            raise DaemonError(kind, message) from None
        if kind != INVOKE:
            raise DaemonError(kind, message)
