"""The upstream of the edge's tests: reflects every origin with credentials, repeats headers, tells what it saw.

It runs inside a container, by itself. The last part of the path says what it does: a number is the status of
the answer, `stream` five events 0.2 s apart, `hold` a stream of about 3 s, `slow` an answer after 3 s,
`info` a 401.
"""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORTS = (5001, 5002, 3000)
UNAUTHORIZED = 401
# What ends in these sends a stream: (events, seconds between them).
STREAMS = {"stream": (5, 0.2), "hold": (30, 0.1)}


class Badly(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        """Answer as the path says."""
        length = self._read_body()
        last = self.path.partition("?")[0].rsplit("/", 1)[-1]
        if last in STREAMS:
            self._stream(*STREAMS[last])
            return
        if last == "slow":
            time.sleep(3)
        # A number that is no status is just a path.
        status = (
            UNAUTHORIZED
            if last == "info"
            else int(last)
            if last.isascii() and last.isdigit() and 200 <= int(last) <= 599
            else 200
        )
        fields = {
            "method": self.command,
            "path": self.path,
            "seen": sorted(self.headers.items()),
            "length": length,
        }
        # A 204 has no body: what follows it would be the start of the next answer.
        body = json.dumps(fields).encode() if status != 204 else b""
        self.send_response(status)
        self.send_header("Access-Control-Allow-Origin", self.headers.get("Origin", "*"))
        self.send_header("Access-Control-Allow-Credentials", "true")
        self.send_header("Vary", "Cookie, Origin")
        self.send_header("X-From-Upstream", "1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_HEAD = answer  # noqa: N815  # the library's names

    def _read_body(self) -> int:
        """Read the body, in one piece or chunked; return its length in bytes."""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return len(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        length = 0
        while size := int(self.rfile.readline().split(b";")[0], 16):
            length += len(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return length

    def _stream(self, events: int, pause: float) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("X-From-Upstream", "1")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for _ in range(events):
            data = b"data: %s\n\n" % json.dumps({"sent": time.time()}).encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()
            time.sleep(pause)
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """A server with room for many connections at once."""

    request_queue_size = 512


if __name__ == "__main__":
    for port in PORTS:
        server = Server(("0.0.0.0", port), Badly)  # noqa: S104  # inside its own container
        threading.Thread(target=server.serve_forever).start()
