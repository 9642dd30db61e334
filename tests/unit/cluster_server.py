"""An API server of a cluster for tests: documents by path, rights, and what a dry run says. It creates nothing."""

import json
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
NAMESPACE = "/api/v1/namespaces/dify-unit"
CLASSES = "/apis/storage.k8s.io/v1/storageclasses"
DEFAULT = {"storageclass.kubernetes.io/is-default-class": "true"}


def storage_class(name: str, *, default: bool = False, grows: bool = False) -> dict[str, Any]:
    metadata = {"name": name, "annotations": DEFAULT if default else {}}
    return {"metadata": metadata, "allowVolumeExpansion": grows}


def node(
    name: str = "node1", *, architecture: str = "amd64", ready: bool = True, **spec: Any
) -> dict[str, Any]:
    """Return a node of 16 cores and 64 GiB."""
    return {
        "metadata": {"name": name},
        "spec": spec,
        "status": {
            "nodeInfo": {"architecture": architecture},
            "allocatable": {"cpu": "16", "memory": "64Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": str(ready)}],
        },
    }


def namespace(owner: str | None = "unit", *, phase: str = "Active", **labels: str) -> dict[str, Any]:
    owned = {"dify-kit.stack": owner} if owner else {}
    return {"metadata": {"name": "dify-unit", "labels": {**owned, **labels}}, "status": {"phase": phase}}


def a_list(*objects: dict[str, Any]) -> dict[str, Any]:
    return {"items": list(objects)}


def sound() -> dict[str, Any]:
    """Return the documents of a cluster on which a stack can be deployed: no namespace of the stack yet."""
    dns = {"metadata": {"name": "kube-dns"}, "spec": {"clusterIP": "10.96.0.10"}}
    return {
        "/version": {"major": "1", "minor": "34", "gitVersion": "v1.34.4"},
        "/api/v1/nodes": a_list(node()),
        CLASSES: a_list(storage_class("local-path", default=True), storage_class("nfs", grows=True)),
        "/api/v1/namespaces/kube-system/services": a_list(dns),
    }


@dataclass
class Answers:
    """What the server answers. `denied` has `verb resource`; a dry run of a Service is refused for its node port."""

    objects: dict[str, Any] = field(default_factory=sound)
    denied: Collection[str] = ()
    ports: dict[int, str] = field(default_factory=dict)
    unauthorized: bool = False
    # (method, path with query) of every request that is no question of rights.
    requests: list[tuple[str, str]] = field(default_factory=list)

    def document(self, path: str) -> Any:
        """Return a document; a list of a namespace that exists is empty unless a test says otherwise."""
        listed = path.rpartition("/")[0] == NAMESPACE and NAMESPACE in self.objects
        return self.objects.get(path, {"items": []} if listed else None)


class _Server(ThreadingHTTPServer):
    answers: Answers
    # Rights are asked for several at a time.
    request_queue_size = 64


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    # Headers and body in one packet: two would wait for each other.
    wbufsize = -1
    disable_nagle_algorithm = True

    def _reply(self, status: int, document: Any) -> None:
        text = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _answer(self) -> None:
        answers, path = self.server.answers, urlsplit(self.path).path
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"null")
        if answers.unauthorized:
            self._reply(401, {"message": "Unauthorized"})
        elif path == REVIEWS:
            asked = body["spec"]["resourceAttributes"]
            part = f"/{asked['subresource']}" if asked.get("subresource") else ""
            allowed = f"{asked['verb']} {asked['resource']}{part}" not in answers.denied
            self._reply(201, {"status": {"allowed": allowed}})
        elif self.command == "POST":
            answers.requests.append((self.command, self.path))
            wanted = {one.get("nodePort") for one in body["spec"]["ports"]}
            refused = [why for port, why in answers.ports.items() if port in wanted]
            self._reply(422 if refused else 201, {"message": refused[0]} if refused else body)
        else:
            answers.requests.append((self.command, self.path))
            found = answers.document(path)
            self._reply(200 if found is not None else 404, found if found is not None else {"kind": "Status"})

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _answer  # noqa: N815  # the names that the server calls

    def log_message(self, *arguments: object) -> None:
        del arguments


@contextmanager
def serving(answers: Answers, directory: Path) -> Iterator[Path]:
    """Serve the answers, and yield a kubeconfig with the context `test`."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.answers = answers
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    document = {
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "users": [{"name": "u", "user": {"token": "a-token-of-the-user"}}],
        "contexts": [{"name": "test", "context": {"cluster": "c", "user": "u"}}],
    }
    path = directory / "kubeconfig"
    path.write_text(yaml.safe_dump(document))
    try:
        yield path
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
