"""A server in this process that speaks as Dify or as OpenAI do, well or badly, and counts what it is asked."""

import json
import ssl
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from support.certificates import Pair

KEY = "app-not-to-be-shown"
PAUSE = 0.01


class Server(ThreadingHTTPServer):
    """Answers as its fields say."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.now = self.most = 0
        self.status = 200
        # How a good answer ends: "" well, "cut" early, "malformed", "error" or "hang".
        self.fault = ""
        # Longer than any pause, for the first requests.
        self.slow, self.slow_seconds = 0, 0.0
        # So many deletions are refused by a limit first.
        self.refused = 0
        self.asked: list[dict[str, Any]] = []
        self.open: set[str] = set()
        self.released = threading.Event()

        self.scheme = "http"

    @property
    def url(self) -> str:
        """The base URL."""
        return f"{self.scheme}://localhost:{self.server_port}/v1"

    def speak_tls(self, pair: Pair, folder: Path) -> None:
        """Speak TLS from now on, with this certificate."""
        (folder / "chain.pem").write_text(pair.pem)
        (folder / "key.pem").write_text(pair.key_pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "chain.pem", folder / "key.pem")
        # The handshake is done by the thread of the connection.
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.scheme = "https"

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of connections that a client ends."""


class Handler(BaseHTTPRequestHandler):
    """Chat and deletion."""

    server: Server

    def do_POST(self) -> None:
        """Answer a chat."""
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        server, made = self.server, str(uuid.uuid4())
        if not self.path.endswith(("/chat-messages", "/chat/completions")):
            self.send_response(401)
            self.end_headers()
            return
        body = json.loads(raw)
        with server.lock:
            server.asked.append(body)
            slow = len(server.asked) <= server.slow
            server.now += 1
            server.most = max(server.most, server.now)
        time.sleep(server.slow_seconds if slow else PAUSE)
        with server.lock:
            server.now -= 1
        good = self.headers["Authorization"] == f"Bearer {KEY}"
        self.send_response(server.status if good else 401)
        self.end_headers()
        if not good or server.status != 200:
            return
        if self.path == "/v1/chat-messages":
            with server.lock:
                server.open.add(made)
            self._dify(made, streaming=body["response_mode"] == "streaming")
        else:
            self._openai(streaming=body["stream"])

    def do_DELETE(self) -> None:
        """Delete a conversation."""
        with self.server.lock:
            self.server.refused -= 1
            refused = self.server.refused >= 0
        if not refused:
            self.server.open.discard(self.path.rsplit("/", 1)[1])
        self.send_response(429 if refused else 204)
        self.end_headers()

    def _dify(self, made: str, *, streaming: bool) -> None:
        message = {"event": "message", "answer": "hi", "conversation_id": made}
        if streaming:
            self._event(message)
            self._end({"event": "message_end", "conversation_id": made}, {"event": "error", "status": 400})
        else:
            self._whole(message)

    def _openai(self, *, streaming: bool) -> None:
        if streaming:
            self._event({"choices": [{"delta": {"role": "assistant", "content": ""}}]})
            self._event({"choices": [{"delta": {"content": "hi"}}]})
            self._end("[DONE]", {"error": {"message": "no"}})
        else:
            self._whole({"choices": [{"message": {"role": "assistant", "content": "hi"}}]})

    def _event(self, event: object) -> None:
        text = event if isinstance(event, str) else json.dumps(event)
        self.wfile.write(f"data: {text}\n\n".encode())

    def _end(self, good: object, error: object) -> None:
        fault = self.server.fault
        if fault == "hang":
            self.server.released.wait(10)
        if fault != "cut":
            self._event({"malformed": "{", "error": error}.get(fault, good))

    def _whole(self, answer: dict[str, Any]) -> None:
        text = json.dumps({"error": {"message": "no"}} if self.server.fault == "error" else answer)
        self.wfile.write((text[:-1] if self.server.fault == "malformed" else text).encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""
