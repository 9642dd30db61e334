"""A stack on the test cluster with TLS by cert-manager, the PROXY protocol, and workers by the length of their queues.

The cluster has the definitions of cert-manager and KEDA, and a stand-in for the controller of the first.
"""

import http.client
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import pytest
from cryptography import x509

from infra.catalogue.images import local_builds
from infra.catalogue.releases import RELEASES
from infra.catalogue.selection import Selection
from infra.settings.kubernetes import PRELOADED
from support.certificates import Pair, issue
from support.images import image_of
from support.stacks import Done, Stack, wait_until
from tests.cluster.lifecycle import Cluster
from tests.cluster.objects import STORAGE_CLASS
from tests.integration.cluster import cert_manager
from tests.integration.cluster.cert_manager import Controller

NODE_PORT = 30080
RELEASE = "1.17.1"
CLIENT = "203.0.113.9"
EVERY_SECONDS = 0.2
# The kubelet looks at a Secret every minute or so.
RENEWED_SECONDS = 240


@dataclass(frozen=True, kw_only=True)
class Site:
    """The stack, its cluster, and what stands in for cert-manager."""

    stack: Stack
    cluster: Cluster
    controller: Controller
    authority: Pair

    @property
    def namespace(self) -> str:
        """The namespace of the stack."""
        return f"dify-{self.stack.name}"

    def pods(self) -> dict[str, str]:
        """Return pod -> uid of the pods of nginx."""
        found = self.cluster.get("pods", "--namespace", self.namespace, "-l", "dify-kit.service=nginx")
        return {one["metadata"]["name"]: one["metadata"]["uid"] for one in found["items"]}


def connect(port: int, authority: Pair | None, *, client: str = CLIENT) -> ssl.SSLSocket:
    """Connect as the load balancer does for a client; without an authority the certificate is not verified."""
    context = ssl.create_default_context(cadata=authority.pem if authority else None)
    if authority is None:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    plain = socket.create_connection(("127.0.0.1", port), timeout=30)
    plain.sendall(f"PROXY TCP4 {client} 192.0.2.1 40000 443\r\n".encode())
    return context.wrap_socket(plain, server_hostname="localhost")


def get(port: int, path: str, authority: Pair | None = None) -> tuple[int, str, str]:
    """Return status, body and id of a request through the load balancer."""
    with connect(port, authority) as stream:
        stream.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n".encode())
        answer = http.client.HTTPResponse(stream)
        answer.begin()
        return answer.status, answer.read().decode(), answer.getheader("x-request-id") or ""


def served(port: int) -> int:
    """Return the serial number of the certificate that a new connection gets."""
    with connect(port, None) as stream:
        der = stream.getpeercert(binary_form=True)
    assert der
    return x509.load_der_x509_certificate(der).serial_number


def challenge(port: int, path: str) -> str:
    """Return what a CA reads; nothing while nginx does not run."""
    with suppress(OSError, http.client.HTTPException):
        return get(port, path)[1]
    return ""


@pytest.fixture(scope="module")
def site(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A stack with two pods of nginx behind a load balancer on this machine."""
    chosen = Selection(release=RELEASES[RELEASE].services, vector_store="pgvector")
    cluster.load(
        *sorted({image_of(one.image) for one in chosen.services().values() if one.image in local_builds()})
    )
    stack = Stack(home=tmp_path_factory.mktemp("home"), release=RELEASE)
    authority, port = issue(ca=True, name="a CA of one's own"), cluster.port(NODE_PORT)
    controller = Controller(cluster, f"dify-{stack.name}", authority, lambda path: challenge(port, path))
    given = {
        "platform": "kubernetes",
        "kubernetes": {
            "kubeconfig": str(cluster.kubeconfig),
            "context": cluster.name,
            "serviceType": "NodePort",
            "nodePort": NODE_PORT,
            "serviceAnnotations": {"example.com/proxy-protocol": "v1"},
            "registry": PRELOADED,
            "sharedStorageClass": STORAGE_CLASS,
            "volumeGigabytes": 1,
            "externalTrafficPolicy": "Cluster",
            "replicas": {"edge": 2},
            "autoscale": {"worker": {"max": 2, "jobsPerPod": 10}},
        },
        "httpsPort": port,
        # A node forwards connections from its own address, or from that of its bridge.
        "trustedProxies": [f"{cluster.plan.subnet}.0/24", "10.244.0.0/16"],
        "proxyProtocol": True,
        # Challenges come by the one port that is published.
        "tls": {"mode": "cert-manager", "issuer": {"name": cert_manager.ISSUER}, "redirect": False},
    }
    try:
        cert_manager.install(cluster)
        values = [
            f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in given.items()
        ]
        created = stack.init(set=values)
        assert created.code == 0, created.output
        with controller:
            stack.first = stack.up()
            yield Site(stack=stack, cluster=cluster, controller=controller, authority=authority)
    finally:
        cluster.kubectl("delete", "namespace", f"dify-{stack.name}", "--ignore-not-found", "--wait=false")
        cert_manager.uninstall(cluster)
        stack.remove()


@contextmanager
def visitors(port: int) -> Iterator[list[str]]:
    """Send requests at a steady rate, each on a connection of its own; yields what came back."""
    found: list[str] = []
    end = threading.Event()

    def run() -> None:
        while not end.wait(EVERY_SECONDS):
            try:
                found.append(str(get(port, "/healthz")[0]))
            except (OSError, http.client.HTTPException) as problem:
                found.append(repr(problem))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield found
    finally:
        end.set()
        thread.join()


def test_up_ends_with_the_certificate_of_the_issuer(site: Site) -> None:
    # The CA read its challenge through nginx, which had the certificate that cert-manager signed by itself.
    assert site.controller.done == ["temporary", "solver", "challenge", "issued"]
    port = site.cluster.port(NODE_PORT)
    wait_until(
        lambda: {served(port) for _ in range(12)} == {site.controller.serial},
        seconds=RENEWED_SECONDS,
        what="every pod of nginx serves it",
    )
    status, body, _ = get(port, "/healthz", site.authority)

    assert (status, json.loads(body)) == (200, {"status": "ok"})


def test_a_renewed_certificate_reaches_every_pod_and_loses_no_request(site: Site) -> None:
    port, before = site.cluster.port(NODE_PORT), site.pods()
    (certificate,) = site.controller.certificates()
    old = site.controller.serial
    with visitors(port) as found:
        site.controller.issue(certificate)
        assert site.controller.serial != old
        # Connections reach both pods.
        wait_until(
            lambda: {served(port) for _ in range(12)} == {site.controller.serial},
            seconds=RENEWED_SECONDS,
            what="every pod of nginx serves the renewed certificate",
        )

    assert len(before) == 2
    assert site.pods() == before
    assert set(found) == {"200"}, found


def test_the_address_of_a_client_is_that_of_the_protocol(site: Site) -> None:
    status, _, request = get(site.cluster.port(NODE_PORT), "/console/api/setup")

    def entry() -> str:
        lines = site.cluster.kubectl(
            *("logs", "--namespace", site.namespace, "-l", "dify-kit.service=nginx", "--tail=2000")
        ).splitlines()
        return next((line for line in lines if request in line), "")

    wait_until(lambda: bool(entry()), seconds=20, what="the log has the request")
    assert status == 200
    assert json.loads(entry())["client"] == CLIENT


def test_the_cluster_has_what_keda_needs(site: Site) -> None:
    name = ("worker", "--namespace", site.namespace)
    scaled, signed_in = (
        site.cluster.get("scaledobject", *name),
        site.cluster.get("triggerauthentication", *name),
    )
    secret = signed_in["spec"]["secretTargetRef"][0]
    found = site.cluster.get("secret", secret["name"], "--namespace", site.namespace)
    service = site.cluster.get("service", "edge", "--namespace", site.namespace)

    assert scaled["spec"]["maxReplicaCount"] == 2
    assert secret["key"] in found["data"]
    assert site.cluster.get("deployment", *name)["status"]["readyReplicas"] == 1
    assert service["metadata"]["annotations"]["example.com/proxy-protocol"] == "v1"


def test_second_up_changes_nothing(site: Site) -> None:
    done: Done = site.stack.up()

    assert done.code == 0
    assert site.stack.steps() == {}
