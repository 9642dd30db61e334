"""An upstream that listens at once and answers nothing while /tmp/ready is not there, as gunicorn with Dify behind it.

It runs inside a container, by itself. It starts without that file, whatever an earlier run left.
"""

import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

READY = Path("/tmp/ready")  # noqa: S108  # the container's own
PORTS = (5001, 5002, 3000)


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer once it is ready; the port of the plugin daemon always is."""
        while self.connection.getsockname()[1] == PORTS[0] and not READY.exists():
            time.sleep(0.05)
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")


class Server(ThreadingHTTPServer):
    """One port."""

    daemon_threads = True


if __name__ == "__main__":
    with suppress(FileNotFoundError):
        READY.unlink()
    for port in PORTS[1:]:
        threading.Thread(target=Server(("", port), Handler).serve_forever, daemon=True).start()
    # gunicorn itself has to be imported before it listens.
    time.sleep(1)
    Server(("", PORTS[0]), Handler).serve_forever()
