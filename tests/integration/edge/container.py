"""nginx with rendered files, and the upstream behind it, in a network of their own."""

import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import docker
import httpx

from infra.catalogue import ports
from infra.catalogue.releases import RELEASES
from infra.catalogue.route_groups import cors_groups
from infra.edge.context import EdgeContext, edge_context
from infra.edge.paths import EDGE_DIRECTORY, RUN_DIRECTORY, RUN_MEGABYTES
from infra.edge.render import edge_files
from infra.settings.gate import Gate
from infra.settings.oauth import OAuth
from support.configuration import settings
from support.images import image_of
from support.stacks import unique
from tests.integration.edge import upstream

# The route groups with CORS settings, each with its prefix.
GROUPS: Mapping[str, str] = MappingProxyType(
    {
        route.group: route.prefix
        for route in next(iter(RELEASES.values())).routes
        if route.group in cors_groups()
    }
)
ALLOWED = "https://app.example.com"
PLAIN: Mapping[str, Any] = MappingProxyType(
    {
        "cors": {group: [ALLOWED] for group in GROUPS},
        "maxUploadMegabytes": 1,
        "serverNames": ["dify.test"],
    }
)
START_SECONDS = 30
LOG_SECONDS = 10
SOCKET_SECONDS = 10


@dataclass(frozen=True, kw_only=True)
class Raw:
    """What came back over a socket: everything, and its first answer in parts. Status 0: no answer."""

    everything: bytes

    @property
    def status(self) -> int:
        """The status of the first answer."""
        words = self.everything.split(b" ", 2)
        return int(words[1]) if self.everything.startswith(b"HTTP/") else 0

    @property
    def statuses(self) -> list[int]:
        """The statuses of all answers, as far as they start a line."""
        lines = self.everything.split(b"\r\n")
        return [int(line.split(b" ")[1]) for line in lines if line.startswith(b"HTTP/1.")]

    @property
    def response(self) -> httpx.Response:
        """The first answer as httpx has it."""
        head, _, body = self.everything.partition(b"\r\n\r\n")
        _, *lines = head.decode("latin-1").split("\r\n")
        pairs = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
        return httpx.Response(self.status, headers=pairs, content=body)


class Edge:
    """An edge for tests. `plain` are settings, `change` may alter what the templates read.

    With `oauth` or `gate` there has to be a gateway on `network`, whenever one is wanted.

    `directory` has to be readable by others: nginx runs as another user. `program` is what runs as the upstream.
    """

    program = Path(upstream.__file__)
    run_megabytes = RUN_MEGABYTES

    def __init__(
        self,
        directory: Path,
        plain: Mapping[str, Any] = PLAIN,
        *,
        change: Callable[[EdgeContext], EdgeContext] = lambda context: context,
        oauth: OAuth | None = None,
        gate: Gate | None = None,
        published: tuple[int, ...] = (ports.EDGE_HTTP,),
    ) -> None:
        self.client = docker.from_env()
        self.name = unique("edge")
        self.directory = directory
        self.things: list[Any] = []
        self.network = self.client.networks.create(self.name)
        try:
            self.upstream = self.start_upstream()
            found = replace(settings(plain), oauth=oauth, oidc_gate=gate)
            self.context = change(edge_context(found, RELEASES[found.release]))
            self.write(edge_files(self.context))
            self.nginx = self._start_nginx(published)
            self.port_number = self.port()
            self.http = httpx.Client(base_url=self.url, timeout=20)
            self.wait()
        except BaseException:
            self.remove()
            raise

    @property
    def url(self) -> str:
        """Where the edge answers by plain HTTP."""
        return f"http://localhost:{self.port()}"

    def port(self, internal: int = ports.EDGE_HTTP) -> int:
        """Return the port on this machine behind which nginx listens on `internal`."""
        self.nginx.reload()
        return int(self.nginx.attrs["NetworkSettings"]["Ports"][f"{internal}/tcp"][0]["HostPort"])

    def start_upstream(self) -> Any:
        """Start the upstream under the names of Dify's services."""
        program = self.program.read_text(encoding="utf-8")
        container = self.client.containers.create(
            image_of("api"), entrypoint=["python3", "-c", program], command=[], network_mode="none"
        )
        self.things.append(container)
        self.client.networks.get("none").disconnect(container)
        self.network.connect(container, aliases=["api", "web", "plugin-daemon", "api-websocket"])
        container.start()
        return container

    def write(self, files: Mapping[str, str]) -> None:
        """Write files as they lie in nginx's container."""
        for path, text in files.items():
            target = self.directory / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
        for found in (self.directory, *self.directory.rglob("*")):
            found.chmod(0o755 if found.is_dir() else 0o644)

    def volumes(self) -> dict[str, dict[str, str]]:
        """Return what nginx's container mounts."""
        return {str(self.directory / EDGE_DIRECTORY.lstrip("/")): {"bind": EDGE_DIRECTORY, "mode": "ro"}}

    def command(self) -> list[str]:
        """Return what runs in nginx's container."""
        return ["nginx", "-e", "stderr", "-c", f"{EDGE_DIRECTORY}/nginx.conf", "-g", "daemon off;"]

    def _start_nginx(self, published: tuple[int, ...]) -> Any:
        # Any: the types of the library know no port that the engine chooses.
        containers: Any = self.client.containers
        container = containers.run(
            image_of("nginx"),
            self.command(),
            user="101",
            cap_drop=["ALL"],
            read_only=True,
            tmpfs={RUN_DIRECTORY: f"size={self.run_megabytes}m,uid=101,mode=0700", "/tmp": ""},  # noqa: S108  # the container's own
            volumes=self.volumes(),
            ports={f"{port}/tcp": ("127.0.0.1", None) for port in published},
            network=self.name,
            detach=True,
        )
        self.things.append(container)
        return container

    def wait(self) -> None:
        """Wait until upstream answers through the edge."""
        deadline = time.monotonic() + START_SECONDS
        last = "nothing"
        while time.monotonic() < deadline:
            try:
                last = str(self.http.get("/e/200").status_code)
            except httpx.TransportError as problem:
                last = repr(problem)
            if last == "200":
                return
            time.sleep(0.3)
        raise AssertionError(f"the edge did not come up; last: {last}; {self.nginx.logs().decode()[-2000:]}")

    def raw(self, sent: bytes, *, seconds: float = SOCKET_SECONDS) -> Raw:
        """Send bytes as they are and read until the edge closes, resets, or says nothing for `seconds`."""
        received = b""
        with socket.create_connection(("127.0.0.1", self.port_number), timeout=seconds) as stream:
            try:
                stream.sendall(sent)
                while piece := stream.recv(65536):
                    received += piece
            except (ConnectionError, TimeoutError):
                # It may answer and close before it has read everything, or wait for more.
                pass
        return Raw(everything=received)

    def announce(self, path: str, headers: Mapping[str, str], length: int) -> httpx.Response:
        """Announce a body of `length` bytes without sending it, and return the answer."""
        host = self.url.removeprefix("http://")
        lines = [f"POST {path} HTTP/1.1", f"Host: {host}", f"Content-Length: {length}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return self.raw(("\r\n".join(lines) + "\r\n\r\n").encode()).response

    def logged(self, request_id: str) -> str:
        """Return the line that the log has for a request; it comes just after the answer."""
        deadline = time.monotonic() + LOG_SECONDS
        while time.monotonic() < deadline:
            for line in reversed(self.nginx.logs(stderr=False).decode().splitlines()):
                if request_id in line:
                    return str(line)
            time.sleep(0.1)
        raise AssertionError(f"no entry of {request_id} within {LOG_SECONDS} s")

    def remove(self) -> None:
        """Remove everything."""
        for container in self.things:
            container.remove(force=True)
        self.network.remove()
