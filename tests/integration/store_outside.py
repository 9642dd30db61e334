"""A server outside of a stack with the answers of Qdrant, by TLS, that keeps what it was asked."""

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from support.certificates import Pair

VERSION = "1.8.3"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request: its words, the headers that count, the size of its body, and the client's port."""

    method: str
    path: str
    host: str
    key: str
    size: int
    peer: int


@dataclass(kw_only=True)
class StoreOutside:
    """The server at an address of this machine. `idle_seconds` ends a connection without requests."""

    address: str
    port: int
    key: str
    idle_seconds: float = 30
    asked: list[Asked] = field(default_factory=list)
    collections: set[str] = field(default_factory=set)

    @contextmanager
    def serving(self, pair: Pair, directory: Path) -> Iterator["StoreOutside"]:
        """Serve with a certificate."""
        certificate, key = directory / "store.pem", directory / "store.key"
        certificate.write_text(pair.pem, encoding="ascii")
        key.write_text(pair.key_pem, encoding="ascii")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        store = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = store.idle_seconds

            def setup(self) -> None:
                # In the thread of the connection: a slow client delays no other.
                self.request = context.wrap_socket(self.request, server_side=True)
                super().setup()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                store.asked.append(
                    Asked(
                        method=self.command,
                        path=self.path,
                        host=self.headers.get("Host", ""),
                        key=self.headers.get("api-key", ""),
                        size=len(body),
                        peer=self.client_address[1],
                    )
                )
                status, found = store.found(self.command, self.path, self.headers.get("api-key", ""))
                text = json.dumps(found).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_PUT = do_POST = do_DELETE = answer  # noqa: N815  # as the base class calls them

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Say nothing: some clients do not accept the certificate."""

        with Server((self.address, self.port), Handler) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()

    def found(self, method: str, path: str, key: str) -> tuple[int, object]:
        """Return status and document."""
        if path == "/":
            return 200, {"title": "qdrant - vector search engine", "version": VERSION}
        if key != self.key:
            return 401, "Must provide an API key or an Authorization bearer token"
        _, _, name = path.removeprefix("/").partition("/")
        if method == "PUT" and name:
            self.collections.add(name.split("/")[0])
        if method == "DELETE":
            self.collections.discard(name)
        listed = [{"name": one} for one in sorted(self.collections)]
        return 200, {"result": {"collections": listed} if path == "/collections" else True, "status": "ok"}
