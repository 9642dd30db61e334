"""A certificate in a Secret: nginx as a pod runs it, on a directory that changes as the kubelet changes it."""

import ssl
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from infra.catalogue import ports
from infra.edge.paths import EDGE_DIRECTORY, PUBLISHED, RUN_DIRECTORY
from infra.edge.tls import SECRET_CERTIFICATE, SECRET_KEY, SECRET_LINK, SOLVERS
from infra.services.edge import WATCH_SECONDS, run_script
from support.certificates import Pair, issue, new_key, pem_of_key
from support.stacks import wait_until
from tests.integration.edge.container import PLAIN, Edge
from tests.integration.images import image_of
from tests.integration.load import steady_load

NAME = "localhost"
# The watch, the drain, and a machine that is busy.
LIVE_SECONDS = 90
# Two rounds of the watch, and what a reload would take.
UNCHANGED_SECONDS = 2 * WATCH_SECONDS + 5
SETTINGS: dict[str, Any] = {
    **PLAIN,
    "platform": "kubernetes",
    "kubernetes": {"context": "test", "registry": "preloaded"},
    # Both ports serve Dify: the tests of this folder wait for the plain one.
    "tls": {"mode": "cert-manager", "issuer": {"name": "internal"}, "redirect": False},
}
# Answers the challenge of one name, and 404 to all others, as a pod of cert-manager does.
SOLVER = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
class Solving(BaseHTTPRequestHandler):
    def do_GET(self):
        known = self.path == "/.well-known/acme-challenge/" + sys.argv[1] and "Authorization" not in self.headers
        self.send_response(200 if known else 404)
        self.end_headers()
        self.wfile.write((self.headers["Host"] + " " + sys.argv[1]).encode() if known else b"")
HTTPServer(("0.0.0.0", {port}), Solving).serve_forever()
""".replace("{port}", str(ports.ACME_SOLVER))


class PodEdge(Edge):
    """An edge with the command of a pod, and a directory in the place of its Secret."""

    def __init__(self, directory: Path, secret: Path, **options: Any) -> None:
        self.secret = secret
        self._count = 0
        self.place(issue([NAME]))
        super().__init__(directory, SETTINGS, published=(ports.EDGE_HTTP, ports.EDGE_HTTPS), **options)

    def place(self, pair: Pair, *, key: str = "") -> None:
        """Change the Secret: a directory of its own, and a link to it that changes in one step."""
        self._count += 1
        name = f"..{self._count}"
        (self.secret / name).mkdir()
        (self.secret / name / SECRET_CERTIFICATE).write_text(pair.pem)
        (self.secret / name / SECRET_KEY).write_text(key or pair.key_pem)
        (self.secret / "..new").symlink_to(name)
        (self.secret / "..new").rename(self.secret / SECRET_LINK)
        for file in (SECRET_CERTIFICATE, SECRET_KEY):
            if not (self.secret / file).is_symlink():
                (self.secret / file).symlink_to(f"{SECRET_LINK}/{file}")

    def volumes(self) -> dict[str, dict[str, str]]:
        (config,) = super().volumes()
        return {
            config: {"bind": f"{EDGE_DIRECTORY}/current", "mode": "ro"},
            str(self.secret): {"bind": PUBLISHED, "mode": "ro"},
        }

    def _start_nginx(self, published: tuple[int, ...]) -> Any:
        containers: Any = self.client.containers
        container = containers.run(
            image_of("nginx"),
            ["sh", "-c", run_script(("nginx-0",), link=f"{PUBLISHED}/{SECRET_LINK}")],
            user="101",
            cap_drop=["ALL"],
            read_only=True,
            tmpfs={RUN_DIRECTORY: f"size={self.run_megabytes}m,uid=101,mode=0700", "/tmp": ""},  # noqa: S108  # the container's own
            volumes=self.volumes(),
            ports={f"{port}/tcp": ("127.0.0.1", None) for port in published},
            network=self.name,
            detach=True,
        )
        self.things.append(container)
        return container

    @property
    def served(self) -> int:
        """The serial number of the certificate that a new connection gets."""
        pem = ssl.get_server_certificate(("127.0.0.1", self.port(ports.EDGE_HTTPS)))
        return x509.load_pem_x509_certificate(pem.encode()).serial_number

    def solver(self, token: str) -> None:
        """Start a pod that answers one challenge."""
        container = self.client.containers.create(
            image_of("api"), entrypoint=["python3", "-c", SOLVER, token], command=[], network_mode="none"
        )
        self.things.append(container)
        self.client.networks.get("none").disconnect(container)
        self.network.connect(container, aliases=[SOLVERS])
        container.start()


@pytest.fixture(scope="module")
def pod(open_directory: Callable[[], Path]) -> Iterator[PodEdge]:
    """One edge, whose certificate the tests change."""
    edge = PodEdge(open_directory(), open_directory())
    try:
        yield edge
    finally:
        edge.remove()


def test_a_renewed_certificate_goes_live_without_a_lost_request(pod: PodEdge) -> None:
    started = pod.nginx.attrs["State"]["StartedAt"]
    url = f"https://localhost:{pod.port(ports.EDGE_HTTPS)}/v1/200"
    renewed = issue([NAME])

    with steady_load(url, method="GET") as counted:
        time.sleep(2)
        pod.place(renewed)
        wait_until(
            lambda: pod.served == renewed.certificate.serial_number,
            seconds=LIVE_SECONDS,
            what="nginx serves the renewed certificate",
        )
        time.sleep(2)

    counted.assert_none_lost(reloads=1)
    assert set(counted.statuses) == {200}
    pod.nginx.reload()
    assert pod.nginx.attrs["State"]["StartedAt"] == started
    # The mark of the drain is gone, and connections are kept again.
    wait_until(
        lambda: "connection" not in pod.http.get("/v1/200").headers, seconds=20, what="the drain has ended"
    )


def test_a_certificate_that_does_not_fit_its_key_never_goes_live(pod: PodEdge) -> None:
    before, renewed = pod.served, issue([NAME])

    pod.place(renewed, key=pem_of_key(new_key()))
    time.sleep(UNCHANGED_SECONDS)

    assert pod.served == before
    assert pod.http.get("/v1/200").status_code == 200
    assert b"key values mismatch" in pod.nginx.logs(stdout=False)
    # The one that fits is taken.
    pod.place(renewed)
    wait_until(
        lambda: pod.served == renewed.certificate.serial_number,
        seconds=LIVE_SECONDS,
        what="nginx serves the mended certificate",
    )


def test_challenges_reach_the_pod_that_knows_them(pod: PodEdge) -> None:
    path = "/.well-known/acme-challenge"
    # Without a pod there is no name in DNS.
    assert pod.http.get(f"{path}/one").status_code >= 500
    pod.solver("one")
    pod.solver("two")

    def answers(token: str) -> bool:
        return pod.http.get(f"{path}/{token}", headers={"Authorization": "Bearer a"}).status_code == 200

    for token in ("one", "two"):
        wait_until(partial(answers, token), seconds=30, what=f"the challenge {token}")
    # The addresses come in another order each time.
    found = [pod.http.get(f"{path}/{token}") for token in ("one", "two") for _ in range(10)]
    assert {answer.status_code for answer in found} == {200}
    assert {answer.text for answer in found} == {"localhost one", "localhost two"}
    assert pod.http.get(f"{path}/three").status_code == 404
