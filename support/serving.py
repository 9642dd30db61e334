"""An HTTP server of a test, in a thread of its own."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# How often the thread looks whether it is to end, in seconds.
POLL_SECONDS = 0.02
LOOPBACK = "127.0.0.1"


@contextmanager
def served(handler: type[BaseHTTPRequestHandler], address: str = LOOPBACK) -> Iterator[str]:
    """Serve on a free port of an address while the context lasts; yield the URL, without a path."""
    server = ThreadingHTTPServer((address, 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(POLL_SECONDS,), daemon=True)
    thread.start()
    try:
        yield f"http://{address}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
