"""A PostgreSQL and a Redis outside of a stack: by TLS alone, with certificates of a private CA, and with users."""

import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker

from support.certificates import Pair, issue
from support.images import image_of
from support.ports import free_port
from tests.integration.bridge import bridge

START_SECONDS = 120
DATABASE_NAME, REDIS_NAME = "db.outside.test", "redis.outside.test"
# Everything that Dify does, and nothing that changes the server.
ACL = "~* &* +@all -@admin -@dangerous +info +keys"
_POSTGRES = """
install -o postgres -g postgres -m 0600 /given/database.key /run/postgresql/server.key
exec entrypoint.sh postgres -c ssl=on -c ssl_cert_file=/given/database.pem -c ssl_key_file=/run/postgresql/server.key
"""
_REDIS = """
port 0
tls-port 6379
tls-cert-file /given/redis.pem
tls-key-file /given/redis.key
tls-auth-clients no
user default off
user dify on >{password} {acl}
user reader on >{password} ~* &* +@read +ping +info +select
"""

Docker = Any  # docker's models are not typed


@dataclass(kw_only=True)
class DataServers:
    """Both servers, published on an address that this machine and containers reach. `directory` is open to them."""

    directory: Path
    address: str = field(default_factory=bridge)
    password: str = field(default_factory=lambda: secrets.token_hex(16))
    prefix: str = field(default_factory=lambda: f"dify-external-{secrets.token_hex(3)}")
    ca: Pair = field(default_factory=lambda: issue(ca=True, name="data services"))

    def __post_init__(self) -> None:
        """Choose two ports."""
        self.client: Docker = docker.from_env(timeout=60)
        self.database_port, self.redis_port = free_port(self.address), free_port(self.address)

    @property
    def ca_file(self) -> Path:
        """The file with the CA."""
        return self.directory / "ca.pem"

    @property
    def database(self) -> dict[str, Any]:
        """The setting `dify:database` for the server."""
        return {
            "host": self.address,
            "port": self.database_port,
            "serverName": DATABASE_NAME,
            "caFile": str(self.ca_file),
        }

    @property
    def redis(self) -> dict[str, Any]:
        """The setting `dify:redis` for the server."""
        return {
            "host": self.address,
            "port": self.redis_port,
            "user": "dify",
            "serverName": REDIS_NAME,
            "caFile": str(self.ca_file),
        }

    @property
    def vectors(self) -> dict[str, Any]:
        """The setting `dify:vectorServer` for pgvector on the same PostgreSQL."""
        return {**self.database, "user": "dify", "database": "vectors"}

    def start(self) -> None:
        """Start both, with the databases and users of Dify."""
        self.ca_file.write_text(self.ca.pem, encoding="ascii")
        for name, host in (("database", DATABASE_NAME), ("redis", REDIS_NAME)):
            pair = issue([host], issuer=self.ca)
            (self.directory / f"{name}.pem").write_text(pair.pem, encoding="ascii")
            (self.directory / f"{name}.key").write_text(pair.key_pem, encoding="ascii")
            # The containers are of this test alone, and their users are others.
            (self.directory / f"{name}.key").chmod(0o644)
        (self.directory / "password").write_text(self.password, encoding="ascii")
        config = _REDIS.format(password=self.password, acl=ACL)
        (self.directory / "redis.conf").write_text(config, encoding="ascii")
        self._run(
            "postgres",
            ["bash", "-c", _POSTGRES],
            (5432, self.database_port),
            POSTGRES_USER="postgres",
            POSTGRES_PASSWORD_FILE="/given/password",  # a path
            PGDATA="/var/lib/postgresql/data/pgdata",
        )
        self._run("redis", ["redis-server", "/given/redis.conf"], (6379, self.redis_port))
        self._wait()
        for statement in (
            f"create role dify login password '{self.password}'",
            f"create role poor login password '{self.password}'",
            "create database dify owner dify",
            "create database dify_plugin owner dify",
            "create database vectors owner dify",
            "create database plain",
        ):
            self.sql(statement)
        # Debian's package does not let the owner of a database do it.
        self.sql("create extension vector", "vectors")

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Return what the administrator's psql prints for a statement."""
        command = [
            "psql",
            "-h",
            "127.0.0.1",
            "-U",
            "postgres",
            "-d",
            database,
            "-v",
            "ON_ERROR_STOP=1",
            "-tAc",
        ]
        done = self.client.containers.get(f"{self.prefix}-postgres").exec_run(
            [*command, statement], environment={"PGPASSWORD": self.password}
        )
        assert done.exit_code == 0, done.output.decode()
        return str(done.output.decode().strip())

    def remove(self) -> None:
        """Remove both, with their volumes."""
        deadline = time.monotonic() + START_SECONDS
        # A busy engine now and then reports that a container has not ended yet.
        while found := self.client.containers.list(all=True, filters={"name": self.prefix}):
            for one in found:
                try:
                    one.remove(force=True, v=True)
                except docker.errors.APIError:
                    if time.monotonic() > deadline:
                        raise
            time.sleep(0.5)

    def _run(self, role: str, command: list[str], port: tuple[int, int], **environment: str) -> None:
        inside, outside = port
        self.client.containers.run(
            image_of(role),
            command if role == "redis" else None,
            entrypoint=None if role == "redis" else command,
            name=f"{self.prefix}-{role}",
            environment=environment,
            volumes={str(self.directory): {"bind": "/given", "mode": "ro"}},
            ports={f"{inside}/tcp": (self.address, outside)},
            detach=True,
        )

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        said = ""
        while time.monotonic() < deadline:
            try:
                if self.sql("select 1") == "1":
                    return
            except (AssertionError, docker.errors.APIError) as problem:
                said = str(problem)
            time.sleep(0.5)
        raise AssertionError(f"the database did not start: {said}")
