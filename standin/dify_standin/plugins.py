"""What the console asks the plugin daemon for, carried there with the key of both."""

import http.client
import json
import urllib.request
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode

from dify_standin import store
from dify_standin.config import integer, text
from dify_standin.errors import ApiError

MOST = 256


def call(path: str, **query: str | int) -> dict[str, Any]:
    """GET a path of this workspace from the plugin daemon; return its data.

    Raises ApiError in Dify's words when the daemon does not answer, refuses the key, or fails.
    """
    tenant = store.row("select id from tenants limit 1")
    path = f"plugin/{tenant['id'] if tenant else ''}/{path}"
    called = urllib.request.Request(  # noqa: S310  # the daemon of this stack
        f"{text('PLUGIN_DAEMON_URL').rstrip('/')}/{path}?{urlencode(query)}",
        headers={"X-Api-Key": text("PLUGIN_DAEMON_KEY")},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(called, timeout=integer("PLUGIN_DAEMON_TIMEOUT", 600)) as answer:
            body = json.load(answer)
    except (HTTPError, ValueError, OSError, http.client.HTTPException):
        raise ApiError(400, "invalid_param", f"Failed to request plugin daemon, url: {path}") from None
    if body.get("code") != 0:
        raise ApiError(400, "plugin_error", str(body.get("message")))
    data: dict[str, Any] = body.get("data") or {}
    return data
