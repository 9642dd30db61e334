"""A whole stack with TLS: what its smoke tests say, and certificates that change while it serves."""

import socket
import ssl
from collections.abc import Iterator

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from infra.edge.paths import CURRENT, KEY_FILE
from support.certificates import Pair, issue
from support.ports import free_port
from support.stacks import SMALLEST, Stack
from tests.integration.containers import printed
from tests.integration.load import steady_load

CA = issue(ca=True, name="a CA of one's own")


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A self-signed stack with HSTS."""
    stack = Stack(home=tmp_path_factory.mktemp("home"), release=SMALLEST)
    try:
        created = stack.init(**{"cors-origin": "https://app.example.com"})
        assert created.code == 0, created.output
        for path, value in (
            ("httpsPort", str(free_port())),
            ("tls.mode", "selfsigned"),
            ("tls.hstsSeconds", "300"),
        ):
            stack.set_config(path, value)
        stack.up()
        yield stack
    finally:
        stack.remove()


def origin(stack: Stack) -> str:
    return str(stack.outputs()["publicUrl"])


def served(stack: Stack) -> str:
    """Return the SHA-256 of the certificate that is served, whoever signed it."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    port = int(origin(stack).rsplit(":", 1)[1])
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        der = connection.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).fingerprint(hashes.SHA256()).hex()


def set_secret(stack: Stack, key: str, value: str) -> None:
    done = stack.pulumi("config", "set", "--secret", f"dify:{key}", stdin=value)
    assert done.code == 0, done.output


def set_pair(stack: Stack, pair: Pair, *, key: str | None = None) -> None:
    set_secret(stack, "tlsCertificate", pair.pem)
    set_secret(stack, "tlsKey", key or pair.key_pem)


def test_smoke_tests_pass_and_test_tls(secure: Stack) -> None:
    # The browser's view of it has a test beside the others that need a browser.
    done = secure.smoke("--browser", "none")

    assert done.code == 0, done.output[-5000:]
    assert "they test TLS" not in done.stdout, "left out"


def test_exports_tell_what_is_served_and_whom_to_trust(secure: Stack) -> None:
    tls = secure.outputs()["tls"]

    assert tls["mode"] == "selfsigned"
    assert tls["sha256"] == served(secure)
    context = ssl.create_default_context(cadata=tls["ca"])
    assert httpx.get(f"{origin(secure)}/v1/info", verify=context, timeout=20).status_code == 401


def test_second_up_and_preview_change_nothing(secure: Stack) -> None:
    before, certificate = secure.containers(), served(secure)

    secure.up()

    assert secure.steps("--refresh") == {}
    assert secure.containers() == before
    assert served(secure) == certificate


def test_key_is_nginxs_alone_and_nowhere_in_plain_text(secure: Stack) -> None:
    nginx = secure.container("nginx")

    assert printed(nginx, ["stat", "-L", "-c", "%a %u", f"{CURRENT}/{KEY_FILE}"]) == "400 101\n"
    secret = printed(nginx, ["cat", f"{CURRENT}/{KEY_FILE}"]).splitlines()[1]
    assert len(secret) > 40
    exported = secure.pulumi("stack", "export").stdout
    assert secret not in exported
    files = [path for path in secure.home.rglob("*") if path.is_file()]
    assert not [path for path in files if secret in path.read_text(encoding="utf-8", errors="replace")]
    assert secret not in str(nginx.attrs)


def test_renewal_under_load_loses_no_request(secure: Stack) -> None:
    nginx, before = secure.container("nginx").id, served(secure)
    with steady_load(
        f"{origin(secure)}/v1/chat-messages",
        headers={"Authorization": "Bearer app-nobody-has-this-key", "Content-Type": "application/json"},
    ) as load:
        set_secret(secure, "tlsSeed", "another seed, of more than thirty-two characters")
        secure.up()
        after = served(secure)

    assert after != before
    assert after == secure.outputs()["tls"]["sha256"]
    assert secure.container("nginx").id == nginx
    load.assert_none_lost(reloads=1)
    # Dify's own answer, or that of a limit: nothing that the reload made.
    assert 401 in load.statuses
    assert set(load.statuses) <= {401, 429}
    assert load.total > 500


def test_files_replace_it_without_replacing_nginx(secure: Stack) -> None:
    nginx = secure.container("nginx").id
    pair = issue(["localhost"], issuer=CA)
    set_pair(secure, pair)
    secure.set_config("tls.mode", "files")

    secure.up()

    assert served(secure) == pair.certificate.fingerprint(hashes.SHA256()).hex()
    assert secure.container("nginx").id == nginx
    context = ssl.create_default_context(cadata=CA.pem)
    assert httpx.get(f"{origin(secure)}/healthz", verify=context, timeout=20).status_code == 200


def test_wrong_pair_is_refused_before_anything_changes(secure: Stack) -> None:
    before, certificate = secure.containers(), served(secure)
    stranger = issue(["localhost"]).key_pem
    set_pair(secure, issue(["localhost"], issuer=CA), key=stranger)

    refused = secure.try_up()

    assert refused.code == 1
    assert "dify:tlsKey: does not belong to the certificate" in refused.output
    assert stranger.splitlines()[1] not in refused.output
    assert secure.containers() == before
    assert served(secure) == certificate
