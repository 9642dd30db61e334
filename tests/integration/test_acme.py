"""Certificates by ACME, on a whole stack, from a real ACME server: issued, served, renewed, kept."""

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

import httpx
import pytest
from cryptography import x509

from support.ports import free_port
from support.stacks import SMALLEST, Stack, wait_until
from tests.integration.bridge import bridge
from tests.integration.containers import printed
from tests.integration.pebble import Pebble, pebble

NAME = "dify.test"
CHECK = ["python3", "/opt/dify-kit/certificates.py", "check"]
RENEW = ["python3", "/opt/dify-kit/certificates.py", "renew"]


@dataclass(kw_only=True)
class Site:
    """The stack as its visitors see it: a name that leads to an address, trusted through the CA's root."""

    stack: Stack
    address: str
    https_port: int
    http_port: int
    server: Pebble

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cadata=self.server.root())

    def served(self) -> x509.Certificate:
        """Return the certificate that is served, whoever signed it."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with (
            socket.create_connection((self.address, self.https_port), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname=NAME) as connection,
        ):
            der = connection.getpeercert(binary_form=True)
        assert der is not None
        return x509.load_der_x509_certificate(der)

    def ask(self, client: httpx.Client, method: str, path: str) -> httpx.Response:
        """Ask by the name, at the address."""
        request = client.build_request(
            method,
            f"https://{self.address}:{self.https_port}{path}",
            headers={"Host": f"{NAME}:{self.https_port}"},
            extensions={"sni_hostname": NAME},
        )
        return client.send(request)


@dataclass
class Visitors:
    """Clients with kept-alive connections that POST all the time, and count what does not come back."""

    site: Site
    number: int = 8
    answers: int = 0
    lost: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        """Start."""
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._visit) for _ in range(self.number)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, after the answers that are still due."""
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=30)

    def _visit(self) -> None:
        with httpx.Client(verify=self.site.context(), timeout=20) as client:
            while not self._stop.is_set():
                try:
                    status = self.site.ask(client, "POST", "/v1/chat-messages").status_code
                    problem = "" if status == 401 else f"status {status}"
                except httpx.HTTPError as error:
                    problem = repr(error)
                with self._lock:
                    self.answers += not problem
                    if problem:
                        self.lost.append(problem)
                # Below the limits of the edge, all of them together.
                self._stop.wait(0.1)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A stack whose first certificate comes from Pebble."""
    address = bridge()
    stack = Stack(home=tmp_path_factory.mktemp("home"), port=free_port(address), release=SMALLEST)
    https_port = free_port(address)
    scratch = tmp_path_factory.mktemp("pebble")
    with pebble(scratch, address=address, http_port=stack.port) as server:
        try:
            created = stack.init(**{"public-url": f"https://{NAME}:{https_port}"})
            assert created.code == 0, created.output
            for path, value in (
                ("bindAddress", address),
                ("httpsPort", str(https_port)),
                ("tls.mode", "acme"),
                ("tls.acme.email", "ops@example.com"),
                ("tls.acme.agreeTerms", "true"),
                ("tls.acme.directory", server.directory),
                ("tls.acme.caFile", str(server.ca_file)),
            ):
                stack.set_config(path, value)
            yield Site(
                stack=stack, address=address, https_port=https_port, http_port=stack.port, server=server
            )
        finally:
            stack.remove()


def test_name_that_leads_elsewhere_fails_up_with_the_cas_reason(site: Site) -> None:
    # The edge is there, and serves its placeholder: only the CA cannot see it.
    site.server.lead(NAME, "127.0.0.1")

    failed = site.stack.try_up()

    assert failed.code == 1
    assert "certbot: cannot become ready: " in failed.output, failed.output[-4000:]
    assert "no certificate of https://" in failed.output
    assert "127.0.0.1" in failed.output, "the CA's own words name the address"
    assert "Traceback" not in failed.output
    assert "waiting for a certificate" in site.served().subject.rfc4514_string()


def test_certificate_is_issued_and_served(site: Site) -> None:
    site.server.lead(NAME, site.address)
    # Its next try would be two minutes after the first.
    site.stack.container("certbot").restart(timeout=10)

    site.stack.up()

    wait_until(
        lambda: "waiting" not in site.served().subject.rfc4514_string(),
        seconds=30,
        what="nginx serves the first real certificate",
    )
    with httpx.Client(verify=site.context(), timeout=20) as client:
        assert site.ask(client, "GET", "/v1/info").status_code == 401
        assert site.ask(client, "GET", "/healthz").json() == {"status": "ok"}
    assert site.stack.outputs()["tls"]["mode"] == "acme"


def test_second_up_changes_nothing(site: Site) -> None:
    serial = site.served().serial_number
    before = site.stack.containers()

    site.stack.up()

    assert site.stack.steps() == {}
    assert site.stack.containers() == before
    assert site.served().serial_number == serial


def test_no_container_has_the_docker_socket_and_only_certbot_has_the_account(site: Site) -> None:
    mounts = {
        name: {mount["Destination"]: mount for mount in site.stack.container(name).attrs["Mounts"]}
        for name in site.stack.containers()
    }

    assert not [name for name, found in mounts.items() if any("docker.sock" in path for path in found)]
    with_account = {name for name, found in mounts.items() if "/etc/letsencrypt" in found}
    assert with_account == {"certbot", "certificates"}
    assert not mounts["nginx"]["/etc/dify-kit/certificates"]["RW"]
    key = "/etc/dify-kit/certificates/current/key.pem"
    assert printed(site.stack.container("nginx"), ["stat", "-L", "-c", "%a %u", key]) == "400 101\n"


def test_redirect_spares_the_checks_of_the_ca(site: Site) -> None:
    base = f"http://{site.address}:{site.http_port}"
    headers = {"Host": f"{NAME}:{site.http_port}"}

    assert httpx.get(f"{base}/.well-known/acme-challenge/none", headers=headers).status_code == 404
    answer = httpx.get(f"{base}/apps", headers=headers)
    assert answer.status_code == 308
    assert answer.headers["location"] == f"https://{NAME}:{site.https_port}/apps"


def test_renewal_under_load_goes_live_without_a_lost_request(site: Site) -> None:
    nginx, serial = site.stack.container("nginx").id, site.served().serial_number
    with Visitors(site) as visitors:
        time.sleep(2)
        code, output = site.stack.container("certbot").exec_run(RENEW)
        assert code == 0, output.decode()
        wait_until(
            lambda: site.served().serial_number != serial, seconds=120, what="nginx serves the renewed one"
        )
        # The old workers have to have gone, too.
        time.sleep(4)

    assert visitors.lost == []
    assert visitors.answers > 200
    assert site.stack.container("nginx").id == nginx
    assert site.stack.container("certbot").exec_run(CHECK).exit_code == 0


def test_recreated_nginx_comes_back_with_the_real_certificate(site: Site) -> None:
    serial = site.served().serial_number
    site.stack.container("nginx").remove(force=True)

    site.stack.up()

    assert site.served().serial_number == serial


def test_account_and_certificate_outlive_the_stack(site: Site) -> None:
    serial = site.served().serial_number

    site.stack.down()
    assert [name for name in site.stack.volumes() if name.endswith("-acme")]
    site.stack.up()

    wait_until(
        lambda: site.served().serial_number == serial, seconds=120, what="the same certificate is back"
    )
