"""An edge with OAuth and a gate before a real gateway and its Redis, and tokens for it: right, wrong and hostile."""

import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from infra.settings.gate import Gate
from infra.settings.oauth import OAuth, Tenant
from infra.settings.rate_limits import Bucket, GroupLimits
from support.gateway import AUDIENCE, ISSUER, KID, SECRET, SIGNING_KEY
from support.tokens import Forge
from tests.integration.edge.container import PLAIN, Edge, Raw
from tests.integration.test_gateway import Running, installation

CHAT = "/v1/chat-messages"
INVALID = {"error": "invalid_token", "error_description": "The access token is invalid or has expired"}
# Enough that nginx opens connections to each of the gateway's workers.
AT_ONCE = 12
PATIENCE_SECONDS = 20
UNLIMITED = {"requests": 0, "concurrent": 0, "addressRequests": 0, "addressConcurrent": 0}
# Tenants besides acme and globex, each with an app of its own: how many requests at once, and how many open ones.
LIMITED: Mapping[str, GroupLimits] = {
    "five": GroupLimits(rate=Bucket(requests=5, seconds=60, burst=5)),
    "also-five": GroupLimits(rate=Bucket(requests=5, seconds=60, burst=5)),
    "two-open": GroupLimits(concurrent=2),
}


def settings_of_oauth() -> OAuth:
    """Return what the edge is rendered for."""
    limits = {"acme": GroupLimits(), "globex": GroupLimits(), **LIMITED}
    return OAuth(
        issuer=ISSUER,
        audience=AUDIENCE,
        token_seconds=3600,
        tenants=tuple(Tenant(name=name, app=f"app-of-{name}", limits=one) for name, one in limits.items()),
        clients={},
        issuers=(),
    )


def settings_of_gate() -> Gate:
    """Return what the edge is rendered for. Who may pass is the gateway's configuration, see test_gate.py."""
    return Gate(
        origins=("http://localhost",),
        issuer="http://id.test",
        client_id="dify",
        scopes=("openid",),
        email_domains=(),
        groups_claim=("groups",),
        allowed_groups=(),
        session_seconds=300,
        web_app=True,
    )


def app_key(tenant: str) -> str:
    """Return a tenant's Dify key."""
    return str(configuration()["tenants.json"]["tenants"][tenant]["app_key"])


def configuration() -> dict[str, Any]:
    """Return the gateway's files: those of its own tests, with a tenant and a client for each of `LIMITED`."""
    files = installation()
    # Fixed, as the forge's clients are: the secrets are not used here.
    clients, tenants = files["clients.json"]["clients"], files["tenants.json"]["tenants"]
    for name in LIMITED:
        tenants[name] = {"app_key": f"app-{name:x<16}"}
        clients[f"{name}-client"] = {**clients["acme-app"], "tenant": name, "scopes": ["chat", "workflows"]}
    return files


@dataclass
class OAuthEdge:
    """The edge, the gateway behind it, and a forge that knows the gateway's signing key."""

    edge: Edge
    gateway: Running

    @property
    def http(self) -> httpx.Client:
        """A client of the edge."""
        return self.edge.http

    def forge(self, client: str = "acme-app", tenant: str = "acme") -> Forge:
        """Return a forge for a client; its `now` is now."""
        return Forge(issuer=ISSUER, audience=AUDIENCE, kid=KID, client=client, tenant=tenant, key=SIGNING_KEY)

    def token(self, tenant: str = "acme", scope: str = "chat", **claims: Any) -> str:
        """Return a token that is right, unless `claims` make it something else."""
        client = {"acme": "acme-app", "globex": "globex-app"}.get(tenant, f"{tenant}-client")
        return self.forge(client, tenant).with_claims(scope=scope, **claims)

    def ask_once(self, token: str, path: str = CHAT, method: str = "POST", **more: Any) -> httpx.Response:
        """Send a request with a token."""
        headers = {"Authorization": f"Bearer {token}", **more.pop("headers", {})}
        return self.http.request(method, path, headers=headers, **more)

    def ask(self, token: str, path: str = CHAT, method: str = "POST", **more: Any) -> httpx.Response:
        """Do the same, and repeat it while introspection takes too long on a busy machine, as its 503 asks for."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (answer := self.ask_once(token, path, method, **more)).status_code == 503:
            if time.monotonic() > deadline:
                break
            time.sleep(0.1)
        return answer

    def raw(self, authorization: bytes, path: str = CHAT, method: str = "POST", more: bytes = b"") -> Raw:
        """Send a request whose header fields are taken as they are, and read all that comes back."""
        lines = f"{method} {path} HTTP/1.1\r\nHost: dify.test\r\nConnection: close\r\nContent-Length: 2\r\n".encode()
        return self.edge.raw(lines + more + b"Authorization: " + authorization + b"\r\n\r\n{}", seconds=5)

    def raw_refused(self, authorization: bytes) -> Raw:
        """Do the same, and come again when too many tokens were refused."""
        for _ in range(5):
            answer = self.raw(authorization)
            if answer.status != 429:
                break
            time.sleep(float(answer.response.headers["retry-after"]))
        return answer

    def until(self, status: int, token: str, seconds: float) -> float:
        """Ask until a status comes; return after how many seconds it did."""
        started = time.monotonic()
        last = 0
        while time.monotonic() - started < seconds:
            last = self.ask_once(token).status_code
            if last == status:
                return time.monotonic() - started
            time.sleep(0.1)
        raise AssertionError(f"{last} instead of {status} for {seconds} s")

    def until_issued(self, form: Mapping[str, str], seconds: float) -> None:
        """Ask for several tokens at once, which reaches all of the gateway's workers, until each is given."""
        deadline = time.monotonic() + seconds
        found: list[int] = []
        with ThreadPoolExecutor(AT_ONCE) as pool:
            while time.monotonic() < deadline:
                asked = [pool.submit(self.http.post, "/oauth/token", data=form) for _ in range(AT_ONCE)]
                found = [one.result().status_code for one in asked]
                if set(found) == {200}:
                    return
                time.sleep(0.1)
        raise AssertionError(
            f"not {AT_ONCE} tokens at once within {seconds:.0f} s; last: {found}; {self.log()}"
        )

    def revoke(self, token: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Revoke a token of `acme-app`; come again while the gateway cannot decide, as its 503 asks for."""
        form = {"token": token, "client_id": "acme-app", "client_secret": SECRET}
        deadline = time.monotonic() + seconds
        while (answer := self.http.post("/oauth/revoke", data=form)).status_code == 503:
            assert time.monotonic() < deadline, f"503 for {seconds:.0f} s; {self.log()}"
            time.sleep(0.1)
        assert answer.status_code == 200, f"{answer.status_code} {answer.text}; {self.log()}"

    def log(self) -> str:
        """Return the last that the gateway wrote, for messages."""
        return str(self.gateway.gateway.logs(tail=20).decode(errors="replace"))

    def remove(self) -> None:
        """Remove everything."""
        self.edge.network.disconnect(self.gateway.gateway, force=True)
        self.edge.remove()
        self.gateway.remove()


def start(directory: Callable[[], Path], edge_class: type[Edge] = Edge) -> OAuthEdge:
    """Start an edge with OAuth."""
    gateway = Running()
    try:
        gateway.wait(gateway.switch(configuration()))
        plain = {**PLAIN, "rateLimits": {"v1": UNLIMITED}}
        edge = edge_class(directory(), plain, oauth=settings_of_oauth(), gate=settings_of_gate())
    except BaseException:
        gateway.remove()
        raise
    found = OAuthEdge(edge=edge, gateway=gateway)
    try:
        edge.network.connect(gateway.gateway, aliases=["gateway"])
        found.until(200, found.token(), 20)
    except BaseException:
        found.remove()
        raise
    return found


def seen(answer: httpx.Response) -> dict[str, str]:
    """Return the headers that Dify saw."""
    return dict(json.loads(answer.text)["seen"])
