"""A stand-in for an LLM's provider in the cluster, in a namespace of its own, over TLS."""

import json
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support import llm_upstream
from support.certificates import issue
from support.images import image_of
from tests.cluster.lifecycle import Cluster

PORT = 8443
MODEL = "gpt-4.1"
NAME = "provider"
START_SECONDS = 60


@dataclass(kw_only=True)
class Provider:
    """An upstream that pods reach by the name of its Service, and that takes one key."""

    cluster: Cluster
    ca_file: Path
    namespace: str = field(default_factory=lambda: f"models-{secrets.token_hex(3)}")
    key: str = field(default_factory=lambda: f"sk-cluster-{secrets.token_urlsafe(30)}", repr=False)

    @property
    def host(self) -> str:
        """The whole name of its Service: nginx reads no search domains."""
        return f"{NAME}.{self.namespace}.svc.cluster.local"

    @property
    def settings(self) -> dict[str, Any]:
        """What `dify:llm.upstreams` says about it."""
        return {
            "baseUrl": f"https://{self.host}:{PORT}/v1",
            "caFile": str(self.ca_file),
            "timeoutSeconds": 10,
        }

    def start(self) -> None:
        """Start it, and wait until it is ready. The nodes have the image of api."""
        authority = issue(ca=True, name="test CA of a provider")
        pair = issue([self.host], issuer=authority)
        self.ca_file.write_text(authority.pem, encoding="ascii")
        upstream = {
            "name": NAME,
            "port": PORT,
            "secrets": [self.key],
            "certificate": "/upstreams/provider.pem",
            "key": "/upstreams/provider.key",
        }
        files = {
            "provider.pem": pair.pem,
            "provider.key": pair.key_pem,
            "told.json": json.dumps({"verifier": 0, "upstreams": [upstream]}),
            "upstream.py": Path(llm_upstream.__file__).read_text(encoding="utf-8"),
        }
        self.cluster.apply(*self._objects(files))
        wait = ("wait", "--for=condition=Available", f"--timeout={START_SECONDS}s", f"deployment/{NAME}")
        self.cluster.kubectl(*wait, "--namespace", self.namespace, seconds=START_SECONDS + 30)

    def remove(self) -> None:
        """Remove it."""
        self.cluster.kubectl("delete", "namespace", self.namespace, "--ignore-not-found", "--wait=false")

    def _objects(self, files: dict[str, str]) -> list[dict[str, Any]]:
        metadata = {"name": NAME, "namespace": self.namespace}
        labels = {"app": NAME}
        container = {
            "name": NAME,
            "image": image_of("api"),
            "imagePullPolicy": "Never",
            "command": ["python3", "/upstreams/upstream.py", "@/upstreams/told.json"],
            "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
            "volumeMounts": [{"name": "files", "mountPath": "/upstreams", "readOnly": True}],
        }
        pod = {
            "terminationGracePeriodSeconds": 0,
            "containers": [container],
            "volumes": [{"name": "files", "secret": {"secretName": NAME}}],
        }
        return [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}},
            {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": files},
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": metadata,
                "spec": {
                    "selector": {"matchLabels": labels},
                    "template": {"metadata": {"labels": labels}, "spec": pod},
                },
            },
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": metadata,
                "spec": {"selector": labels, "ports": [{"port": PORT}]},
            },
        ]
