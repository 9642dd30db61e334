"""TLS of the environment as a client sees it: trusted authorities, the certificate, refused versions."""

import os
import socket
import ssl
import struct
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

import httpx
from cryptography import x509

from smoke_tests.client import CONNECT_SECONDS, VisitError

HTTPS_PORT = 443
HANDSHAKE = 22
VERSIONS = {"1.0": 0x0301, "1.1": 0x0302, "1.2": 0x0303}
# Ciphers of servers of these versions, with and without forward secrecy.
CIPHERS = (0xC013, 0xC014, 0xC009, 0xC00A, 0xC02F, 0xC02B, 0x002F, 0x0035)
GROUPS = (0x001D, 0x0017, 0x0018)
SIGNATURES = (0x0403, 0x0401, 0x0804, 0x0201, 0x0203)


def trust(ca: str, *, verify: bool) -> ssl.SSLContext:
    """Return a context that verifies certificates with the system's authorities and those of `ca` (PEM, or empty)."""
    if not verify:
        return httpx.create_ssl_context(verify=False)
    context = httpx.create_ssl_context()
    if ca:
        context.load_verify_locations(cadata=ca)
    return context


@dataclass(frozen=True, kw_only=True)
class Served:
    """A server's certificate and the parameters of the connection."""

    expires: datetime
    version: str


def served(url: str, context: ssl.SSLContext) -> Served:
    """Return a server's certificate that `context` verifies for its host. Raises VisitError otherwise."""
    host, port = _address(url)
    try:
        with (
            socket.create_connection((host, port), timeout=CONNECT_SECONDS, all_errors=True) as plain,
            context.wrap_socket(plain, server_hostname=host) as connection,
        ):
            der, version = connection.getpeercert(binary_form=True), connection.version()
    except ssl.SSLCertVerificationError as problem:
        raise VisitError(
            f"{url}: its certificate is not trusted: {problem.verify_message}. Give a private CA with --ca-file"
        ) from None
    except ExceptionGroup as tried:
        # One for each address of the host: the last alone may concern IPv6 on a machine without it.
        errors = "; ".join(f"{type(problem).__name__}: {problem}" for problem in tried.exceptions)
        raise VisitError(f"{url}: {errors}") from None
    except OSError as problem:
        raise VisitError(f"{url}: {type(problem).__name__}: {problem}") from None
    if der is None:
        raise VisitError(f"{url}: the server sends no certificate")
    return Served(
        expires=x509.load_der_x509_certificate(der).not_valid_after_utc, version=version or "no version"
    )


def answer_to_old_hello(url: str, version: str) -> str:
    """Offer no newer version than TLS `version`; return the version the server accepts, empty when it refuses.

    Written by hand: current libraries no longer offer these versions.
    """
    host, port = _address(url)
    with socket.create_connection((host, port), timeout=CONNECT_SECONDS) as connection:
        connection.sendall(_hello(host, VERSIONS[version]))
        try:
            head = connection.recv(11)
        except (ConnectionResetError, TimeoutError):
            return ""
    # A record of 5 bytes, then type and length of the handshake in 4, then the version.
    if len(head) < 11 or head[0] != HANDSHAKE:  # explained above
        return ""
    number = struct.unpack("!H", head[9:11])[0]
    return next((name for name, one in VERSIONS.items() if one == number), hex(number))


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or HTTPS_PORT


def _hello(host: str, version: int) -> bytes:
    name = host.encode("idna")
    server_name = struct.pack("!HBH", len(name) + 3, 0, len(name)) + name
    extensions = b"".join(
        struct.pack("!HH", number, len(content)) + content
        for number, content in (
            (0x0000, server_name),
            (0x000A, _listed(GROUPS)),
            (0x000B, b"\x01\x00"),
            (0x000D, _listed(SIGNATURES)),
            (0xFF01, b"\x00"),
        )
    )
    body = struct.pack("!H", version) + os.urandom(32) + b"\x00" + _listed(CIPHERS) + b"\x01\x00"
    body += struct.pack("!H", len(extensions)) + extensions
    handshake = b"\x01" + struct.pack("!I", len(body))[1:] + body
    return struct.pack("!BHH", HANDSHAKE, VERSIONS["1.0"], len(handshake)) + handshake


def _listed(numbers: tuple[int, ...]) -> bytes:
    return struct.pack("!H", 2 * len(numbers)) + b"".join(struct.pack("!H", number) for number in numbers)
