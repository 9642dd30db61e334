"""The two stream proxies of a stack with an external vector store, with the files that the stack would give them."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import httpx

from infra.catalogue import networks, ports
from infra.catalogue.data_services import DATA_EGRESS, DATA_PROXY
from infra.catalogue.services import SERVICES
from infra.services.specs import spec
from infra.settings.stack import Settings
from support.images import image_of
from support.stacks import unique

START_SECONDS = 60
ENGINE_SECONDS = 60
Docker = Any  # docker's models are not typed


@dataclass(kw_only=True)
class VectorProxies:
    """Both proxies on networks of their own. This machine reaches the first one, as a client of the stack does."""

    directory: Path
    settings: Settings
    prefix: str = field(default_factory=lambda: unique("vectors"))

    def __post_init__(self) -> None:
        """Connect to the engine."""
        self.client: Docker = docker.from_env(timeout=ENGINE_SECONDS)
        self.networks: dict[str, Docker] = {}
        self.containers: dict[str, Docker] = {}

    def start(self) -> "VectorProxies":
        """Start both, and wait until the first one answers for the second."""
        for name in (networks.DATA, networks.DATA_PROXY, networks.DATA_EGRESS):
            internal = networks.NETWORKS[name].internal
            self.networks[name] = self.client.networks.create(f"{self.prefix}-{name}", internal=internal)
        for name in (DATA_EGRESS, DATA_PROXY):
            self._start(name)
        deadline = time.monotonic() + START_SECONDS
        said = ""
        while time.monotonic() < deadline:
            try:
                httpx.get(f"{self.url}/", timeout=5)
            except httpx.HTTPError as problem:
                said = repr(problem)
                time.sleep(0.3)
            else:
                return self
        raise AssertionError(f"the proxies did not start: {said}\n{self.logs(DATA_EGRESS)}")

    @property
    def address(self) -> str:
        """The address at which the stack's services find the first proxy."""
        return self.address_of(DATA_PROXY, networks.DATA)

    def address_of(self, name: str, network: str) -> str:
        """Return the address of a proxy in a network."""
        self.containers[name].reload()
        joined = self.containers[name].attrs["NetworkSettings"]["Networks"]
        return str(joined[f"{self.prefix}-{network}"]["IPAddress"])

    @property
    def url(self) -> str:
        """Where the store answers by HTTP."""
        return f"http://{self.address}:{ports.VECTOR_SERVER}"

    def logs(self, name: str) -> str:
        """Return what a proxy has said."""
        return str(self.containers[name].logs(tail=20).decode())

    def remove(self) -> None:
        """Remove both, and their networks."""
        for container in self.containers.values():
            container.remove(force=True, v=True)
        for network in self.networks.values():
            network.remove()

    def _start(self, name: str) -> None:
        described = spec(name, self.settings, self.settings.dify)
        mounts = {}
        for number, file in enumerate(described.files):
            source = self.directory / f"{name}-{number}"
            source.write_text(str(file.content), encoding="ascii")
            source.chmod(0o644)
            mounts[str(source)] = {"bind": file.path, "mode": "ro"}
        entrypoint = SERVICES[name].entrypoint
        assert entrypoint
        container = self.client.containers.create(
            image_of("nginx"),
            entrypoint=list(entrypoint),
            command=[],
            name=f"{self.prefix}-{name}",
            user=described.user,
            cap_drop=["ALL"],
            volumes=mounts,
            network_mode="none",
        )
        self.containers[name] = container
        self.client.networks.get("none").disconnect(container)
        for network in described.networks:
            self.networks[network].connect(container, aliases=[name])
        container.start()
