"""What the edge offers by TLS, and to whom: the policy, the redirect, and the names that get nothing."""

import asyncio
import json
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sslyze import (
    CertificateInfoExtraArgument,
    ScanCommand,
    ScanCommandsExtraArguments,
    Scanner,
    ServerNetworkConfiguration,
    ServerNetworkLocation,
    ServerScanRequest,
)
from sslyze.mozilla_tls_profile.tls_config_checker import (
    SCAN_COMMANDS_NEEDED_BY_MOZILLA_CHECKER,
    MozillaTlsConfiguration,
    TlsConfigurationEnum,
    check_server_against_tls_configuration,
)

from dify_kit.stack import rendering
from infra.catalogue import ports
from support import event_loops
from support.certificates import issue
from tests.integration.tls_edge import ORIGIN, TlsEdge
from tests.unit.test_render_tls import tls_settings

TWO_YEARS = 63072000
NAME = "dify.test"
PREFLIGHT = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}


@pytest.fixture(scope="module", autouse=True)
def _loop() -> Iterator[None]:
    """Lend Pulumi an event loop: the settings hold secrets as its outputs."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    event_loops.close(loop)
    asyncio.set_event_loop(None)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsEdge]:
    """A self-signed edge on localhost, with HSTS."""
    edge = TlsEdge(
        directory=tmp_path_factory.mktemp("local"),
        plain={"tls": {"mode": "selfsigned", "hstsSeconds": TWO_YEARS}},
        hidden={},
    )
    try:
        edge.start()
        yield edge
    finally:
        edge.stop()


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsEdge]:
    """An edge with a name and a certificate of its own, http beside https, no HSTS."""
    pair = issue([NAME])
    edge = TlsEdge(
        directory=tmp_path_factory.mktemp("named"),
        plain={"publicUrl": f"https://{NAME}", "tls": {"mode": "files", "redirect": False}},
        hidden={"tlsCertificate": pair.pem, "tlsKey": pair.key_pem},
    )
    try:
        edge.start()
        yield edge
    finally:
        edge.stop()


def raw(port: int, request: str, context: ssl.SSLContext | None = None, name: str | None = None) -> bytes:
    """Return all that comes back for a request; nothing when the connection is closed without a word."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        connection = context.wrap_socket(plain, server_hostname=name) if context else plain
        try:
            connection.sendall(request.encode())
            received = b""
            while piece := connection.recv(65536):
                received += piece
        except ConnectionResetError:
            return b""
        finally:
            connection.close()
    return received


def unchecked() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def test_sslyze_finds_mozillas_intermediate_profile_kept(local: TlsEdge, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text(local.settings.tls.ca)
    scanner = Scanner()
    scanner.queue_scans(
        [
            ServerScanRequest(
                server_location=ServerNetworkLocation(
                    hostname="localhost", port=local.https_port, ip_address="127.0.0.1"
                ),
                network_configuration=ServerNetworkConfiguration(
                    tls_server_name_indication="localhost", network_timeout=20
                ),
                scan_commands=SCAN_COMMANDS_NEEDED_BY_MOZILLA_CHECKER | {ScanCommand.SESSION_RESUMPTION},
                scan_commands_extra_arguments=ScanCommandsExtraArguments(
                    certificate_info=CertificateInfoExtraArgument(custom_ca_file=tmp_path / "ca.pem")
                ),
            )
        ]
    )
    (result,) = scanner.get_results()

    # Raises with each difference.
    profile = MozillaTlsConfiguration.get(TlsConfigurationEnum.MOZILLA_INTERMEDIATE)
    check_server_against_tls_configuration(result, profile)
    assert result.scan_result is not None
    versions = result.scan_result
    for old in (versions.ssl_2_0_cipher_suites, versions.ssl_3_0_cipher_suites):
        assert old.result is not None
        assert not old.result.accepted_cipher_suites
    for refused in (versions.tls_1_0_cipher_suites, versions.tls_1_1_cipher_suites):
        assert refused.result is not None
        assert not refused.result.is_tls_version_supported
    resumption = versions.session_resumption.result
    assert resumption is not None
    # sslyze tries it several times side by side; on a busy machine one of them may find no session of its own.
    assert resumption.session_id_resumption_result.name in {"FULLY_SUPPORTED", "PARTIALLY_SUPPORTED"}
    assert resumption.tls_ticket_resumption_result.name == "NOT_SUPPORTED"


def test_certificate_is_taken_by_who_trusts_the_ca_and_by_nobody_else(local: TlsEdge) -> None:
    with local.client() as trusting:
        assert trusting.get("/v1/info").status_code == 200
    with httpx.Client(timeout=20) as other, pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY"):
        other.get(f"https://localhost:{local.https_port}/v1/info")


@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
def test_plain_http_is_sent_to_https_and_keeps_method_and_body(local: TlsEdge, method: str) -> None:
    with local.plain_client() as client:
        answer = client.request(method, "/v1/info?a=b%2Fc", content=b"body" if method != "GET" else None)

    assert answer.status_code == 308
    assert answer.headers["location"] == f"https://localhost:{local.https_port}/v1/info?a=b%2Fc"
    with local.client() as client:
        body = client.request(method, "/v1/info?a=b%2Fc", content=b"body" if method != "GET" else None).json()
    assert (body["method"], body["path"]) == (method, "/v1/info?a=b%2Fc")


def test_preflight_is_answered_on_both_ports(local: TlsEdge) -> None:
    with local.plain_client() as plain, local.client() as secure:
        for client in (plain, secure):
            answer = client.options("/v1/chat-messages", headers=PREFLIGHT)
            assert answer.status_code == 204
            assert answer.headers.get_list("access-control-allow-origin") == [ORIGIN]


def test_redirect_is_readable_across_origins(local: TlsEdge) -> None:
    with local.plain_client() as client:
        answer = client.get("/v1/info", headers={"Origin": ORIGIN})

    assert answer.headers.get_list("access-control-allow-origin") == [ORIGIN]
    assert "Origin" in answer.headers["vary"]


def test_health_is_answered_on_both_ports(local: TlsEdge) -> None:
    with local.plain_client() as plain, local.client() as secure:
        assert [client.get("/healthz").json() for client in (plain, secure)] == [{"status": "ok"}] * 2


@pytest.mark.parametrize(
    ("headers", "status"), [("X-Long: " + "a" * 20000, 431), ("Content-Length: 99999999", 413)]
)
def test_errors_of_the_redirecting_port_are_json(local: TlsEdge, headers: str, status: int) -> None:
    answer = raw(
        local.http_port, f"POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n\r\n"
    )

    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split()[1] == str(status).encode()
    assert json.loads(body)["code"] == {431: "headers_too_large", 413: "request_too_large"}[status]


def test_hsts_goes_with_https_alone_and_comes_from_one_owner(local: TlsEdge) -> None:
    with local.client() as client:
        for path, status in (("/v1/info", 200), ("/healthz", 200)):
            answer = client.get(path)
            assert answer.status_code == status
            assert answer.headers.get_list("strict-transport-security") == [f"max-age={TWO_YEARS}"]
    with local.plain_client() as client:
        assert "strict-transport-security" not in client.get("/v1/info").headers
        assert "strict-transport-security" not in client.options("/v1/info", headers=PREFLIGHT).headers


def test_without_being_asked_for_there_is_no_hsts(named: TlsEdge) -> None:
    answer = raw(named.https_port, f"GET /v1/info HTTP/1.0\r\nHost: {NAME}\r\n\r\n", unchecked(), NAME)

    assert answer.startswith(b"HTTP/1.1 200")
    assert b"strict-transport-security" not in answer.lower()


def test_upstream_hears_of_https(local: TlsEdge) -> None:
    with local.client() as client:
        body = client.get("/v1/info").json()["headers"]

    assert body["x-forwarded-proto"] == "https"
    assert body["x-forwarded-port"] == str(local.https_port)
    assert body["host"] == f"localhost:{local.https_port}"


def test_upstream_hears_of_http_where_it_is_served(named: TlsEdge) -> None:
    answer = raw(named.http_port, f"GET /v1/info HTTP/1.0\r\nHost: {NAME}\r\n\r\n")

    body = json.loads(answer.partition(b"\r\n\r\n")[2])["headers"]
    assert (body["x-forwarded-proto"], body["x-forwarded-port"]) == ("http", str(named.http_port))


def test_http2_is_offered_and_works(local: TlsEdge) -> None:
    context = local.trusting()
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection(("127.0.0.1", local.https_port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        assert connection.selected_alpn_protocol() == "h2"
    asked = ["-w", "%{http_version} %{http_code}", "-H", f"Origin: {ORIGIN}", "-D", "-"]
    code, output = local.nginx.exec_run(
        ["curl", "-sk", "--http2", *asked, f"https://localhost:{ports.EDGE_HTTPS}/v1/info"]
    )
    assert code == 0, output
    assert isinstance(output, bytes)
    text = output.decode().lower()
    assert text.endswith("2 200")
    assert f"access-control-allow-origin: {ORIGIN}" in text
    assert "connection:" not in text, "HTTP/2 has no such header"


def test_unknown_name_gets_no_certificate(named: TlsEdge) -> None:
    with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
        raw(named.https_port, "GET / HTTP/1.0\r\n\r\n", unchecked(), "other.test")
    with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
        raw(named.https_port, "GET / HTTP/1.0\r\n\r\n", unchecked(), None)


def test_unknown_host_behind_a_known_name_gets_nothing(named: TlsEdge, local: TlsEdge) -> None:
    for edge, name in ((named, NAME), (local, "localhost")):
        assert raw(edge.https_port, f"GET /healthz HTTP/1.0\r\nHost: {name}\r\n\r\n", unchecked(), name)
        unknown = "GET /healthz HTTP/1.0\r\nHost: other.test\r\n\r\n"
        assert raw(edge.https_port, unknown, unchecked(), name) == b""
        assert raw(edge.http_port, unknown) == b""


def test_address_without_a_name_works_where_it_is_one_of_the_stacks(local: TlsEdge) -> None:
    with httpx.Client(verify=local.trusting(), timeout=20) as client:
        answer = client.get(f"https://127.0.0.1:{local.https_port}/healthz")

    assert answer.status_code == 200


def test_http_on_the_port_of_tls_is_shown_the_way_or_nothing(local: TlsEdge) -> None:
    known = raw(local.https_port, "GET /v1/x HTTP/1.0\r\nHost: localhost\r\n\r\n")
    unknown = raw(local.https_port, "GET /v1/x HTTP/1.0\r\nHost: other.test\r\n\r\n")

    assert known.startswith(b"HTTP/1.1 308")
    assert f"location: https://localhost:{local.https_port}/v1/x".encode() in known.lower()
    assert unknown == b""


def test_without_the_redirect_both_ports_serve(named: TlsEdge) -> None:
    request = f"GET /v1/info HTTP/1.0\r\nHost: {NAME}\r\n\r\n"

    assert raw(named.http_port, request).startswith(b"HTTP/1.1 200")
    assert raw(named.https_port, request, unchecked(), NAME).startswith(b"HTTP/1.1 200")


def test_nginx_complains_of_nothing(local: TlsEdge, named: TlsEdge) -> None:
    for edge in (local, named):
        assert not [line for line in edge.logs.splitlines() if "[warn]" in line or "[emerg]" in line]


@pytest.mark.parametrize("mode", ["selfsigned", "files", "acme", "cert-manager"])
def test_rendering_is_accepted_by_nginx_and_shows_no_key(mode: str, tmp_path: Path) -> None:
    found = tls_settings(mode)

    rendering.write(found, tmp_path / "out")
    rendering.check(found, tmp_path / "out")

    texts = [path.read_text() for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(texts) > 10
    assert not [text for text in texts if "PRIVATE KEY" in text]
