"""The rendered edge with TLS, in its real image, before an upstream that echoes its requests."""

import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import httpx
from docker.models.containers import Container

from infra.catalogue import ports
from infra.catalogue.releases import RELEASES
from infra.edge.context import edge_context
from infra.edge.paths import EDGE_DIRECTORY, KEY_FILE, RUN_DIRECTORY
from infra.edge.render import edge_files
from infra.edge.tls import public_files
from support.configuration import resolved, settings
from support.images import image_of
from support.ports import free_port
from support.stacks import unique, wait_until

ORIGIN = "https://app.example.com"

# Answers with the request it received, as JSON.
UPSTREAM = """
import json, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Telling(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fields = {"path": self.path, "method": self.command, "length": len(body),
                "headers": {name.lower(): value for name, value in self.headers.items()}}
        answer = json.dumps(fields).encode()
        self.send_response(200)
        self.send_header("Strict-Transport-Security", "max-age=1")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
    do_POST = do_PUT = do_OPTIONS = do_GET
    def log_message(self, *args):
        pass
for port in (5001, 5002, 3000):
    threading.Thread(target=ThreadingHTTPServer(("0.0.0.0", port), Telling).serve_forever).start()
"""


@dataclass(kw_only=True)
class TlsEdge:
    """nginx with the files of some settings, and an upstream, in a network of their own."""

    directory: Path
    plain: Mapping[str, Any]
    hidden: Mapping[str, str]

    def __post_init__(self) -> None:
        """Choose unused ports and a unique name."""
        self.http_port, self.https_port = free_port(), free_port()
        self._name = unique("tls")
        self._things: list[Any] = []

    def start(self) -> None:
        """Start both and wait until the edge answers."""
        client = docker.from_env()
        network = client.networks.create(self._name)
        self._things.append(network)
        upstream = client.containers.create(
            image_of("api"), entrypoint=["python3", "-c", UPSTREAM], command=[], name=f"{self._name}-upstream"
        )
        self._things.insert(0, upstream)
        network.connect(upstream, aliases=["api", "web", "plugin-daemon", "api-websocket"])
        upstream.start()
        self.write()
        self.nginx: Container = client.containers.create(
            image_of("nginx"),
            entrypoint=["nginx"],
            command=["-e", "stderr", "-c", f"{EDGE_DIRECTORY}/nginx.conf", "-g", "daemon off;"],
            name=self._name,
            user="101",
            cap_drop=["ALL"],
            network=self._name,
            tmpfs={RUN_DIRECTORY: "mode=0700,uid=101,gid=101"},
            volumes={str(self._config): {"bind": EDGE_DIRECTORY, "mode": "ro"}},
            ports={
                f"{ports.EDGE_HTTP}/tcp": ("127.0.0.1", self.http_port),
                f"{ports.EDGE_HTTPS}/tcp": ("127.0.0.1", self.https_port),
            },
        )
        self._things.insert(0, self.nginx)
        self.nginx.start()
        wait_until(self._answers, seconds=120, what="the edge answers on its port for http")

    def stop(self) -> None:
        """Remove everything."""
        for thing in self._things:
            if isinstance(thing, Container):
                thing.remove(force=True, v=True)
            else:
                thing.remove()

    @property
    def _config(self) -> Path:
        return self.directory / EDGE_DIRECTORY.lstrip("/")

    def write(self) -> None:
        """Render, with the ports of this edge."""
        given = {"httpPort": self.http_port, "httpsPort": self.https_port, "cors": {"v1": [ORIGIN]}}
        found = settings({**given, **self.plain}, self.hidden)
        self.settings = found
        files = edge_files(edge_context(found, RELEASES["1.17.1"]))
        files |= {f"{EDGE_DIRECTORY}/{path}": text for path, text in public_files(found).items()}
        assert found.tls.key is not None
        files[f"{EDGE_DIRECTORY}/{KEY_FILE}"] = resolved({"key": found.tls.key})["key"]
        for path, text in files.items():
            target = self.directory / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
        for made in (self.directory, *self.directory.rglob("*")):
            made.chmod(0o755 if made.is_dir() else 0o444)

    def _answers(self) -> bool:
        if self.nginx.status == "exited":
            raise AssertionError(self.nginx.logs().decode())
        self.nginx.reload()
        # The published port is open before nginx is there: Docker's own proxy accepts.
        if self.nginx.exec_run(["test", "-S", f"{RUN_DIRECTORY}/http.sock"]).exit_code != 0:
            return False
        try:
            with socket.create_connection(("127.0.0.1", self.http_port), timeout=2) as connection:
                connection.sendall(b"GET /healthz HTTP/1.0\r\nHost: nobody\r\n\r\n")
                connection.recv(1)
        except OSError:
            return False
        return self._listening()

    def _listening(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.https_port), timeout=2).close()
        except OSError:
            return False
        return b"signal process started" not in self.nginx.logs()

    @property
    def logs(self) -> str:
        """Everything nginx wrote."""
        return self.nginx.logs().decode(errors="replace")

    def trusting(self) -> ssl.SSLContext:
        """Return a client's context that trusts what the settings say has to be trusted."""
        return ssl.create_default_context(cadata=self.settings.tls.ca)

    def client(self) -> httpx.Client:
        """Return a client of https://localhost that checks the certificate."""
        return httpx.Client(
            base_url=f"https://localhost:{self.https_port}", verify=self.trusting(), timeout=20
        )

    def plain_client(self) -> httpx.Client:
        """Return a client of http://localhost."""
        return httpx.Client(base_url=f"http://localhost:{self.http_port}", timeout=20)
