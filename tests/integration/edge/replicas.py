"""Three replicas of the edge that count as one, as the pods of a StatefulSet are."""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import httpx

from infra.catalogue import ports
from infra.edge.context import EdgeContext
from infra.edge.paths import EDGE_DIRECTORY, RUN_DIRECTORY
from infra.edge.ring import EdgeRing, replica_names
from infra.services.edge import run_script
from support.images import image_of
from tests.integration.edge.container import Edge

COUNT = 3
NAMES = replica_names(COUNT)
KILLED_SECONDS = 20


def as_replicas(context: EdgeContext) -> EdgeContext:
    """Return what the templates read for `COUNT` replicas."""
    return replace(context, ring=EdgeRing(replicas=NAMES))


class Replicas(Edge):
    """An edge of three replicas. `nginx` and `http` are those of the first; `clients` are one for each of them.

    Each container has the host name of a pod. They resolve each other's names once, at their start.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self.replicas: list[Any] = []
        change = options.pop("change", lambda context: context)
        super().__init__(*args, change=lambda context: as_replicas(change(context)), **options)
        self.clients = [httpx.Client(base_url=self.address(index), timeout=20) for index in range(COUNT)]
        for client in self.clients:
            self.wait_for(client)

    def _start_nginx(self, published: tuple[int, ...]) -> Any:
        containers: Any = self.client.containers
        for name in NAMES:
            container = containers.create(
                image_of("nginx"),
                ["sh", "-c", run_script(NAMES)],
                hostname=name,
                user="101",
                cap_drop=["ALL"],
                read_only=True,
                tmpfs={RUN_DIRECTORY: f"size={self.run_megabytes}m,uid=101,mode=0700", "/tmp": ""},  # noqa: S108  # the container's own
                volumes={
                    str(self.directory / EDGE_DIRECTORY.lstrip("/")): {
                        "bind": f"{EDGE_DIRECTORY}/current",
                        "mode": "ro",
                    }
                },
                ports={f"{port}/tcp": ("127.0.0.1", None) for port in published},
                network_mode="none",
            )
            self.things.append(container)
            self.client.networks.get("none").disconnect(container)
            self.network.connect(container, aliases=[name])
            container.start()
            self.replicas.append(container)
        return self.replicas[0]

    def address(self, index: int, internal: int = ports.EDGE_HTTP) -> str:
        """Return where a replica answers."""
        container = self.replicas[index]
        container.reload()
        bound = container.attrs["NetworkSettings"]["Ports"][f"{internal}/tcp"][0]["HostPort"]
        return f"http://localhost:{bound}"

    def wait_for(self, client: httpx.Client) -> None:
        """Wait until a replica answers."""
        deadline = time.monotonic() + KILLED_SECONDS
        last = ""
        while time.monotonic() < deadline:
            try:
                last = str(client.get("/e/200").status_code)
            except httpx.TransportError as problem:
                last = repr(problem)
            if last == "200":
                return
            time.sleep(0.2)
        raise AssertionError(
            f"a replica did not answer within {KILLED_SECONDS} s; last: {last}; {self.logs()}"
        )

    def spread(self, path: str, headers: Mapping[str, str], count: int, *, without: int = -1) -> list[int]:
        """Return the statuses of requests one after another, each to the next replica but `without`."""
        chosen = [client for index, client in enumerate(self.clients) if index != without]
        return [
            chosen[number % len(chosen)].get(path, headers=headers).status_code for number in range(count)
        ]

    def logs(self) -> str:
        """Return the last that each replica wrote."""
        return "\n".join(container.logs(tail=8).decode(errors="replace") for container in self.replicas)
