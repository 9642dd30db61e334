"""What the guards of external servers share: how one is reached and verified, and what is said about it."""

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.guards.findings import Refusal
from infra.settings.external_data import Server
from infra.settings.roots import public_roots

# A server on a busy machine takes seconds to accept a connection.
TIMEOUT_SECONDS = 15
UNREACHABLE = "is unreachable from this machine"


def address_of(server: Server) -> str:
    """Return an address of the server; empty where there is none, which connecting reports."""
    try:
        return str(socket.getaddrinfo(server.host, server.port, socket.AF_INET, socket.SOCK_STREAM)[0][4][0])
    except OSError:
        return ""


def tls_refusal(setting: str, server: Server, said: str) -> Refusal:
    """Return the refusal of a server whose TLS fails. `said` are the words of the library."""
    words = said.lower()
    if "does not match" in words or "mismatch" in words:
        return Refusal(
            problem=f"dify:{setting}.serverName: {server.server_name}: the certificate of {server.address} has other "
            f"names: {said}",
            fix=f"set dify:{setting}.serverName to a name in the certificate",
        )
    if "verify failed" in words:
        return Refusal(
            problem=f"dify:{setting}.caFile: the certificate of {server.address} is not of "
            f"{'the CA in that file' if server.ca else 'a public authority'}: {said}",
            fix=f"set dify:{setting}.caFile to the root certificate of the server's CA",
        )
    return Refusal(
        problem=f"dify:{setting}.tls: {server.address} does not use TLS as the setting requires: {said}",
        fix=f"turn TLS on at the server, or change dify:{setting}.tls",
    )


def unreachable(setting: str, server: Server, said: str) -> Refusal:
    """Return the refusal of a server that does not answer. `said` are the words of the library."""
    return Refusal(
        problem=f"dify:{setting}.host: {server.host}: port {server.port} {UNREACHABLE}: {said}",
        fix=f"correct dify:{setting}.host and dify:{setting}.port, or open the way to the server",
    )


@contextmanager
def roots_file(server: Server, *, wanted: bool) -> Iterator[str]:
    """Write what the server is verified with to a file for the time of a check; empty where nothing is verified."""
    if not wanted:
        yield ""
        return
    handle, path = tempfile.mkstemp(prefix="dify-kit-", suffix=".pem")
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(server.ca or public_roots())
        yield path
    finally:
        Path(path).unlink()


def first_line(problem: Exception) -> str:
    """Return the first line of what a library says. Neither of them repeats a password there."""
    lines = str(problem).strip().splitlines()
    return lines[0] if lines else type(problem).__name__
