"""A gateway for tests: a configuration in a directory, a Redis in memory, and both of its applications."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fakeredis
import redis
from werkzeug.test import Client, TestResponse

from dify_gateway import internal, public
from dify_gateway.config import Settings
from dify_gateway.service import Service
from dify_gateway.state import State, sealed
from support.gateway import AUDIENCE, ISSUER, KID, SEAL_KEY, SECRET, SIGNING_KEY, documents
from support.tokens import Forge

MEMORY_SINCE = "dify-gateway:memory-since"


def write_revision(directory: Path, revision: str, files: Mapping[str, Any]) -> None:
    """Write a revision and let `current` point to it, as the kit does."""
    target = directory / "releases" / revision
    target.mkdir(parents=True)
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (target / name).write_text(text, encoding="utf-8")
    draft = directory / ".current"
    draft.symlink_to(f"releases/{revision}")
    draft.rename(directory / "current")


@dataclass
class World:
    """A running gateway. `redis_server` may be shared by several."""

    directory: Path
    service: Service
    redis_server: fakeredis.FakeServer
    forge: Forge
    states: list[State] = field(default_factory=list)

    @property
    def public(self) -> Client:
        """A client of the public endpoints, without a network."""
        return Client(public.create_app(self.service))

    @property
    def redis(self) -> Any:
        """The Redis that the gateway uses: a fake one, untyped as its answers are."""
        return fakeredis.FakeRedis(server=self.redis_server, db=5)

    def switch(self, revision: str, files: Mapping[str, Any]) -> bool:
        """Switch to another revision; return whether the gateway serves it."""
        write_revision(self.directory, revision, files)
        return self.service.follow()

    def verify(self, authorization: str | None, path: str = "/verify") -> "InternalAnswer":
        """Check an Authorization header, as nginx does."""
        return ask(self.service, authorization, path)

    def token(self, client: str = "acme-app", secret: str = SECRET, **form: str) -> TestResponse:
        """Request a token with everything in the form."""
        data = {"grant_type": "client_credentials", "client_id": client, "client_secret": secret, **form}
        return self.public.post("/oauth/token", data=data)

    def issued(self, client: str = "acme-app", secret: str = SECRET, **form: str) -> str:
        """Return a new token."""
        answer = self.token(client, secret, **form)
        assert answer.status_code == 200, answer.text
        return str(answer.json["access_token"])  # type: ignore[index]  # checked above


@dataclass(frozen=True)
class InternalAnswer:
    """An answer of the internal application."""

    status: int
    headers: dict[str, str]
    body: Any


def ask(
    service: Service, authorization: str | None, path: str = "/verify", method: str = "GET"
) -> InternalAnswer:
    """Call the internal application directly: HTTP libraries would refuse to send some of the headers."""
    environ = {"PATH_INFO": path, "REQUEST_METHOD": method, "HTTP_X_REQUEST_ID": "test-request"}
    if authorization is not None:
        environ["HTTP_AUTHORIZATION"] = authorization
    started: list[tuple[int, dict[str, str]]] = []

    def start(status: str, headers: list[tuple[str, str]]) -> None:
        started.append((int(status.split(maxsplit=1)[0]), dict(headers)))

    data = b"".join(internal.create_app(service)(environ, start))
    return InternalAnswer(*started[0], json.loads(data) if data else None)


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

    # The memory of Redis started an hour ago, as in a running stack.
    remembering = fakeredis.FakeRedis(server=redis_server, db=5)
    since = sealed(SEAL_KEY, MEMORY_SINCE, str(int(time.time()) - 3600))
    remembering.set(MEMORY_SINCE, since, nx=True)
    write_revision(directory, "1", files or documents())
    service = Service(directory, connect=connect, fetch=fetch)
    service.follow()
    forge = Forge(
        issuer=ISSUER, audience=AUDIENCE, kid=KID, client="acme-app", tenant="acme", key=SIGNING_KEY
    )
    return World(directory=directory, service=service, redis_server=redis_server, forge=forge, states=states)
