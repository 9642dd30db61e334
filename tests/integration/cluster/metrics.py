"""A metrics API of a cluster (`metrics.k8s.io`) whose figures a test chooses; it runs on this machine."""

import json
import ssl
import threading
from datetime import UTC, datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from support.certificates import issue
from tests.cluster.lifecycle import Cluster
from tests.integration.bridge import bridge

VERSION = "metrics.k8s.io/v1beta1"
API = f"/apis/{VERSION}"
NAME, NAMESPACE, PORT = "stand-in-metrics", "kube-system", 443
_RESOURCES = [
    {"name": name, "singularName": "", "namespaced": space, "kind": kind, "verbs": ["get", "list"]}
    for name, space, kind in (("pods", True, "PodMetrics"), ("nodes", False, "NodeMetrics"))
]


class Metrics:
    """Every pod uses `millicores` of CPU."""

    def __init__(self, cluster: Cluster, directory: Path) -> None:
        self.millicores = 1
        self._cluster = cluster
        self._server = ThreadingHTTPServer((bridge(), 0), self._handler())
        pair = issue([f"{NAME}.{NAMESPACE}.svc"])
        certificate, key = directory / "metrics.pem", directory / "metrics.key"
        certificate.write_text(pair.pem, encoding="ascii")
        key.write_text(pair.key_pem, encoding="ascii")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )

    def start(self) -> None:
        """Answer, and register with the cluster: its API server asks at a Service with this machine's address."""
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self._cluster.apply(*self._objects())

    def stop(self) -> None:
        """End, and leave the cluster as it was."""
        kinds = f"apiservice/v1beta1.metrics.k8s.io,service/{NAME},endpointslice/{NAME}"
        for one in kinds.split(","):
            self._cluster.kubectl("delete", one, "--namespace", NAMESPACE, "--ignore-not-found")
        self._server.shutdown()
        self._server.server_close()

    def registered(self) -> bool:
        """Tell whether the cluster uses it."""
        found = self._cluster.get("apiservice", "v1beta1.metrics.k8s.io")
        conditions = (found.get("status") or {}).get("conditions") or []
        return any(one["type"] == "Available" and one["status"] == "True" for one in conditions)

    def answer(self, path: str) -> tuple[HTTPStatus, dict[str, Any]]:
        """Return what the API has at a path."""
        parts = urlsplit(path)
        if parts.path == API:
            document = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": VERSION}
            return HTTPStatus.OK, document | {"resources": _RESOURCES}
        words = parts.path.removeprefix(f"{API}/").split("/")
        if len(words) != 3 or (words[0], words[2]) != ("namespaces", "pods"):
            return HTTPStatus.NOT_FOUND, {
                "kind": "Status",
                "apiVersion": "v1",
                "status": "Failure",
                "code": 404,
            }
        selector = unquote(parse_qs(parts.query).get("labelSelector", [""])[0])
        pods = self._cluster.get("pods", "--namespace", words[1], f"--selector={selector}")["items"]
        items = [self._of(pod) for pod in pods if pod["status"]["phase"] == "Running"]
        return HTTPStatus.OK, {
            "kind": "PodMetricsList",
            "apiVersion": VERSION,
            "metadata": {},
            "items": items,
        }

    def _of(self, pod: dict[str, Any]) -> dict[str, Any]:
        usage = {"cpu": f"{self.millicores}m", "memory": "50Mi"}
        return {
            "metadata": {key: pod["metadata"][key] for key in ("name", "namespace", "labels")},
            "timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "window": "1s",
            "containers": [{"name": one["name"], "usage": usage} for one in pod["spec"]["containers"]],
        }

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        metrics = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # the name that the server calls
                status, document = metrics.answer(self.path)
                body = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # as its base class has it
                del format, args

        return Handler

    def _objects(self) -> list[dict[str, Any]]:
        address, port = self._server.server_address[:2]
        metadata = {"name": NAME, "namespace": NAMESPACE}
        return [
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": metadata,
                "spec": {"ports": [{"name": "api", "port": PORT, "targetPort": port}]},
            },
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": metadata | {"labels": {"kubernetes.io/service-name": NAME}},
                "addressType": "IPv4",
                "endpoints": [{"addresses": [str(address)], "conditions": {"ready": True}}],
                "ports": [{"name": "api", "port": port, "protocol": "TCP"}],
            },
            {
                "apiVersion": "apiregistration.k8s.io/v1",
                "kind": "APIService",
                "metadata": {"name": "v1beta1.metrics.k8s.io"},
                "spec": {
                    "group": "metrics.k8s.io",
                    "version": "v1beta1",
                    "groupPriorityMinimum": 100,
                    "versionPriority": 100,
                    "insecureSkipTLSVerify": True,
                    "service": metadata | {"port": PORT},
                },
            },
        ]
