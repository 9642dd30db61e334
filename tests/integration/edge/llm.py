"""An edge with the LLM proxy, and stand-ins for its upstreams behind it, over TLS."""

import dataclasses
import json
import secrets
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

from infra.catalogue import ports
from infra.catalogue.releases import RELEASES
from infra.edge import llm as edge_llm
from infra.edge.context import EdgeContext, edge_context
from infra.edge.paths import AFTER_RELOAD_SECONDS, DRAIN, DRAIN_MARK, EDGE_DIRECTORY, USAGE_DIRECTORY
from infra.settings import proxy_keys
from infra.settings.llm import NGINX
from infra.settings.oauth import OAuth, Tenant
from infra.settings.proxy_keys import ProxyKey
from infra.settings.rate_limits import GroupLimits
from infra.settings.stack import Settings
from support import llm_upstream
from support.certificates import issue
from support.configuration import resolved, settings
from support.images import image_of
from tests.integration.edge.container import ALLOWED, Edge

PORTS: Mapping[str, int] = MappingProxyType(
    {"first": 8443, "second": 8444, "misnamed": 8445, "untrusted": 8446, "refused": 8447}
)
MODELS: Mapping[str, Sequence[str]] = MappingProxyType(
    {
        "gpt-4.1": ["first", "second"],
        "claude-sonnet-4.5": ["first"],
        "gemini-2.5-flash": ["refused", "misnamed", "untrusted", "second:flash"],
        "only-misnamed": ["misnamed"],
        "only-untrusted": ["untrusted"],
        "only-refused": ["refused"],
        "only-second": ["second"],
    }
)
TIMEOUT_SECONDS = 2
DOWN_SECONDS = 2
# The second upstream takes this one too.
NEXT_KEY = "sk-next-0123456789-0123456789"
PRICE = {"input": 1000.0, "output": 2000.0}


def settings_of_oauth() -> OAuth:
    """Return what makes tokens count: one tenant."""
    return OAuth(
        issuer="https://dify.test",
        audience="https://dify.test",
        token_seconds=3600,
        tenants=(Tenant(name="acme", app="app-of-acme", limits=GroupLimits()),),
        clients={},
        issuers=(),
    )


class EdgeWithLlm(Edge):
    """An edge whose `settings`, set before its start, have the LLM proxy: its files, and a place for its counters."""

    settings: Settings

    def write(self, files: Mapping[str, str]) -> None:
        """Write the configuration with what the templates do not know."""
        private = resolved(edge_llm.private_files(self.settings.llm))
        more = {**private, **edge_llm.public_files(self.settings.llm)}
        usage = self.directory / "usage"
        usage.mkdir(exist_ok=True)
        (self.directory / USAGE_DIRECTORY.lstrip("/")).mkdir(parents=True, exist_ok=True)
        super().write({**files, **{f"{EDGE_DIRECTORY}/{path}": text for path, text in more.items()}})
        usage.chmod(0o777)

    def volumes(self) -> dict[str, dict[str, str]]:
        """Return what nginx's container mounts, a place for its counters among it."""
        return {**super().volumes(), str(self.directory / "usage"): {"bind": USAGE_DIRECTORY, "mode": "rw"}}


class LlmEdge(EdgeWithLlm):
    """The edge. `keys` are the secrets of callers by name, `upstream_keys` those of upstreams."""

    engine = NGINX

    def __init__(self, directory: Path, *, body_megabytes: int = 1) -> None:
        self.body_megabytes = body_megabytes
        self.upstream_keys = {name: f"sk-{name}-{secrets.token_urlsafe(30)}" for name in PORTS}
        self.callers: list[ProxyKey] = []
        self.keys: dict[str, str] = {}
        now = datetime.now(UTC)
        self.issue("alice", now)
        self.issue("bob", now, requests_per_minute=3, concurrent=2)
        self.issue("carol", now, budget=0.05)
        self.issue("dave", now, models=("claude-sonnet-4.5",))
        self.issue("erin", now - timedelta(days=2), expires=proxy_keys.timestamp(now - timedelta(days=1)))
        self.issue("frank", now, concurrent=1)
        self.issue("mike", now, requests_per_minute=4, concurrent=1)
        self.issue("oscar", now, requests_per_minute=1, budget=0.2)
        self.issue("nora", now, requests_per_minute=4, concurrent=1)
        self.issue("grace", now, requests_per_minute=0, concurrent=0)
        self.issue("heidi", now, budget=0.01)
        self.issue("ivan", now, budget=0.01)
        self.issue("judy", now, budget=1)
        self.issue("dify", now, internal=True)
        self.authority = issue(ca=True, name="test CA")
        super().__init__(
            directory,
            {},
            change=self._context,
            published=(ports.EDGE_HTTP, ports.EDGE_LLM),
        )

    def issue(self, name: str, now: datetime, **options: Any) -> None:
        """Issue a key to a caller."""
        self.keys[name], kept = proxy_keys.issue(name, now, **options)
        self.callers.append(kept)

    def _context(self, _: EdgeContext) -> EdgeContext:
        ca = self.directory / "ca.pem"
        ca.write_text(self.authority.pem, encoding="ascii")
        upstreams = {
            name: {
                "baseUrl": f"https://{name}.test:{port}/v1",
                "caFile": str(ca),
                "timeoutSeconds": TIMEOUT_SECONDS,
            }
            for name, port in PORTS.items()
        }
        plain = {
            "cors": {"llm": [ALLOWED]},
            "llm": {
                "enabled": True,
                "engine": self.engine,
                "upstreams": upstreams,
                "models": dict(MODELS),
                "embeddings": {"text-embedding-3-small": ["first"]},
                "maxBodyMegabytes": self.body_megabytes,
                "limits": {"requests": 1000, "seconds": 1, "burst": 0, "concurrent": 100},
                "prices": dict.fromkeys(MODELS, PRICE),
            },
        }
        found = settings(plain, {"llmKeys": json.dumps(self.upstream_keys)})
        assert found.llm is not None
        self.settings = dataclasses.replace(
            found, oauth=settings_of_oauth(), llm=dataclasses.replace(found.llm, keys=tuple(self.callers))
        )
        context = edge_context(self.settings, RELEASES[found.release])
        assert context.llm is not None
        # So that a test need not wait for long until an upstream that failed is asked again.
        return dataclasses.replace(context, llm=dataclasses.replace(context.llm, down_seconds=DOWN_SECONDS))

    def start_upstream(self) -> Any:
        """Start Dify's stand-in, and the upstreams of the LLM proxy."""
        stranger = issue(ca=True, name="another CA")
        made = {
            "first": issue(["first.test"], issuer=self.authority),
            "second": issue(["second.test"], issuer=self.authority),
            "misnamed": issue(["other.test"], issuer=self.authority),
            "untrusted": issue(["untrusted.test"], issuer=stranger),
        }
        place = self.directory / "upstreams"
        place.mkdir()
        place.chmod(0o755)
        answers = []
        for name, pair in made.items():
            for suffix, text in (("pem", pair.pem), ("key", pair.key_pem)):
                (place / f"{name}.{suffix}").write_text(text, encoding="ascii")
            answers.append(
                {
                    "name": name,
                    "port": PORTS[name],
                    "secrets": [self.upstream_keys[name], *([NEXT_KEY] if name == "second" else [])],
                    "certificate": f"/upstreams/{name}.pem",
                    "key": f"/upstreams/{name}.key",
                }
            )
        program = Path(llm_upstream.__file__).read_text(encoding="utf-8")
        container = self.client.containers.create(
            image_of("api"),
            entrypoint=["python3", "-c", program],
            command=[json.dumps({"verifier": ports.GATEWAY_INTERNAL, "upstreams": answers})],
            network_mode="none",
            volumes={str(place): {"bind": "/upstreams", "mode": "ro"}},
        )
        self.things.append(container)
        self.client.networks.get("none").disconnect(container)
        self.network.connect(container, aliases=["gateway", *(f"{name}.test" for name in PORTS)])
        container.start()
        return super().start_upstream()

    def change_key(self, upstream: str, key: str) -> None:
        """Give nginx another key of an upstream, as a change of the configuration goes live."""
        path = self.directory / EDGE_DIRECTORY.lstrip("/") / edge_llm.SECRETS_FILE
        body = json.loads(path.read_text(encoding="utf-8"))
        body["keys"][upstream] = key
        path.write_text(json.dumps(body), encoding="utf-8")
        script = (
            f"{DRAIN}; "
            f"nginx -e stderr -s reload -c {EDGE_DIRECTORY}/nginx.conf; sleep {AFTER_RELOAD_SECONDS}; rm {DRAIN_MARK}"
        )
        self.inside("sh", "-c", script)

    def inside(self, *command: str) -> str:
        """Return what a command in nginx's container prints."""
        done = subprocess.run(
            ["docker", "exec", self.nginx.id, *command],
            check=True,
            capture_output=True,
            text=True,
            timeout=30,
        )
        return done.stdout + done.stderr

    def status(self, path: str) -> str:
        """Return what nginx tells inside its container."""
        return self.inside("curl", "-fsS", "--max-time", "5", f"http://127.0.0.1:{ports.EDGE_STATUS}{path}")
