"""A stand-in for upstreams with OpenAI's schema: over TLS, each with a key of its own, failing on demand.

It runs inside a container, by itself. Its argument is JSON, or `@` and a file of it: `{"verifier", "upstreams":
[{"name", "port", "secrets", "certificate", "key"}]}`. The first is a port, the last two are paths of PEM files.

The field `user` of a request says what goes wrong and where, as `<upstream>=<fault>` joined by commas: a status,
`hang`, `cut`, `malformed`, `silent`, `huge`, `long`, `html`, `leak`, `echo`, `raw` (what came, as it came), `slow`,
`which` (of its keys came) or `batch`.

A member `script_<upstream>` says what is sent byte by byte: base64 of JSON, `[[seconds, base64], ...]`; `KEY` in it
stands for the upstream's own key. The connection is closed after it.
Every answer repeats the Authorization header in a header, as a careless upstream might.
"""

import base64
import json
import re
import ssl
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

WORDS = ["The ", "quick ", "brown ", "狐 ", "jumps"]
HUGE_MEGABYTES = 1024
LONGEST_HANG = 20.0
PIECE = b" " * 65536
STATUSES = ("200", "401", "500", "503", "hang")


class Upstream(BaseHTTPRequestHandler):
    """One request to one of the upstreams."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    name: ClassVar[str]
    secrets: ClassVar[list[str]]

    def do_GET(self) -> None:
        """List models."""
        if self._allowed():
            self._json(200, {"object": "list", "data": [{"id": "gpt-4.1", "object": "model"}]})

    def do_POST(self) -> None:
        """Answer a chat or embeddings."""
        length = int(self.headers.get("Content-Length") or 0)
        came = self.rfile.read(length)
        if not self._allowed():
            return
        # Some of what passes is nothing that Python's parser takes.
        script = re.search(rb'"script_%s": ?"([A-Za-z0-9+/=]*)"' % self.name.encode(), came)
        if script:
            self._play(json.loads(base64.b64decode(script[1])))
        elif re.search(rb'"user": ?"%s=raw"' % self.name.encode(), came):
            message = {"role": "assistant", "content": base64.b64encode(came).decode()}
            usage = {"prompt_tokens": 1, "completion_tokens": 1}
            self._json(200, {"id": "raw", "choices": [{"index": 0, "message": message}], "usage": usage})
        else:
            self._answer(json.loads(came))

    def _answer(self, asked: dict[str, Any]) -> None:
        faults = dict(part.split("=") for part in (asked.get("user") or "").split(",") if "=" in part)
        fault = faults.get(self.name, "")
        if fault.isdigit():
            self._fail(int(fault))
        elif fault == "hang":
            time.sleep(LONGEST_HANG)
        elif fault == "html":
            self._send(404, b"<html>nothing</html>", "text/html")
        elif fault == "leak":
            self._json(
                400, {"error": {"message": f"bad key {self.secrets[0]}", "type": "invalid_request_error"}}
            )
        elif fault == "huge":
            self._huge()
        elif self.path.endswith("/embeddings"):
            self._embeddings(asked)
        elif asked.get("stream"):
            self._stream(asked, fault)
        else:
            self._chat(asked, fault)

    def _play(self, script: list[tuple[float, str]]) -> None:
        for seconds, piece in script:
            time.sleep(seconds)
            self.wfile.write(base64.b64decode(piece).replace(b"KEY", self.secrets[0].encode()))
            self.wfile.flush()
        self.close_connection = True

    def _allowed(self) -> bool:
        if self.headers.get("Authorization", "").removeprefix("Bearer ") in self.secrets:
            return True
        given = self.headers.get("Authorization")
        self._json(401, {"error": {"message": f"wrong key: {given}", "code": "invalid_api_key"}})
        return False

    def _fail(self, status: int) -> None:
        more = {"Retry-After": "7"} if status == 429 else {}
        error = {"message": f"{self.name} says {status}", "type": "upstream", "code": "as_asked"}
        self._json(status, {"error": error}, more)

    def _chat(self, asked: dict[str, Any], fault: str) -> None:
        if fault == "slow":
            time.sleep(1)
        message: dict[str, Any] = {"role": "assistant", "content": "".join(WORDS)}
        if fault == "echo":
            seen = {name.lower(): value for name, value in self.headers.items() if name != "Authorization"}
            message["content"] = json.dumps({"headers": seen, "path": self.path, "body": asked})
        if fault == "which":
            given = self.headers["Authorization"].removeprefix("Bearer ")
            message["content"] = str(self.secrets.index(given))
        if asked.get("tools"):
            function = {"name": asked["tools"][0]["function"]["name"], "arguments": '{"city":"Ulm"}'}
            message["tool_calls"] = [{"id": "call_1", "type": "function", "function": function}]
        answer: dict[str, Any] = {
            "id": f"chat-{self.name}",
            "object": "chat.completion",
            "created": 1,
            "model": asked["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        }
        if fault != "silent":
            answer["usage"] = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
        self._json(200, answer)

    def _embeddings(self, asked: dict[str, Any]) -> None:
        data = [{"object": "embedding", "index": 0, "embedding": [0.5] * 1536}]
        usage = {"prompt_tokens": 5, "total_tokens": 5}
        # Usage first, as some have it.
        self._json(200, {"object": "list", "usage": usage, "model": asked["model"], "data": data})

    def _stream(self, asked: dict[str, Any], fault: str) -> None:
        self._start("text/event-stream")
        if fault == "malformed":
            self._chunk(b"data: {not json\n\nnonsense without end")
            self._chunk(b"")
            return
        base = {
            "id": f"chat-{self.name}",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": asked["model"],
        }
        wanted = (asked.get("stream_options") or {}).get("include_usage")
        null = {"usage": None} if wanted else {}
        words = ["".join(WORDS) * 100] if fault == "batch" else WORDS
        if fault == "long":
            event = json.dumps(
                {**base, "choices": [{"index": 0, "delta": {"content": "word "}}], **null}
            ).encode()
            for _ in range(20000):
                self._chunk(b"data: " + event + b"\n\n")
        for number, word in enumerate(words):
            choice = {"index": 0, "delta": {"content": word}, "finish_reason": None}
            self._event({**base, "choices": [choice], **null}, split=number == 3)
            time.sleep(0.5 if fault == "slow" else 0.05)
            if fault == "cut" and number == 2:
                self.connection.close()
                return
        self._event({**base, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], **null})
        if wanted and fault != "silent":
            usage = {"prompt_tokens": 13, "completion_tokens": 5, "total_tokens": 18}
            self._event({**base, "choices": [], "usage": usage}, split=True)
        self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _event(self, data: dict[str, Any], *, split: bool = False) -> None:
        event = b"data: " + json.dumps(data, ensure_ascii=False).encode() + b"\n\n"
        # In two pieces, in the middle of a character when there is one.
        at = next((place + 1 for place, byte in enumerate(event) if byte > 127), len(event) // 2)
        for piece in (event[:at], event[at:]) if split else (event,):
            self._chunk(piece)
            time.sleep(0.01)

    def _huge(self) -> None:
        self._start("application/json")
        self._chunk(b'{"padding":"')
        for _ in range(HUGE_MEGABYTES * 16):
            self._chunk(PIECE)
        self._chunk(b'"}')
        self._chunk(b"")

    def _start(self, kind: str) -> None:
        self.send_response(200)
        self._headers(kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _headers(self, kind: str) -> None:
        self.send_header("Content-Type", kind)
        self.send_header("X-Echo", self.headers.get("Authorization", ""))
        self.send_header("Set-Cookie", "account=1")
        self.send_header("openai-organization", "the-operators-own")
        self.send_header("X-Accel-Redirect", "/revision")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def _json(self, status: int, body: object, more: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(body).encode(), "application/json", more)

    def _send(self, status: int, body: bytes, kind: str, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self._headers(kind)
        for name, value in (more or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Verifier(BaseHTTPRequestHandler):
    """The gateway's responses to /verify. A token's middle part is base64url of JSON, its last one the status."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer a check of a token as its last part says: with a status, or never (`hang`)."""
        _, claims, status = (*self.headers["Authorization"].removeprefix("Bearer ").split("."), "", "")[:3]
        if status not in STATUSES:
            status = "401"
        if status == "hang":
            time.sleep(LONGEST_HANG)
        self.send_response(int(status))
        if status == "200":
            for name, value in json.loads(
                base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4))
            ).items():
                self.send_header(f"X-Auth-{name}", value)
            self.send_header("X-Auth-Upstream", "app-the-tenants-own-key")
            self.send_header("Cache-Control", "max-age=4")
        elif status == "401":
            self.send_header("WWW-Authenticate", 'Bearer error="invalid_token"')
            self.send_header("Cache-Control", "max-age=4")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """A server of TLS, with the handshake in the thread of its connection."""

    daemon_threads = True
    request_queue_size = 512

    def __init__(self, port: int, handler: type[Upstream], tls: ssl.SSLContext) -> None:
        super().__init__(("0.0.0.0", port), handler)  # noqa: S104  # inside its own container
        self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def handle_error(self, request: object, address: object) -> None:
        """Say nothing: callers that leave are part of the tests."""


def main() -> None:
    """Serve every upstream of the configuration."""
    given = sys.argv[1]
    body = json.loads(Path(given[1:]).read_text(encoding="utf-8") if given.startswith("@") else given)
    verifier = ThreadingHTTPServer(("0.0.0.0", body["verifier"]), Verifier)  # noqa: S104  # inside its own container
    threading.Thread(target=verifier.serve_forever).start()
    for one in body["upstreams"]:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(one["certificate"], one["key"])
        handler = type(one["name"], (Upstream,), {"name": one["name"], "secrets": one["secrets"]})
        threading.Thread(target=Server(one["port"], handler, tls).serve_forever).start()


if __name__ == "__main__":
    main()
