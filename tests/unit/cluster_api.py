"""A Kubernetes API of a test's own: it answers as the test says, and runs commands by the WebSocket of `exec`."""

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import yaml

TOKEN = "a-token-of-the-user"  # of no cluster
CONTEXT = "one"
CLOSE, BINARY, PING, PONG = 0x8, 0x2, 0x9, 0xA


class Channel:
    """The streams of a command, as its container has them."""

    def __init__(self, handler: BaseHTTPRequestHandler) -> None:
        self._handler = handler
        self._rest = b""

    def read(self, size: int) -> bytes:
        """Return so many bytes of standard input; fewer when the client has gone."""
        while len(self._rest) < size:
            code, payload = self.frame()
            if code == CLOSE:
                break
            if code == PING:
                self.send(PONG, payload)
            elif code == BINARY and payload[:1] == b"\0":
                self._rest += payload[1:]
        found, self._rest = self._rest[:size], self._rest[size:]
        return found

    def write(self, data: bytes, number: int = 1) -> None:
        """Write to standard output (1), standard error (2), or the status of the command (3)."""
        self.send(BINARY, bytes([number]) + data)

    def end(self, code: int) -> None:
        """Tell the exit code, and close."""
        causes = [{"reason": "ExitCode", "message": str(code)}]
        failed = {"status": "Failure", "details": {"causes": causes}}
        self.write(json.dumps(failed if code else {"status": "Success"}).encode(), 3)
        self.send(CLOSE, b"")

    def frame(self) -> tuple[int, bytes]:
        head = self._handler.rfile.read(2)
        if len(head) < 2:
            return CLOSE, b""
        length = head[1] & 0x7F
        if length > 125:
            length = int.from_bytes(self._handler.rfile.read(2 if length == 126 else 8))
        mask, masked = self._handler.rfile.read(4), self._handler.rfile.read(length)
        # Bytes of one mask, one after the other: far faster than a loop over all of them.
        key = int.from_bytes((mask * (length // 4 + 1))[:length])
        return head[0] & 0xF, (int.from_bytes(masked) ^ key).to_bytes(length)

    def send(self, code: int, payload: bytes) -> None:
        size = len(payload)
        if size < 126:
            length = bytes([size])
        else:
            length = b"\x7e" + size.to_bytes(2) if size < 1 << 16 else b"\x7f" + size.to_bytes(8)
        self._handler.wfile.write(bytes([0x80 | code]) + length + payload)
        self._handler.wfile.flush()


class Api(BaseHTTPRequestHandler):
    """Answers as a test says: (method, path without query) -> (status, document), or a function of the body."""

    answers: ClassVar[dict[tuple[str, str], Any]] = {}
    requests: ClassVar[list[tuple[str, str, Any]]] = []
    # What a command writes: (1 for stdout, 2 for stderr, 3 for its status; bytes), and whether it ends.
    frames: ClassVar[list[tuple[int, bytes]]] = []
    ends: ClassVar[bool] = True
    received: ClassVar[list[bytes]] = []
    # Runs a command (name of the pod, words, streams), where there is one; otherwise the frames are written.
    shells: ClassVar[list[Callable[[str, list[str], Channel], None]]] = []

    def _execute(self) -> None:
        """Take a command by a WebSocket: read its line, write what a test says, and end with a status."""
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key.encode(), usedforsecurity=False).digest()).decode()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", accept)
        self.send_header("Sec-WebSocket-Protocol", "v4.channel.k8s.io")
        self.end_headers()
        self.requests.append((self.command, self.path, None))
        channel, parts = Channel(self), urlsplit(self.path)
        if self.shells:
            # /api/v1/namespaces/<namespace>/pods/<pod>/exec
            with suppress(OSError):
                self.shells[0](parts.path.split("/")[6], parse_qs(parts.query)["command"], channel)
        else:
            if "stdin=true" in self.path.lower():
                self.received.append(channel.frame()[1])
            for number, data in self.frames:
                channel.write(data, number)
            if self.ends:
                channel.send(CLOSE, b"")
        # The client closes.
        self.connection.settimeout(10)
        with suppress(OSError):
            self.rfile.read(1)
        self.close_connection = True

    def _answer(self) -> None:
        if self.headers.get("Upgrade", "").lower() == "websocket":
            self._execute()
            return
        text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = json.loads(text) if text else None
        path = self.path.partition("?")[0]
        self.requests.append((self.command, self.path, body))
        assert self.headers["Authorization"] == f"Bearer {TOKEN}"
        found = self.answers.get((self.command, path), (404, {"kind": "Status", "code": 404}))
        status, document = found(self.path, body) if callable(found) else found
        content = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_DELETE = do_PATCH = _answer  # noqa: N815  # the names that the server calls

    def log_message(self, *arguments: object) -> None:
        del arguments


@contextmanager
def served(folder: Path) -> Iterator[Path]:
    """Serve the API, and yield the kubeconfig that has it as context `one`."""
    Api.answers, Api.requests, Api.received = {}, [], []
    Api.frames, Api.ends, Api.shells = [], True, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    document = {
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "users": [{"name": "u", "user": {"token": TOKEN}}],
        "contexts": [{"name": CONTEXT, "context": {"cluster": "c", "user": "u"}}],
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(document))
    try:
        yield path
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
