"""A Weaviate outside of a stack: a real one, built from its Go module, by TLS alone and with a private CA."""

import secrets
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import httpx

from dify_kit.setup.base_images import BASE
from dify_kit.setup.go_build import GoBuild, Part, build_all
from support.certificates import Pair, issue
from support.ports import free_port
from support.stacks import unique
from tests.integration.bridge import bridge

VERSION = "1.27.0"
NAME = "weaviate.outside.test"
START_SECONDS = 120
BUILD = GoBuild(
    name=f"Weaviate {VERSION}",
    folder="servers",
    version=f"weaviate-{VERSION}",
    sources=Path(__file__).parent / "modules",
    parts=(
        Part(
            module="weaviate",
            package="github.com/weaviate/weaviate/cmd/weaviate-server",
            program="weaviate-server",
        ),
    ),
)
_COMMAND = (
    "/program/weaviate-server --host 127.0.0.1 --port 8080 --scheme https --tls-host 0.0.0.0 --tls-port 8443 "
    "--tls-certificate /given/weaviate.pem --tls-key /given/weaviate.key"
)

Docker = Any  # docker's models are not typed


@dataclass(kw_only=True)
class Weaviate:
    """The server, published on an address that this machine and containers reach. `directory` is open to it."""

    directory: Path
    address: str = field(default_factory=bridge)
    key: str = field(default_factory=lambda: secrets.token_hex(16))
    reader: str = field(default_factory=lambda: secrets.token_hex(16))
    name: str = field(default_factory=lambda: unique("weaviate"))
    ca: Pair = field(default_factory=lambda: issue(ca=True, name="vectors"))

    def __post_init__(self) -> None:
        """Choose two ports."""
        self.client: Docker = docker.from_env(timeout=60)
        self.port = free_port(self.address)
        self.grpc_port = free_port(self.address)

    @property
    def ca_file(self) -> Path:
        """The file with the CA."""
        return self.directory / "ca.pem"

    @property
    def setting(self) -> dict[str, Any]:
        """The setting `dify:vectorServer` for it."""
        return {
            "host": self.address,
            "port": self.port,
            "grpcPort": self.grpc_port,
            "serverName": NAME,
            "caFile": str(self.ca_file),
        }

    def start(self) -> None:
        """Build what is missing, start the server, and wait until it is ready."""
        build_all([BUILD])
        self.ca_file.write_text(self.ca.pem, encoding="ascii")
        pair = issue([NAME], issuer=self.ca)
        (self.directory / "weaviate.pem").write_text(pair.pem, encoding="ascii")
        (self.directory / "weaviate.key").write_text(pair.key_pem, encoding="ascii")
        # The container is of this test alone, and its user is another one.
        (self.directory / "weaviate.key").chmod(0o644)
        self.client.containers.run(
            BASE,
            ["sh", "-c", f"exec {_COMMAND}"],
            name=self.name,
            environment={
                "PERSISTENCE_DATA_PATH": "/tmp/data",  # noqa: S108  # in its container
                "AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED": "false",
                "AUTHENTICATION_APIKEY_ENABLED": "true",
                "AUTHENTICATION_APIKEY_ALLOWED_KEYS": f"{self.key},{self.reader}",
                "AUTHENTICATION_APIKEY_USERS": "dify,reader",
                "AUTHORIZATION_ADMINLIST_ENABLED": "true",
                "AUTHORIZATION_ADMINLIST_USERS": "dify",
                "AUTHORIZATION_ADMINLIST_READONLY_USERS": "reader",
                "DISABLE_TELEMETRY": "true",
                "CLUSTER_HOSTNAME": "node1",
                "GRPC_PORT": "50051",
                "GRPC_CERT_FILE": "/given/weaviate.pem",
                "GRPC_KEY_FILE": "/given/weaviate.key",
            },
            volumes={
                str(self.directory): {"bind": "/given", "mode": "ro"},
                str(BUILD.directory): {"bind": "/program", "mode": "ro"},
            },
            ports={"8443/tcp": (self.address, self.port), "50051/tcp": (self.address, self.grpc_port)},
            detach=True,
        )
        self._wait()

    def remove(self) -> None:
        """Remove it, with its data."""
        with suppress(docker.errors.NotFound):
            self.client.containers.get(self.name).remove(force=True, v=True)

    def _wait(self) -> None:
        deadline, said = time.monotonic() + START_SECONDS, ""
        trusted = ssl.create_default_context(cadata=self.ca.pem)
        # The address is not in the certificate.
        trusted.check_hostname = False
        while time.monotonic() < deadline:
            try:
                answer = httpx.get(
                    f"https://{self.address}:{self.port}/v1/.well-known/ready", verify=trusted, timeout=5
                )
            except httpx.HTTPError as problem:
                said = repr(problem)
            else:
                if answer.is_success:
                    return
                said = f"status {answer.status_code}"
            time.sleep(0.5)
        logs = self.client.containers.get(self.name).logs(tail=20).decode()
        raise AssertionError(f"Weaviate did not start: {said}\n{logs}")
