"""A stack on the test cluster: OAuth, the LLM proxy and TLS by a certificate of its own CA, reached by a NodePort."""

import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from infra.catalogue.images import local_builds
from infra.catalogue.releases import RELEASES
from infra.catalogue.selection import Selection
from infra.platforms.kubernetes.workloads import EDGE
from infra.settings.kubernetes import PRELOADED
from support.certificates import Pair, issue
from support.images import image_of
from support.stacks import Done, Stack
from tests.cluster.lifecycle import Cluster
from tests.cluster.objects import STORAGE_CLASS
from tests.integration.cluster.provider import MODEL, NAME, Provider

NODE_PORT = 30080
RELEASE = "1.17.1"
TENANT = "acme"


@dataclass(kw_only=True)
class ClusterStack(Stack):
    """A stack in a namespace of its own. ``url`` is that of node1's port on this machine."""

    cluster: Cluster
    provider: Provider
    release: str = RELEASE
    authority: Pair = field(default_factory=lambda: issue(ca=True, name="a CA of one's own"), repr=False)

    @property
    def namespace(self) -> str:
        """The namespace of the stack."""
        return f"dify-{self.name}"

    @property
    def url(self) -> str:
        """Where nginx is reached."""
        return f"https://localhost:{self.cluster.port(NODE_PORT)}"

    @property
    def trust(self) -> ssl.SSLContext:
        """What the stack's certificate is verified with."""
        return ssl.create_default_context(cadata=self.authority.pem)

    @property
    def ca_file(self) -> Path:
        """The CA, in PEM."""
        path = self.home / "ca.pem"
        path.write_text(self.authority.pem, encoding="ascii")
        return path

    @property
    def caller_key(self) -> Path:
        """The file with a key for the LLM proxy without limits."""
        return self.home / "caller.key"

    def prepare(self) -> None:
        """Write the settings and secrets of the stack: all that the first `up` needs."""
        kubernetes = {
            "kubeconfig": str(self.cluster.kubeconfig),
            "context": self.cluster.name,
            "serviceType": "NodePort",
            "nodePort": NODE_PORT,
            "registry": PRELOADED,
            # More than one pod of api mounts Dify's file storage.
            "sharedStorageClass": STORAGE_CLASS,
            "volumeGigabytes": 1,
            # Clients of this machine come by node1; the pod of nginx may be on the other one.
            "externalTrafficPolicy": "Cluster",
        }
        llm = {
            "enabled": True,
            "upstreams": {NAME: self.provider.settings},
            "models": {MODEL: [NAME]},
            "embeddings": {},
        }
        given = {
            "platform": "kubernetes",
            "kubernetes": kubernetes,
            "httpsPort": self.cluster.port(NODE_PORT),
            "tls": {"mode": "files", "hstsSeconds": 300},
            "oauth": {"enabled": True, "tenants": {TENANT: {"app": "echo-chat"}}},
            "llm": llm,
            "modelProviders": {"proxy": {"enabled": False}},
        }
        created = self.init(
            **{"cors-origin": "https://app.example.com"},
            set=[
                f"{key}={value if isinstance(value, str) else json.dumps(value)}"
                for key, value in given.items()
            ],
        )
        assert created.code == 0, created.output
        pair = issue(["localhost"], issuer=self.authority)
        self.set_secret("tlsCertificate", pair.pem)
        self.set_secret("tlsKey", pair.key_pem)
        self.set_secret(f"llmKeys.{NAME}", self.provider.key)
        issued = self.kit("keys", "issue", "smoke", "--requests-per-minute", "0", "--concurrent", "0")
        assert issued.code == 0, issued.output
        self.caller_key.write_text(issued.stdout.strip(), encoding="ascii")
        self.caller_key.chmod(0o600)

    def set_secret(self, path: str, value: str) -> None:
        """Set a secret; it goes there by standard input."""
        done = self.pulumi("config", "set", "--secret", "--path", f"dify:{path}", stdin=value)
        assert done.code == 0, done.output

    def get(self, *words: str) -> Any:
        """Return what `kubectl get` finds in the stack's namespace."""
        return self.cluster.get(*words, "--namespace", self.namespace)

    def kubectl(self, *words: str, seconds: float = 60) -> str:
        """Run `kubectl` in the stack's namespace and return its output."""
        return self.cluster.kubectl("--namespace", self.namespace, *words, seconds=seconds)

    def pods(self) -> dict[str, str]:
        """Return pod -> uid of the pods that run."""
        return {
            one["metadata"]["name"]: one["metadata"]["uid"]
            for one in self.get("pods")["items"]
            if one["status"]["phase"] == "Running" and "deletionTimestamp" not in one["metadata"]
        }

    def chat(self, query: str, key: str = "", **more: str) -> httpx.Response:
        """Say something to the app, with its key unless there is another credential."""
        return httpx.post(
            f"{self.url}/v1/chat-messages",
            headers={"Authorization": f"Bearer {key or self.app_key()}"},
            json={"inputs": {}, "query": query, "user": "integration", "auto_generate_name": False} | more,
            timeout=30,
            verify=self.trust,
        )

    def app_key(self) -> str:
        """Return the key of the app."""
        return str(self.outputs(secrets_too=True)["appKeys"]["echo-chat"])

    def changes(self, done: Done) -> dict[str, int]:
        """Return what the last update did: operation -> resources."""
        assert done.code == 0, done.output
        history = json.loads(self.pulumi("stack", "history", "--json", "--page-size", "1").stdout)
        found: dict[str, int] = history[0]["resourceChanges"]
        return found


def load_images(cluster: Cluster, *more: str) -> None:
    """Build the images of a stack with a gateway, and load them into every node."""
    chosen = Selection(release=RELEASES[RELEASE].services, vector_store="pgvector")
    roles = {one.image for one in chosen.services().values()} | {"gateway", *more}
    cluster.load(*sorted({image_of(role) for role in roles & set(local_builds())}))


def remove_namespace(cluster: Cluster, namespace: str) -> None:
    """Delete the namespace of a stack, and leave what is in it to the cluster."""
    # The next stack has the same NodePort.
    cluster.kubectl("delete", "service", EDGE, "--namespace", namespace, "--ignore-not-found")
    cluster.kubectl("delete", "namespace", namespace, "--ignore-not-found", "--wait=false")


def ready_pods(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the pods of a list that are ready and not about to end."""
    return [
        pod
        for pod in found["items"]
        if not pod["metadata"].get("deletionTimestamp")
        and any(
            one["type"] == "Ready" and one["status"] == "True"
            for one in pod["status"].get("conditions") or []
        )
    ]
