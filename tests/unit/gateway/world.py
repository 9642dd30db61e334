"""A gateway for tests: a configuration in a directory, a Redis in memory, and both of its applications."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fakeredis
import redis
from cryptography.hazmat.primitives.asymmetric import ec
from werkzeug.test import Client, TestResponse

from dify_gateway import client_secrets, internal, public
from dify_gateway.config import Settings
from dify_gateway.service import Service
from dify_gateway.state import State, sealed
from tests.unit.gateway.forge import Forge, private_jwk, public_jwk

SEAL_KEY = "0123456789abcdef0123456789abcdef"
MEMORY_SINCE = "dify-gateway:memory-since"
ISSUER = "https://dify.example.com"
AUDIENCE = "https://dify.example.com/v1"
KID = "first"
ACME_KEY, GLOBEX_KEY = "app-acme0123456789", "app-globex0123456789"
SECRET = client_secrets.generate_secret()
OTHER_SECRET = client_secrets.generate_secret()
SIGNING_KEY = ec.generate_private_key(ec.SECP256R1())
CLIENT_KEY = ec.generate_private_key(ec.SECP256R1())


def documents() -> dict[str, dict[str, Any]]:
    """Return the four files of a small installation, by name: fresh copies that a test may change."""
    hashed = client_secrets.hash_secret(SECRET)
    now = int(time.time())
    return {
        "config.json": {
            "issuer": ISSUER,
            "audience": AUDIENCE,
            "redis": {"url": "redis://:redis-password@redis:6379/5", "seal_key": SEAL_KEY},
            "limits": {"failures_per_client": 5, "failures_per_address": 20, "window_seconds": 60},
        },
        "tenants.json": {
            "tenants": {
                "acme": {"app_key": ACME_KEY, "limits": "small"},
                "globex": {"app_key": GLOBEX_KEY},
            }
        },
        "clients.json": {
            "clients": {
                "acme-app": {"tenant": "acme", "scopes": ["chat", "files"], "secrets": [hashed]},
                "globex-app": {
                    "tenant": "globex",
                    "scopes": ["chat"],
                    "secrets": [client_secrets.hash_secret(OTHER_SECRET)],
                    "token_seconds": 120,
                },
                "disabled": {"tenant": "acme", "scopes": ["chat"], "secrets": [hashed], "disabled": True},
                "renewed": {
                    "tenant": "acme",
                    "scopes": ["chat"],
                    "secrets": [hashed],
                    "not_before": now + 3600,
                },
                "basic-only": {
                    "tenant": "acme",
                    "scopes": ["chat"],
                    "secrets": [hashed],
                    "auth_method": "client_secret_basic",
                },
                "signer": {
                    "tenant": "acme",
                    "scopes": ["chat", "llm"],
                    "auth_method": "private_key_jwt",
                    "jwks": {"keys": [public_jwk(CLIENT_KEY, "client-key")]},
                },
            }
        },
        "keys.json": {
            "keys": [private_jwk(SIGNING_KEY, KID, created_at=now - 60, use_from=now - 60)],
        },
    }


def write_release(directory: Path, revision: str, files: Mapping[str, Any]) -> None:
    """Write a revision and let `current` point to it, as the kit does."""
    release = directory / "releases" / revision
    release.mkdir(parents=True)
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (release / name).write_text(text, encoding="utf-8")
    draft = directory / ".current"
    draft.symlink_to(f"releases/{revision}")
    draft.rename(directory / "current")


@dataclass
class World:
    """A running gateway. `redis_server` is shared by everything that is built from it."""

    directory: Path
    service: Service
    redis_server: fakeredis.FakeServer
    forge: Forge
    states: list[State] = field(default_factory=list)

    @property
    def public(self) -> Client:
        """The public endpoints, asked without a network."""
        return Client(public.create_app(self.service))

    @property
    def redis(self) -> Any:
        """The Redis that the gateway uses: a fake one, untyped as its answers are."""
        return fakeredis.FakeRedis(server=self.redis_server, db=5)

    def switch_to(self, revision: str, files: Mapping[str, Any]) -> bool:
        """Switch to another revision; tell whether the gateway serves it."""
        write_release(self.directory, revision, files)
        return self.service.follow()

    def verify(self, authorization: str | None, path: str = "/verify") -> "Verdict":
        """Ask for a verdict, as nginx does."""
        return ask(self.service, authorization, path)

    def token(self, client: str = "acme-app", secret: str = SECRET, **form: str) -> TestResponse:
        """Ask for a token as the article does: everything in the form."""
        data = {"grant_type": "client_credentials", "client_id": client, "client_secret": secret, **form}
        return self.public.post("/oauth/token", data=data)

    def issued(self, client: str = "acme-app", secret: str = SECRET, **form: str) -> str:
        """Return a token that was just issued."""
        answer = self.token(client, secret, **form)
        assert answer.status_code == 200, answer.text
        return str(answer.json["access_token"])  # type: ignore[index]  # checked above


@dataclass(frozen=True)
class Verdict:
    """An answer of the internal application."""

    status: int
    headers: dict[str, str]
    body: Any


def ask(service: Service, authorization: str | None, path: str = "/verify", method: str = "GET") -> Verdict:
    """Call the internal application directly: HTTP libraries would refuse to send some of the headers."""
    environ = {"PATH_INFO": path, "REQUEST_METHOD": method, "HTTP_X_REQUEST_ID": "test-request"}
    if authorization is not None:
        environ["HTTP_AUTHORIZATION"] = authorization
    told: list[tuple[int, dict[str, str]]] = []

    def start(status: str, headers: list[tuple[str, str]]) -> None:
        told.append((int(status.split(maxsplit=1)[0]), dict(headers)))

    data = b"".join(internal.create_app(service)(environ, start))
    return Verdict(*told[0], json.loads(data) if data else None)


def make_world(
    directory: Path,
    files: Mapping[str, Any] | None = None,
    fetch: Callable[[str, str], Mapping[str, Any]] | None = None,
    server: fakeredis.FakeServer | None = None,
) -> World:
    """Build a gateway with a first revision."""
    redis_server = server or fakeredis.FakeServer()
    states: list[State] = []

    def connect(settings: Settings) -> State:
        def pool(_url: str) -> redis.ConnectionPool:
            return fakeredis.FakeRedis(server=redis_server, db=5).connection_pool

        state = State(settings, connect=pool)
        states.append(state)
        return state

    # Redis has been remembering for a while, as in a stack that runs.
    remembering = fakeredis.FakeRedis(server=redis_server, db=5)
    since = sealed(SEAL_KEY, MEMORY_SINCE, str(int(time.time()) - 3600))
    remembering.set(MEMORY_SINCE, since, nx=True)
    write_release(directory, "1", files or documents())
    service = Service(directory, connect=connect, fetch=fetch)
    service.follow()
    forge = Forge(
        issuer=ISSUER, audience=AUDIENCE, kid=KID, client="acme-app", tenant="acme", key=SIGNING_KEY
    )
    return World(directory=directory, service=service, redis_server=redis_server, forge=forge, states=states)
