"""The definitions of cert-manager and KEDA in a cluster, and a stand-in for cert-manager's controller.

The stand-in does what the kit relies on: a certificate that it signs by itself until it has another one, a pod that
answers the challenge of a CA, and then the certificate with the conditions of an issued one. KEDA has no stand-in: its
objects are stored.
"""

import base64
import json
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from dify_kit.errors import KitError
from infra.catalogue import ports
from support.certificates import Pair, issue
from support.images import image_of
from tests.cluster.lifecycle import Cluster
from tests.custom_resources import definitions

ISSUER, TOKEN = "internal", "a-token-of-the-ca"  # names of no secret
POLL_SECONDS = 1.0
SOLVER = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
class Solving(BaseHTTPRequestHandler):
    def do_GET(self):
        known = self.path == "/.well-known/acme-challenge/" + sys.argv[1]
        self.send_response(200 if known else 404)
        self.end_headers()
        self.wfile.write(sys.argv[1].encode() if known else b"")
HTTPServer(("0.0.0.0", {port}), Solving).serve_forever()
""".replace("{port}", str(ports.ACME_SOLVER))


def install(cluster: Cluster) -> None:
    """Create the definitions, and a ClusterIssuer with a CA of its own. The image of the solver is in the nodes."""
    found = definitions()
    cluster.apply(*found)
    names = [f"crd/{one['metadata']['name']}" for one in found]
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", *names, seconds=90)
    cluster.apply(
        {
            "apiVersion": "cert-manager.io/v1",
            "kind": "ClusterIssuer",
            "metadata": {"name": ISSUER},
            "spec": {"ca": {"secretName": "root"}},
        }
    )


def uninstall(cluster: Cluster) -> None:
    """Delete the definitions, and with them every object of theirs."""
    names = [f"crd/{one['metadata']['name']}" for one in definitions()]
    cluster.kubectl("delete", "--ignore-not-found", "--wait=false", *names)


class Controller:
    """Issues the Certificates of a namespace while its block runs. ``ask`` requests a path through the edge."""

    def __init__(self, cluster: Cluster, namespace: str, authority: Pair, ask: Callable[[str], str]) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._authority = authority
        self._ask = ask
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)
        # What was done, in order, and the serial number of the certificate that was issued last.
        self.done: list[str] = []
        self.serial = 0

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End."""
        self._end.set()
        self._thread.join()

    def write(self, name: str, pair: Pair) -> None:
        """Write a certificate into a Secret."""
        content = {"tls.crt": pair.pem, "tls.key": pair.key_pem}
        self._cluster.apply(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "type": "kubernetes.io/tls",
                "metadata": {"name": name, "namespace": self._namespace},
                "data": {key: base64.b64encode(text.encode()).decode() for key, text in content.items()},
            }
        )

    def issue(self, certificate: Mapping[str, Any]) -> None:
        """Write a certificate of the CA for the names of a Certificate, and say so in its status."""
        spec, metadata = certificate["spec"], certificate["metadata"]
        pair = issue([*spec.get("dnsNames", []), *spec.get("ipAddresses", [])], issuer=self._authority)
        self.serial = pair.certificate.serial_number
        self.write(spec["secretName"], pair)
        ready = {"type": "Ready", "status": "True", "reason": "Ready", "message": "Certificate is up to date"}
        revision = int((certificate.get("status") or {}).get("revision") or 0) + 1
        status = {
            "revision": revision,
            "conditions": [{**ready, "observedGeneration": metadata["generation"]}],
        }
        self._cluster.kubectl(
            *("patch", "certificate", metadata["name"], "--namespace", self._namespace),
            *("--subresource=status", "--type=merge", f"--patch={json.dumps({'status': status})}"),
        )

    def certificates(self) -> list[Mapping[str, Any]]:
        """Return the Certificates of the namespace."""
        return list(self._cluster.get("certificates", "--namespace", self._namespace)["items"])

    def _run(self) -> None:
        while not self._end.wait(POLL_SECONDS):
            # The namespace does not exist at first, and the API server may be busy.
            with suppress(KitError):
                for one in self.certificates():
                    self._step(one)

    def _step(self, certificate: Mapping[str, Any]) -> None:
        if not self.done:
            self.write(certificate["spec"]["secretName"], issue(certificate["spec"]["dnsNames"]))
            self.done.append("temporary")
        elif self.done == ["temporary"]:
            self._cluster.apply(self._solver())
            self.done.append("solver")
        elif self.done == ["temporary", "solver"]:
            # As the CA does: from outside, by the name of the stack.
            if self._ask(f"/.well-known/acme-challenge/{TOKEN}") == TOKEN:
                self.done.append("challenge")
        elif self.done == ["temporary", "solver", "challenge"]:
            self.issue(certificate)
            self.done.append("issued")

    def _solver(self) -> dict[str, Any]:
        container = {
            "name": "acmesolver",
            "image": image_of("api"),
            "imagePullPolicy": "Never",
            "command": ["python3", "-c", SOLVER, TOKEN],
        }
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": "cm-acme-http-solver",
                "namespace": self._namespace,
                "labels": {"acme.cert-manager.io/http01-solver": "true"},
            },
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
        }
