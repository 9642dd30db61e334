"""Three replicas of the edge, and the owner of the LLM proxy's counts behind them, as on a cluster."""

import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from infra.catalogue import ports
from infra.catalogue.services import LLM_EDGE
from infra.edge import llm as edge_llm
from infra.edge.paths import DRAIN_MARK, EDGE_DIRECTORY, RUN_DIRECTORY, USAGE_DIRECTORY
from infra.edge.render import edge_files
from infra.edge.roles import owning, passing
from infra.platforms.kubernetes.pods import PRE_STOP_SECONDS
from infra.services.edge import run_script
from support.configuration import resolved
from support.images import image_of
from tests.integration.edge.container import Edge
from tests.integration.edge.llm import LlmEdge
from tests.integration.edge.replicas import COUNT, NAMES, as_replicas

READY_SECONDS, STOP_SECONDS = 30, 40
OWNER_DIRECTORY = "/owner"


class OwnedEdge(LlmEdge):
    """The edges and their owner. `clients` are one for each edge; `nginx`, `http` and `url` are those of the first.

    The address of the owner outlives its container, as that of a Service does, and refuses connections meanwhile.
    """

    def __init__(self, directory: Path, **options: Any) -> None:
        self.edges: list[Any] = []
        super().__init__(directory, **options)
        self.clients = [httpx.Client(base_url=self.address(index), timeout=90) for index in range(COUNT)]
        try:
            for client in self.clients:
                self._wait_for(client)
        except BaseException:
            self.remove()
            raise

    def write(self, files: Mapping[str, str]) -> None:
        """Write the files of edges and owner, the private ones for the owner alone."""
        del files
        llm = {
            **resolved(edge_llm.private_files(self.settings.llm)),
            **edge_llm.public_files(self.settings.llm),
        }
        owned = edge_files(owning(self.context)) | {
            f"{EDGE_DIRECTORY}/{path}": text for path, text in llm.items()
        }
        usage = self.directory / "usage"
        usage.mkdir(exist_ok=True)
        passed = edge_files(passing(as_replicas(self.context)))
        Edge.write(self, {**passed, **{f"{OWNER_DIRECTORY}{path}": text for path, text in owned.items()}})
        usage.chmod(0o777)

    def _start_nginx(self, published: tuple[int, ...]) -> Any:
        containers: Any = self.client.containers
        self.place = containers.create(image_of("nginx"), ["sleep", "infinity"], network_mode="none")
        self.things.append(self.place)
        self.client.networks.get("none").disconnect(self.place)
        self.network.connect(self.place, aliases=[LLM_EDGE])
        self.place.start()
        self.start_owner()
        for name in NAMES:
            container = self._create((*NAMES, LLM_EDGE), self.directory, hostname=name, ports=published)
            self.client.networks.get("none").disconnect(container)
            self.network.connect(container, aliases=[name])
            container.start()
            self.edges.append(container)
        return self.edges[0]

    def start_owner(self) -> None:
        """Start an owner. The counts that the one before has saved are its own."""
        self.owner = self._create(
            (),
            self.directory / OWNER_DIRECTORY.lstrip("/"),
            network_mode=f"container:{self.place.id}",
            usage=True,
        )
        self.owner.start()

    def _create(
        self,
        names: tuple[str, ...],
        directory: Path,
        *,
        ports: tuple[int, ...] = (),
        usage: bool = False,
        **more: Any,
    ) -> Any:
        containers: Any = self.client.containers
        current = str(directory / EDGE_DIRECTORY.lstrip("/"))
        mounted = {str(self.directory / "usage"): {"bind": USAGE_DIRECTORY, "mode": "rw"}} if usage else {}
        container = containers.create(
            image_of("nginx"),
            ["sh", "-c", run_script(names)],
            user="101",
            cap_drop=["ALL"],
            read_only=True,
            tmpfs={RUN_DIRECTORY: f"size={self.run_megabytes}m,uid=101,mode=0700", "/tmp": ""},  # noqa: S108  # the container's own
            volumes={current: {"bind": f"{EDGE_DIRECTORY}/current", "mode": "ro"}, **mounted},
            ports={f"{port}/tcp": ("127.0.0.1", None) for port in ports},
            **({"network_mode": "none"} | more),
        )
        self.things.append(container)
        return container

    def stop_owner(self) -> None:
        """End the owner as Kubernetes ends a pod: it serves for some seconds more, and finishes what it has."""
        self.inside("sh", "-c", f"touch {DRAIN_MARK}; sleep {PRE_STOP_SECONDS}")
        self.owner.kill("SIGQUIT")
        self.owner.wait(timeout=STOP_SECONDS)

    def address(self, index: int, internal: int = ports.EDGE_HTTP) -> str:
        """Return where an edge answers."""
        container = self.edges[index]
        container.reload()
        bound = container.attrs["NetworkSettings"]["Ports"][f"{internal}/tcp"][0]["HostPort"]
        return f"http://localhost:{bound}"

    def _wait_for(self, client: httpx.Client) -> None:
        deadline = time.monotonic() + READY_SECONDS
        last = ""
        while time.monotonic() < deadline:
            try:
                # A key is missing: the owner says so.
                last = str(client.get("/llm/v1/models").status_code)
            except httpx.TransportError as problem:
                last = repr(problem)
            if last == "401":
                return
            time.sleep(0.2)
        raise AssertionError(f"an edge did not answer within {READY_SECONDS} s; last: {last}; {self.logs()}")

    def inside(self, *command: str) -> str:
        """Return what a command in the owner's container prints."""
        done = subprocess.run(
            ["docker", "exec", self.owner.id, *command],
            check=True,
            capture_output=True,
            text=True,
            timeout=30,
        )
        return done.stdout + done.stderr

    def entries(self, request_id: str) -> list[str]:
        """Return the lines of all logs about a request."""
        return [
            line
            for container in (*self.edges, self.owner)
            for line in container.logs(stderr=False).decode().splitlines()
            if request_id in line
        ]

    def logged(self, request_id: str) -> str:
        """Return the line that the logs have for a request; it comes just after the answer."""
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if found := self.entries(request_id):
                return found[-1]
            time.sleep(0.1)
        raise AssertionError(f"no entry of {request_id} within {READY_SECONDS} s")

    def logs(self) -> str:
        """Return the last that each container wrote."""
        return "\n".join(one.logs(tail=8).decode(errors="replace") for one in (*self.edges, self.owner))
