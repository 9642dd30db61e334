"""A small Dify behind an edge, correct except for the defects that a test plants.

It answers the requests of the smoke tests (see /v1 and CORS in docs/guides/smoke-tests.md), so that each of them can
be shown to detect its defect.
"""

import json
import secrets
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

from support.serving import served

KEY = "app-UnitTestKey4mZ8xQ2pL"
ALLOWED = "https://app.example.com"
LIMIT = 20 * 1024 * 1024
PAUSE_SECONDS = 0.004
# A stream that is held back takes long enough for a busy machine to notice it.
HELD_BACK_SECONDS = 0.1
NOT_FOUND = "<!doctype html>\n<html lang=en>\n<title>404 Not Found</title>\n<h1>Not Found</h1>\n"
# As from the plugin daemon: the message is JSON once more.
PLUGINLESS = {
    "code": -400,
    "message": '{"message":"endpoint not found","error_type":"PluginDaemonBadRequestError","args":null}',
    "data": None,
}
HTML = "text/html; charset=utf-8"
JSON = "application/json"
PING = b"event: ping\n\n"


@dataclass
class Upstream:
    """The state of the server. `defects` are the names of the planted defects."""

    defects: frozenset[str]
    url: str = ""
    conversations: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    started: dict[str, float] = field(default_factory=dict)
    deleted: list[str] = field(default_factory=list)
    counted: int = 0
    refused: int = 0


class Refused(Exception):  # noqa: N818  # an answer, not an error
    """An answer other than 200."""

    def __init__(self, status: int, body: Any, **headers: str) -> None:
        super().__init__(status)
        self.status, self.body, self.headers = status, body, headers


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    upstream: ClassVar[Upstream]

    def wrong(self, defect: str) -> bool:
        return defect in self.upstream.defects

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def do_OPTIONS(self) -> None:
        self.answer()

    do_GET = do_POST = do_DELETE = do_OPTIONS  # noqa: N815  # the standard library's names

    def answer(self) -> None:
        if self.headers["Host"] != urlsplit(self.upstream.url).netloc and not self.wrong("any-host"):
            self.close_connection = True
            return
        try:
            if self.command == "OPTIONS":
                self.send(200 if self.wrong("preflight-by-dify") else 204, "")
                return
            body = self.body()
            self.limits()
            self.route(body)
        except Refused as refused:
            self.send(refused.status, refused.body, refused.headers)

    def body(self) -> dict[str, Any]:
        length = int(self.headers.get("Content-Length") or 0)
        if length > LIMIT:
            self.close_connection = True
            if self.wrong("html-413"):
                raise Refused(413, "<html><h1>413 Request Entity Too Large</h1></html>")
            raise Refused(413, {"code": "request_too_large", "message": "Too large.", "status": 413})
        found: dict[str, Any] = json.loads(self.rfile.read(length) or b"{}")
        return found

    def limits(self) -> None:
        """Refuse every fifth request, or every one after the twelfth, for a defect of the limits."""
        self.upstream.counted += 1
        wait = "0" if self.wrong("limits-now-and-then") else "30"
        if (self.wrong("limits-now-and-then") and self.upstream.counted % 5 == 0) or (
            self.wrong("limits-for-ever") and self.upstream.counted > 12
        ):
            self.upstream.refused += 1
            raise Refused(
                429, {"code": "too_many_requests", "message": "", "status": 429}, **{"Retry-After": wait}
            )

    # Routes

    def route(self, body: dict[str, Any]) -> None:
        path = urlsplit(self.path).path
        routes = {
            "/console/api/setup": self.setup_state,
            "/signin": lambda: self.send(200, "<!doctype html><html><p>Dify</p></html>"),
            "/console/api/apps": self.console,
            "/console/api/account/profile": self.console,
            "/v1/parameters": lambda: self.with_key({"user_input_form": []}),
            "/v1/info": lambda: self.with_key({"name": "dify-kit canary", "mode": "advanced-chat"}),
            "/v1/datasets": lambda: self.unauthorized("Access token is invalid"),
            "/v1/chat-messages": lambda: self.chat(body),
            "/v1/conversations": self.conversations,
            "/v1/messages": self.messages,
        }
        if self.schema(path):
            self.send(200, {"swagger": "2.0", "paths": {}})
        elif path == "/socket.io/":
            self.sockets()
        elif path.startswith("/e/"):
            self.send(404, PLUGINLESS)
        elif path.startswith("/v1/conversations/") and self.command == "DELETE":
            self.delete(path.rpartition("/")[2])
        elif path in routes:
            routes[path]()
        elif self.wrong("own-404"):
            self.send(404, {"code": "not_found", "message": "There is nothing here.", "status": 404})
        else:
            self.send(404, NOT_FOUND)

    def schema(self, path: str) -> bool:
        """Return whether a schema is served: always, or only for a non-normalised path."""
        if self.wrong("open-schema"):
            return path.endswith("/swagger.json")
        read = "/" + "/".join(part for part in unquote(path).split("/") if part)
        return self.wrong("schema-non-normalised") and read == "/v1/swagger.json" != path

    def sockets(self) -> None:
        """Answer the console's sockets, and refuse other origins."""
        if self.headers.get("Origin") == self.upstream.url or self.wrong("any-origin-connects"):
            self.send(403 if self.wrong("console-refused") else 200, '0{"sid":"x"}')
        else:
            self.send(403, {"code": "forbidden", "message": "Access is not allowed.", "status": 403})

    def setup_state(self) -> None:
        step = "not_started" if self.wrong("unclaimed") else "finished"
        self.send(200, {"step": step, "setup_at": None})

    def console(self) -> None:
        self.send(200 if self.wrong("open-console") else 401, {"code": "unauthorized"})

    def with_key(self, body: Any) -> None:
        self.authenticate()
        self.send(200, body, {"Set-Cookie": f"x-token={KEY}"} if self.wrong("repeats-key") else {})

    def unauthorized(self, message: str) -> None:
        body: Any = {"code": "unauthorized", "message": message, "status": 401}
        if self.wrong("own-401"):
            body = {"code": "unauthorized", "message": "Authentication is required.", "status": 401}
        challenge = {} if self.wrong("no-challenge") else {"WWW-Authenticate": 'Bearer realm="api"'}
        raise Refused(401, body, **challenge)

    def authenticate(self) -> None:
        scheme, _, token = self.headers.get("Authorization", "").strip().partition(" ")
        if not token:
            self.unauthorized("Authorization header must be provided and start with 'Bearer'")
        if scheme.lower() != "bearer":
            self.unauthorized("Authorization scheme must be 'Bearer'")
        if token != KEY and not self.wrong("any-key"):
            self.unauthorized("Access token is invalid")

    def conversations(self) -> None:
        self.authenticate()
        data = [{"id": one, "created_at": at} for one, at in self.upstream.started.items()]
        self.send(200, {"data": data, "has_more": False, "limit": 50})

    def delete(self, conversation: str) -> None:
        self.authenticate()
        self.upstream.deleted.append(conversation)
        if not self.wrong("keeps-conversations"):
            self.upstream.conversations.pop(conversation, None)
            self.upstream.started.pop(conversation, None)
        self.send(204, "")

    def messages(self) -> None:
        self.authenticate()
        query = parse_qs(urlsplit(self.path).query)
        found = self.upstream.conversations.get(query["conversation_id"][0])
        if found is None or query["user"] != [found[0]["user"]]:
            self.send(404, {"code": "not_found", "message": "Conversation Not Exists.", "status": 404})
        else:
            self.send(200, {"data": found, "has_more": False, "limit": 20})

    def chat(self, body: dict[str, Any]) -> None:
        self.authenticate()
        if "user" not in body:
            self.send(400, {"code": "invalid_param", "message": "Arg user must be provided.", "status": 400})
            return
        conversation = body.get("conversation_id")
        if not conversation or self.wrong("forgets"):
            conversation = str(uuid.uuid4())
        said = {"query": body["query"], "user": body["user"]}
        self.upstream.conversations.setdefault(conversation, []).append(said)
        self.upstream.started.setdefault(conversation, time.time())
        answer = "Hello" if self.wrong("answers-something-else") else f"You said: {body['query']}"
        common = {"conversation_id": conversation, "message_id": str(uuid.uuid4())}
        if body["response_mode"] == "blocking":
            self.send(200, {"event": "message", "answer": answer, **common})
        else:
            self.stream(self.events(common, answer))

    def events(self, common: dict[str, Any], answer: str) -> Iterator[bytes]:
        events: list[dict[str, Any]] = [
            {"event": "workflow_started", "data": {}},
            {"event": "message", "answer": answer[:6]},
            {"event": "message", "answer": answer[6:]},
            {"event": "workflow_finished", "data": {"elapsed_time": self.pause() * 3}},
            {"event": "message_end", "metadata": {}},
        ]
        if self.wrong("stream-breaks-off"):
            events.pop()
        if self.wrong("stream-fails"):
            events.insert(
                1, {"event": "error", "code": "invalid_param", "message": "Run failed", "status": 400}
            )
        if self.wrong("stream-loses-text"):
            events.pop(2)
        if self.wrong("stream-changes-ids"):
            events[2] = events[2] | {"message_id": str(uuid.uuid4())}
        if self.wrong("stream-without-workflow-end"):
            events = [event for event in events if event["event"] != "workflow_finished"]
        if self.wrong("app-without-workflow"):
            events = [event for event in events if not event["event"].startswith("workflow_")]
        if self.wrong("order-of-newer-releases"):
            events.append(events.pop(-2))
            yield PING
        for event in events:
            yield f"data: {json.dumps(common | event)}\n\n".encode()
            if self.wrong("order-of-newer-releases"):
                yield PING

    # Answers

    def pause(self) -> float:
        return HELD_BACK_SECONDS if self.wrong("buffers") else PAUSE_SECONDS

    def stream(self, pieces: Iterator[bytes]) -> None:
        self.head(200, {"Content-Type": "text/event-stream; charset=utf-8", "Transfer-Encoding": "chunked"})
        held = b""
        for piece in pieces:
            time.sleep(self.pause())
            if self.wrong("buffers"):
                held += piece
            else:
                self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        if held:
            self.wfile.write(f"{len(held):x}\r\n".encode() + held + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def send(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        content = (body if isinstance(body, str) else json.dumps(body)).encode()
        own = {"Content-Type": HTML if isinstance(body, str) else JSON, "Content-Length": str(len(content))}
        self.head(status, own | (headers or {}))
        self.wfile.write(content)

    def head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("X-Version", "1.17.1") if not self.wrong("own-404") or status != 404 else None
        if not self.wrong("no-request-id"):
            self.send_header(
                "X-Request-Id", "always the same" if self.wrong("one-id") else secrets.token_hex(16)
            )
        for name, value in self.cors(status):
            self.send_header(name, value)
        self.end_headers()

    def cors(self, status: int) -> list[tuple[str, str]]:
        vary = [] if self.wrong("no-vary") else [("Vary", "Origin")]
        origin = self.headers.get("Origin", "")
        if not self.allows(origin) or (status >= 400 and self.wrong("not-on-errors")):
            return vary
        headers = [*vary, ("Access-Control-Allow-Origin", origin)]
        if not self.wrong("hides-headers"):
            headers.append(("Access-Control-Expose-Headers", "X-Request-Id, Retry-After"))
        if self.wrong("doubled"):
            headers.append(("Access-Control-Allow-Origin", "*"))
        if self.wrong("credentials"):
            headers.append(("Access-Control-Allow-Credentials", "true"))
        if self.command == "OPTIONS":
            headers += [
                ("Access-Control-Allow-Methods", "GET, POST"),
                (
                    "Access-Control-Allow-Headers",
                    "Content-Type" if self.wrong("few-headers") else "Authorization, Content-Type",
                ),
                ("Access-Control-Max-Age", "600"),
            ]
        return headers

    def allows(self, origin: str) -> bool:
        if not origin:
            return False
        if self.wrong("reflects"):
            return True
        if not self.path.startswith("/v1/"):
            return False
        return (
            origin == ALLOWED
            or (self.wrong("prefix-match") and origin.startswith(ALLOWED))
            or (self.wrong("suffix-match") and origin.endswith("app.example.com"))
            or (self.wrong("ignores-case") and origin.lower() == ALLOWED)
            or (self.wrong("unescaped-dot") and origin == ALLOWED.replace(".", "x", 1))
            or (self.wrong("allows-null") and origin == "null")
        )


@contextmanager
def serving(*defects: str, kind: type[Handler] = Handler) -> Iterator[Upstream]:
    """Serve on a free port of 127.0.0.1."""
    upstream = Upstream(defects=frozenset(defects))
    handler = type("BoundHandler", (kind,), {"upstream": upstream, "revoked": set()})
    with served(handler) as url:
        upstream.url = url
        yield upstream
