"""Which scope opens which route of the service API: the one table, for the edge and for the documentation.

A route that no scope lists is denied to OAuth. Paths and methods are Dify's (its service API of 1.17.1 and before).
"""

from dataclasses import dataclass

from dify_gateway.config import SCOPES

__all__ = ["ROUTES", "SCOPES", "ScopedRoute"]


@dataclass(frozen=True, kw_only=True)
class ScopedRoute:
    """Requests that a scope opens: `methods`, and a `path` whose `{}` stands for one segment."""

    scope: str
    methods: tuple[str, ...]
    path: str


ROUTES = (
    ScopedRoute(scope="chat", methods=("POST",), path="/v1/chat-messages"),
    ScopedRoute(scope="chat", methods=("POST",), path="/v1/chat-messages/{}/stop"),
    ScopedRoute(scope="chat", methods=("POST",), path="/v1/completion-messages"),
    ScopedRoute(scope="chat", methods=("POST",), path="/v1/completion-messages/{}/stop"),
    ScopedRoute(scope="chat", methods=("GET",), path="/v1/info"),
    ScopedRoute(scope="chat", methods=("GET",), path="/v1/parameters"),
    ScopedRoute(scope="chat", methods=("GET",), path="/v1/meta"),
    ScopedRoute(scope="chat", methods=("GET",), path="/v1/site"),
    ScopedRoute(scope="workflows", methods=("POST",), path="/v1/workflows/run"),
    ScopedRoute(scope="workflows", methods=("POST",), path="/v1/workflows/{}/run"),
    ScopedRoute(scope="workflows", methods=("GET",), path="/v1/workflows/run/{}"),
    ScopedRoute(scope="workflows", methods=("POST",), path="/v1/workflows/tasks/{}/stop"),
    ScopedRoute(scope="workflows", methods=("GET",), path="/v1/workflows/logs"),
    ScopedRoute(scope="workflows", methods=("GET",), path="/v1/workflow/{}/events"),
    ScopedRoute(scope="workflows", methods=("GET", "POST"), path="/v1/form/human_input/{}"),
    ScopedRoute(scope="files", methods=("POST",), path="/v1/files/upload"),
    ScopedRoute(scope="files", methods=("GET",), path="/v1/files/{}/preview"),
    ScopedRoute(scope="files", methods=("POST",), path="/v1/audio-to-text"),
    ScopedRoute(scope="files", methods=("POST",), path="/v1/text-to-audio"),
    ScopedRoute(scope="conversations", methods=("GET",), path="/v1/conversations"),
    ScopedRoute(scope="conversations", methods=("DELETE",), path="/v1/conversations/{}"),
    ScopedRoute(scope="conversations", methods=("POST",), path="/v1/conversations/{}/name"),
    ScopedRoute(scope="conversations", methods=("GET",), path="/v1/conversations/{}/variables"),
    ScopedRoute(scope="conversations", methods=("PUT",), path="/v1/conversations/{}/variables/{}"),
    ScopedRoute(scope="conversations", methods=("GET",), path="/v1/messages"),
    ScopedRoute(scope="conversations", methods=("POST",), path="/v1/messages/{}/feedbacks"),
    ScopedRoute(scope="conversations", methods=("GET",), path="/v1/messages/{}/suggested"),
)
