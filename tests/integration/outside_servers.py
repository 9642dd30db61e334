"""Servers outside of a company's network: one by TLS, one by plain HTTP. It runs inside a container, by itself.

Its argument is JSON, `{"certificate", "key", "tls", "plain", "documents"}`: paths of PEM files, two ports, and the
bodies of some paths. Every other path answers with its own name.
"""

import json
import ssl
import sys
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

EVERYWHERE = "0.0.0.0"  # noqa: S104  # inside its container


class Page(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    documents: ClassVar[Mapping[str, Any]] = {}

    def do_GET(self) -> None:
        """Answer with a document, or with the path."""
        body = json.dumps(self.documents.get(self.path, self.path)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    """Serve until the container stops."""
    told = json.loads(sys.argv[1])
    Page.documents = told["documents"]
    secure = ThreadingHTTPServer((EVERYWHERE, told["tls"]), Page)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(told["certificate"], told["key"])
    secure.socket = context.wrap_socket(secure.socket, server_side=True)
    threading.Thread(target=secure.serve_forever, daemon=True).start()
    ThreadingHTTPServer((EVERYWHERE, told["plain"]), Page).serve_forever()


if __name__ == "__main__":
    main()
