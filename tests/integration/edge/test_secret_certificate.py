"""A certificate in a Secret: nginx as a pod runs it, on a directory that changes as the kubelet changes it."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from infra.catalogue import ports
from infra.edge.tls import SOLVERS
from infra.services.edge import WATCH_SECONDS
from support.certificates import issue, new_key, pem_of_key
from support.images import image_of
from support.stacks import wait_until
from tests.integration.edge.pod import NAME, PodEdge
from tests.integration.load import steady_load

# The watch, the drain, and a machine that is busy.
LIVE_SECONDS = 90
# Two rounds of the watch, and what a reload would take.
UNCHANGED_SECONDS = 2 * WATCH_SECONDS + 5
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


class Solved(PodEdge):
    """An edge with pods of cert-manager."""

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
def pod(open_directory: Callable[[], Path]) -> Iterator[Solved]:
    """One edge, whose certificate the tests change."""
    edge = Solved(open_directory(), open_directory())
    try:
        yield edge
    finally:
        edge.remove()


def test_a_renewed_certificate_goes_live_without_a_lost_request(pod: Solved) -> None:
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
        lambda: pod.http.get("/v1/200").headers.get("connection") != "close",
        seconds=20,
        what="the drain has ended",
    )


def test_a_certificate_that_does_not_fit_its_key_never_goes_live(pod: Solved) -> None:
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


def test_challenges_reach_the_pod_that_knows_them(pod: Solved) -> None:
    path = "/.well-known/acme-challenge"
    # Without a pod there is no name in DNS.
    assert pod.http.get(f"{path}/one").status_code >= 500
    pod.solver("one")
    pod.solver("two")

    def answers(token: str) -> bool:
        found = pod.http.get(f"{path}/{token}", headers={"Authorization": "Bearer a"})
        return found.status_code == 200

    for token in ("one", "two"):
        wait_until(partial(answers, token), seconds=30, what=f"the challenge {token}")
    # The addresses come in another order each time.
    found = [pod.http.get(f"{path}/{token}") for token in ("one", "two") for _ in range(10)]
    assert {answer.status_code for answer in found} == {200}
    assert {answer.text for answer in found} == {"localhost one", "localhost two"}
    assert pod.http.get(f"{path}/three").status_code == 404
