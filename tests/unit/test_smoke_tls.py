"""The smoke tests of TLS, each against a correct server and a defective one."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from smoke_tests import test_tls as smoke
from smoke_tests.client import VisitError
from smoke_tests.target import Target, from_exports
from smoke_tests.tls import answer_to_old_hello, served, trust
from support.certificates import DAY, Pair, issue
from tests.unit.test_smoke_target import EXPORTS, chosen

CA = issue(ca=True, name="ca")
TLS = {"mode": "files", "httpsPort": 8443.0, "redirect": True, "hstsSeconds": 300.0, "ca": CA.pem}


@contextmanager
def server(pair: Pair, directory: Path, *, oldest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2) -> Iterator[str]:
    """Serve greetings with a certificate, and nothing after them; yield the origin."""
    (directory / "chain.pem").write_text(pair.pem)
    (directory / "key.pem").write_text(pair.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "chain.pem", directory / "key.pem")
    if oldest < ssl.TLSVersion.TLSv1_2:
        context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = oldest
    listener = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            try:
                with context.wrap_socket(plain, server_side=True) as connection:
                    connection.recv(1)
            except OSError:
                plain.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"https://localhost:{listener.getsockname()[1]}"
    finally:
        stop.set()
        # Closing alone does not wake accept.
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(timeout=5)


def leaf(**more: Any) -> Pair:
    return issue(["localhost"], issuer=CA, **more)


def test_right_certificate_is_trusted_with_its_authority_alone(tmp_path: Path) -> None:
    pair = leaf()
    with server(pair, tmp_path) as url:
        assert served(url, trust(CA.pem, verify=True)).expires == pair.certificate.not_valid_after_utc
        with pytest.raises(VisitError, match=r"not trusted.*--ca-file"):
            served(url, trust("", verify=True))
        assert served(url, trust("", verify=False)).expires == pair.certificate.not_valid_after_utc


def test_certificate_for_another_host_is_not_trusted(tmp_path: Path) -> None:
    with (
        server(issue(["other.example"], issuer=CA), tmp_path) as url,
        pytest.raises(VisitError, match="localhost"),
    ):
        smoke.test_the_certificate_is_trusted_for_its_host(url, trust(CA.pem, verify=True))


def test_a_closed_port_is_reported(tmp_path: Path) -> None:
    with server(leaf(), tmp_path) as url:
        pass
    with pytest.raises(VisitError, match="ConnectionRefusedError"):
        served(url, trust(CA.pem, verify=True))


@pytest.mark.parametrize(("days", "well"), [(13.9, False), (14.1, True), (60, True)])
def test_certificate_that_ends_within_14_days_fails_with_its_date(
    days: float, well: bool, tmp_path: Path
) -> None:
    end = datetime.now(UTC) + timedelta(days=days)
    with server(leaf(end=end), tmp_path) as url:
        if well:
            smoke.test_the_certificate_lasts(url, trust(CA.pem, verify=True))
            return
        with pytest.raises(AssertionError, match=f"expires on {end:%Y-%m-%d}, in 13 days"):
            smoke.test_the_certificate_lasts(url, trust(CA.pem, verify=True))


def test_expired_certificate_is_not_trusted(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    pair = leaf(start=now - 10 * DAY, end=now - DAY)
    with server(pair, tmp_path) as url, pytest.raises(VisitError, match="certificate has expired"):
        served(url, trust(CA.pem, verify=True))


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_outdated_tls_is_noticed(version: str, tmp_path: Path) -> None:
    with server(leaf(), tmp_path) as url:
        assert answer_to_old_hello(url, version) == ""
        smoke.test_outdated_tls_is_refused(url, version)
    with server(leaf(), tmp_path, oldest=ssl.TLSVersion.TLSv1) as url:
        assert answer_to_old_hello(url, version) == version
        with pytest.raises(AssertionError, match=f"accepts TLS {version}"):
            smoke.test_outdated_tls_is_refused(url, version)


def with_tls(**more: Any) -> Target:
    return from_exports(EXPORTS | {"publicUrl": "https://localhost:8443", "tls": {**TLS, **more}}, chosen())


def test_stack_tells_its_authority_and_one_that_is_given_comes_on_top() -> None:
    assert with_tls().ca == CA.pem
    given = from_exports(EXPORTS | {"tls": TLS}, replace(chosen(), ca="more"))
    assert given.ca == CA.pem + "more"


def test_only_an_edge_that_speaks_tls_is_asked_for_it() -> None:
    assert with_tls().https_origins == (
        "https://localhost:8443",
        "https://api.example.com",
        "https://console.example.com",
    )
    # A proxy in front of the edge terminates TLS there.
    assert from_exports(EXPORTS | {"publicUrl": "https://dify.example.com"}, chosen()).https_origins == ()


@pytest.mark.parametrize(
    ("public", "http_port", "https_port", "plain"),
    [
        ("https://localhost:8443", 8080.0, 8443.0, "http://localhost:8080"),
        ("https://dify.example.com", 80.0, 443.0, "http://dify.example.com"),
        # A router in front: 443 leads to 8443, and 80 to 8080.
        ("https://dify.example.com", 8080.0, 8443.0, "http://dify.example.com"),
        ("https://[::1]:8443", 8080.0, 8443.0, "http://[::1]:8080"),
    ],
)
def test_plain_address_of_the_same_edge(public: str, http_port: float, https_port: float, plain: str) -> None:
    exports = EXPORTS | {"publicUrl": public, "httpPort": http_port, "tls": TLS | {"httpsPort": https_port}}

    assert from_exports(exports, chosen()).plain_url == plain
