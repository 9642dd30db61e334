"""A stand-in for an LLM's provider that a deployed stack and this machine reach under one name, over TLS."""

import json
import secrets
import socket
from pathlib import Path
from typing import Any

import docker

from support import llm_upstream
from support.certificates import issue
from support.images import image_of
from support.ports import free_port
from support.stacks import Stack


class Provider:
    """The stand-in, which takes two keys: the one in use and the one that comes after it.

    Its name is this machine's own: `dify-kit keys` reaches it there by a published port, and nginx in the stack's
    network, where the container has the same name and port. `directory` is readable by others.
    """

    def __init__(self, directory: Path) -> None:
        self.keys = [f"sk-stack-{secrets.token_urlsafe(30)}" for _ in range(2)]
        self._removed = False
        self.host, self.port = socket.gethostname().lower(), free_port()
        self.ca_file = directory / "ca.pem"
        authority = issue(ca=True, name="test CA of a provider")
        pair = issue([self.host], issuer=authority)
        self.ca_file.write_text(authority.pem, encoding="ascii")
        upstream = {
            "name": "provider",
            "port": self.port,
            "secrets": self.keys,
            "certificate": "/upstreams/provider.pem",
            "key": "/upstreams/provider.key",
        }
        for name, text in (
            ("provider.pem", pair.pem),
            ("provider.key", pair.key_pem),
            # In a file: what is an argument shows in the list of processes.
            ("told.json", json.dumps({"verifier": 0, "upstreams": [upstream]})),
        ):
            (directory / name).write_text(text, encoding="ascii")
            (directory / name).chmod(0o644)
        program = Path(llm_upstream.__file__).read_text(encoding="utf-8")
        containers: Any = docker.from_env().containers  # the types of the library know no address of a port
        self.container = containers.run(
            image_of("api"),
            entrypoint=["python3", "-c", program],
            command=["@/upstreams/told.json"],
            volumes={str(directory): {"bind": "/upstreams", "mode": "ro"}},
            ports={f"{self.port}/tcp": (socket.gethostbyname(self.host), self.port)},
            detach=True,
        )

    @property
    def settings(self) -> dict[str, Any]:
        """What `dify:llm.upstreams` says about it."""
        return {
            "baseUrl": f"https://{self.host}:{self.port}/v1",
            "caFile": str(self.ca_file),
            "timeoutSeconds": 10,
        }

    def join(self, stack: Stack) -> None:
        """Be found by the stack's nginx."""
        network = docker.from_env().networks.get(f"dify-{stack.name}-app")
        network.connect(self.container, aliases=[self.host])

    def remove(self) -> None:
        """Remove it, if it is still there."""
        if not self._removed:
            self._removed = True
            self.container.remove(force=True)
