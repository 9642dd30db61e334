"""How the guards connect to a PostgreSQL server outside of the stack, and what they say where it refuses that."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from infra import hints
from infra.guards.findings import Refusal
from infra.guards.servers import TIMEOUT_SECONDS, address_of, first_line, tls_refusal, unreachable
from infra.settings.external_data import Database
from infra.settings.vector_server import VectorServer

if TYPE_CHECKING:
    import psycopg

PostgresServer = Database | VectorServer


@dataclass(frozen=True, kw_only=True)
class Where:
    """The setting of a server, the one with its password, and the key that names the database."""

    stack: str
    setting: str
    password: str
    key: str

    @property
    def dify(self) -> str:
        """The setting as errors name it."""
        return f"dify:{self.setting}"


@contextmanager
def connected(server: PostgresServer, name: str, roots: str) -> Iterator["psycopg.Connection[Any]"]:
    """Connect as the stack's services do. Nothing can be written."""
    import psycopg  # noqa: PLC0415

    tls: dict[str, Any] = {"sslrootcert": roots} if roots else {}
    with psycopg.connect(
        # The name is compared with the certificate, the address is connected to.
        host=server.server_name if server.tls == "verify-full" else server.host,
        hostaddr=address_of(server),
        port=server.port,
        user=server.user,
        password=server.known_password.text,
        dbname=name,
        sslmode=server.tls,
        connect_timeout=TIMEOUT_SECONDS,
        **tls,
    ) as connection:
        connection.read_only = True
        yield connection


def not_connected(where: Where, server: PostgresServer, name: str, problem: "psycopg.Error") -> Refusal:
    """Return why a server does not let Dify use a database."""
    import psycopg  # noqa: PLC0415

    said = first_line(problem)
    if not isinstance(problem, psycopg.OperationalError):
        return Refusal(
            problem=f"{where.dify}.{where.key}: {name}: user {server.user} cannot read what it may do: {said}",
            fix="see the log of the server",
        )
    # The connection was refused before it was one: libpq has no SQLSTATE then, and only words.
    words = said.lower()
    if "password authentication failed" in words or "no password supplied" in words or "role" in words:
        return Refusal(
            problem=f"{where.dify}.user: {server.user}: {server.address} does not accept it with the password: {said}",
            fix=f"correct the user, or `{hints.assign(where.password, stack=where.stack)}`",
        )
    if "database" in words and "does not exist" in words:
        return Refusal(
            problem=f"{where.dify}.{where.key}: {name}: {server.address} has no such database",
            fix=f'as an administrator of the server: `create database {name} owner "{server.user}"`',
        )
    if "pg_hba" in words or "permission denied" in words:
        return Refusal(
            problem=f"{where.dify}.host: {server.host}: it does not admit user {server.user} to {name}: {said}",
            fix=f"admit this machine in the server's pg_hba.conf or allow list, or change {where.dify}.tls",
        )
    if "ssl" in words or "certificate" in words:
        return tls_refusal(where.setting, server, said)
    return unreachable(where.setting, server, said)
