"""The OAuth gateway in its real image, with a real Redis: Debian's versions of everything, two worker processes."""

import io
import json
import secrets
import statistics
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import docker
import httpx
import pytest

from dify_gateway import client_secrets, keys
from dify_kit.setup.base_images import BASE
from infra.catalogue.project import ROOT
from infra.platforms.images import BASE_ARGUMENT
from support.gateway import ACME_KEY, AUDIENCE, ISSUER, KID, OTHER_SECRET, SECRET, SIGNING_KEY, documents
from support.images import image_of
from support.stacks import unique
from support.tokens import Forge
from tests.integration.containers import printed
from tests.unit.gateway.hostile import CASES

CONFIG = "/etc/dify-gateway"
GATEWAY_UID = 1002
PASSWORD = secrets.token_hex(16)
MEGABYTE = 2**20
# What an HTTP client can send, and a server does not strip.
UNSENDABLE = {
    "newline inside",
    "newline behind",
    "null byte behind",
    "space in front",
    "scheme and a space",
    "much too long",
}
SENDABLE = [name for name in CASES if name not in UNSENDABLE]


def installation() -> dict[str, Any]:
    """Return the files of the small installation, with this test's Redis."""
    files = documents()
    files["config.json"]["redis"]["url"] = f"redis://:{PASSWORD}@redis:6379/5"
    return files


def archive(revision: str, files: Mapping[str, Any]) -> bytes:
    """Return a tar of a revision, and of the link that makes it the current one."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in ("releases", f"releases/{revision}"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for name, content in files.items():
            data = (content if isinstance(content, str) else json.dumps(content)).encode()
            entry = tarfile.TarInfo(f"releases/{revision}/{name}")
            entry.size, entry.mode, entry.uid, entry.mtime = len(data), 0o400, GATEWAY_UID, int(time.time())
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


class Running:
    """A gateway and its Redis on a network of their own."""

    def __init__(self) -> None:
        self.docker = docker.from_env()
        # A connection for each request, so that both workers are asked.
        self.http = httpx.Client(timeout=60, limits=httpx.Limits(max_keepalive_connections=0))
        self.name = unique("gateway")
        self.image, _ = self.docker.images.build(
            path=str(ROOT / "gateway"), tag=f"{self.name}:test", rm=True, buildargs={BASE_ARGUMENT: BASE}
        )
        self.network = self.docker.networks.create(self.name)
        self.containers: list[Any] = []
        self.released = 0
        self.redis = self._run(
            self._redis_image(),
            command=["redis-server", "--appendonly", "yes", "--requirepass", PASSWORD],
            name=f"{self.name}-redis",
        )
        self.network.disconnect(self.redis)
        self.network.connect(self.redis, aliases=["redis"])
        any_port: Any = {f"{port}/tcp": ("127.0.0.1", None) for port in (8090, 8091)}
        self.gateway: Any = self.docker.containers.create(
            self.image,
            name=f"{self.name}-gateway",
            network=self.name,
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            volumes={self.name: {"bind": CONFIG, "mode": "rw"}},
            ports=any_port,
        )
        self.containers.append(self.gateway)
        self.switch(installation())
        self.gateway.start()
        self.wait()

    def _run(self, image: str, **options: Any) -> Any:
        container = self.docker.containers.run(image, network=self.name, detach=True, **options)
        self.containers.append(container)
        return container

    def _redis_image(self) -> str:
        return image_of("redis")

    def address(self, port: int) -> str:
        self.gateway.reload()
        return f"http://127.0.0.1:{self.gateway.ports[f'{port}/tcp'][0]['HostPort']}"

    @property
    def public(self) -> str:
        return self.address(8090)

    @property
    def internal(self) -> str:
        return self.address(8091)

    def switch(self, files: Mapping[str, Any]) -> str:
        """Push a revision through the Docker API and switch to it, as the kit does for nginx."""
        self.released += 1
        revision = str(self.released)
        assert self.gateway.put_archive(CONFIG, archive(revision, files))
        link = tarfile.TarInfo("current")
        link.type, link.linkname = tarfile.SYMTYPE, f"releases/{revision}"
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            tar.addfile(link)
        assert self.gateway.put_archive(CONFIG, buffer.getvalue())
        return revision

    def health(self) -> dict[str, Any]:
        return dict(self.http.get(f"{self.internal}/healthz").json())

    def wait(self, revision: str = "", seconds: float = 20) -> float:
        """Wait until all workers serve a revision and Redis answers; return how long it took."""
        started = time.monotonic()
        last: object = None
        while time.monotonic() - started < seconds:
            try:
                last = self.health()
            except (httpx.HTTPError, KeyError) as problem:
                last = repr(problem)
            else:
                wanted = revision or str(self.released)
                if last["status"] == "ok" and last["revisions"] == [wanted] and last["workers"] == 2:
                    return time.monotonic() - started
            time.sleep(0.05)
        raise AssertionError(f"the gateway is not well; last: {last}; {self.gateway.logs()[-2000:].decode()}")

    def token(self, client: str = "acme-app", secret: str = SECRET) -> httpx.Response:
        form = {"grant_type": "client_credentials", "client_id": client, "client_secret": secret}
        return self.http.post(f"{self.public}/oauth/token", data=form)

    def issued(self, client: str = "acme-app", secret: str = SECRET) -> str:
        answer = self.token(client, secret)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    def verify(self, token: str) -> httpx.Response:
        return self.http.get(f"{self.internal}/verify", headers={"Authorization": f"Bearer {token}"})

    def remove(self) -> None:
        self.http.close()
        for container in self.containers:
            container.remove(force=True, v=True)
        self.docker.volumes.get(self.name).remove(force=True)
        self.network.remove()
        self.docker.images.remove(f"{self.name}:test", noprune=True)


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    """One gateway for all tests of this file."""
    one = Running()
    try:
        yield one
    finally:
        one.remove()


@pytest.fixture
def forge() -> Forge:
    return Forge(issuer=ISSUER, audience=AUDIENCE, kid=KID, client="acme-app", tenant="acme", key=SIGNING_KEY)


def eventually(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def answers_of(running: Running, token: str) -> set[int]:
    """Return the statuses of enough checks over connections of their own that both workers answer."""
    return {running.verify(token).status_code for _ in range(8)}


def test_the_flow_of_the_article(running: Running) -> None:
    answer = running.token()

    assert answer.status_code == 200
    assert answer.json()["expires_in"] == 3600
    result = running.verify(answer.json()["access_token"])
    assert result.status_code == 200
    assert result.headers["X-Auth-Upstream"] == ACME_KEY
    assert result.headers["Cache-Control"] == "max-age=3"


@pytest.mark.parametrize("name", SENDABLE)
def test_hostile_header_is_refused(running: Running, forge: Forge, name: str) -> None:
    given = [(b"Authorization", CASES[name](forge).encode())]

    answer = running.http.get(f"{running.internal}/verify", headers=given)

    assert answer.status_code == 401
    assert answer.json()["error"] == "invalid_token"
    assert not [header for header in answer.headers if header.lower().startswith("x-auth-")]


def test_a_header_of_100_kb_is_not_let_in(running: Running, forge: Forge) -> None:
    headers = {"Authorization": CASES["much too long"](forge)}

    # gunicorn answers before it has read all of it, and closes: the client sees the one or the other.
    try:
        status = running.http.get(f"{running.internal}/verify", headers=headers).status_code
    except httpx.TransportError:
        status = 0

    assert status in {0, 400, 431}
    assert running.verify(forge.valid()).status_code == 200


def test_the_forge_can_make_a_token_that_is_let_in(running: Running, forge: Forge) -> None:
    assert running.verify(forge.valid()).status_code == 200


@pytest.mark.parametrize(
    "path", ["/verify", "/oauth/verify", "/oauth/..%2fverify", "/oauth/../verify", "//verify"]
)
@pytest.mark.parametrize("host", ["localhost:8091", "gateway:8091", ""])
def test_the_public_port_has_no_token_check(running: Running, path: str, host: str) -> None:
    headers = {"Authorization": f"Bearer {running.issued()}", "X-Forwarded-Port": "8091"}
    if host:
        headers["Host"] = host

    answer = running.http.get(
        httpx.URL(running.public).copy_with(raw_path=path.encode()), headers=headers, timeout=60
    )

    assert answer.status_code == 404
    assert "X-Auth-Upstream" not in answer.headers


def test_the_internal_port_issues_no_tokens(running: Running) -> None:
    form = {"grant_type": "client_credentials", "client_id": "acme-app", "client_secret": SECRET}

    assert running.http.post(f"{running.internal}/oauth/token", data=form).status_code == 404


def test_the_container_has_few_rights(running: Running) -> None:
    assert printed(running.gateway, ["id", "-u"]).strip() == str(GATEWAY_UID)
    assert running.gateway.exec_run(["touch", "/app/x"]).exit_code != 0
    assert running.gateway.exec_run(["touch", "/tmp/x"]).exit_code != 0  # noqa: S108  # the container's own


def test_dockers_own_health_check_agrees(running: Running) -> None:
    def healthy() -> bool:
        running.gateway.reload()
        return bool(running.gateway.health == "healthy")

    assert eventually(healthy, 20)


def test_a_revoked_token_is_refused_by_every_worker_at_once(running: Running) -> None:
    token = running.issued()
    form = {"token": token, "client_id": "acme-app", "client_secret": SECRET}

    assert running.http.post(f"{running.public}/oauth/revoke", data=form).status_code == 200

    assert {running.verify(token).status_code for _ in range(30)} == {401}


def test_a_removed_client_is_refused_by_every_worker_soon(running: Running) -> None:
    token = running.issued("globex-app", OTHER_SECRET)
    files = installation()
    del files["clients.json"]["clients"]["globex-app"]

    revision = running.switch(files)

    # Half a second until it is looked for; the rest is for a busy machine.
    assert running.wait(revision) < 4
    assert {running.verify(token).status_code for _ in range(20)} == {401}
    running.switch(installation())
    running.wait()


def test_keys_are_rotated_without_a_failing_token(running: Running) -> None:
    failures: list[str] = []
    issued: list[str] = [running.issued()]
    stop = threading.Event()
    public, internal = running.public, running.internal
    form = {"grant_type": "client_credentials", "client_id": "acme-app", "client_secret": SECRET}

    def use() -> None:
        while not stop.is_set():
            token = running.http.post(f"{public}/oauth/token", data=form).json()["access_token"]
            issued.append(token)
            for each in (token, issued[0]):
                headers = {"Authorization": f"Bearer {each}"}
                answer = running.http.get(f"{internal}/verify", headers=headers)
                if answer.status_code != 200:
                    failures.append(answer.text)

    threads = [threading.Thread(target=use) for _ in range(2)]
    for thread in threads:
        thread.start()
    files = installation()
    for _ in range(3):
        files["keys.json"] = keys.rotate(files["keys.json"])
        running.wait(running.switch(files))
    stop.set()
    for thread in threads:
        thread.join(timeout=20)

    assert failures == []
    assert len({token.split(".")[0] for token in issued}) > 1, "the new keys must have been used"
    running.switch(installation())
    running.wait()


def test_a_broken_release_changes_nothing_and_is_reported_for_all_workers(running: Running) -> None:
    before = running.health()["revisions"]
    running.switch({**installation(), "clients.json": "{"})

    assert eventually(lambda: running.health()["status"] == "degraded", 5)
    health = running.health()
    assert health["problems"] == [
        "clients.json: is not JSON (line 1, column 2: Expecting property name enclosed in double quotes)"
    ]
    assert health["revisions"] == before
    assert running.verify(running.issued()).status_code == 200
    running.switch(installation())
    running.wait()


def test_redis_restarts(running: Running) -> None:
    kept, revoked = running.issued(), running.issued()
    form = {"token": revoked, "client_id": "acme-app", "client_secret": SECRET}
    assert running.http.post(f"{running.public}/oauth/revoke", data=form).status_code == 200

    running.redis.kill()
    try:
        answers = {running.verify(kept).status_code for _ in range(6)}
        assert answers == {503}
        assert running.token().status_code == 503
        assert running.verify(revoked).status_code == 503
        assert running.health()["status"] == "down"
        # A polling thread writes the log.
        assert eventually(lambda: '"event": "redis"' in running.gateway.logs().decode(), 10)
    finally:
        running.redis.start()

    assert running.wait() < 10
    assert eventually(lambda: answers_of(running, kept) == {200}, 10)
    assert eventually(lambda: answers_of(running, revoked) == {401}, 10)
    assert running.token().status_code == 200


def test_redis_hangs(running: Running) -> None:
    token = running.issued()
    running.redis.pause()
    try:
        for _ in range(4):
            started = time.monotonic()
            answer = running.verify(token)
            assert answer.status_code == 503
            assert answer.headers["Cache-Control"] == "no-store"
            # It waits for 0.8 s, nginx for one; the rest is for a busy machine.
            assert time.monotonic() - started < 3
    finally:
        running.redis.unpause()

    assert eventually(lambda: answers_of(running, token) == {200}, 10)


def test_the_gateway_is_killed(running: Running) -> None:
    token = running.issued()

    running.gateway.kill()
    running.gateway.start()

    assert running.wait() < 10
    assert running.verify(token).status_code == 200


def test_guesses_are_limited_together_by_all_workers(running: Running) -> None:
    limit = installation()["config.json"]["limits"]["failures_per_client"]
    address = {"X-Real-IP": "192.0.2.77"}
    form = {"grant_type": "client_credentials", "client_id": "acme-app", "client_secret": OTHER_SECRET}
    answers = [
        running.http.post(f"{running.public}/oauth/token", data=form, headers=address)
        for _ in range(limit + 3)
    ]

    assert [answer.status_code for answer in answers] == [401] * limit + [429] * 3
    assert 0 < int(answers[-1].headers["Retry-After"]) <= 60
    assert running.token().status_code == 200


def seconds_to_issue(running: Running) -> float:
    """Return how long a token takes, at the median of 100."""
    took = []
    for _ in range(100):
        started = time.monotonic()
        running.issued()
        took.append(time.monotonic() - started)
    return statistics.median(took)


def test_ten_thousand_clients(running: Running) -> None:
    files = installation()
    many = [f"client-{number:05d}" for number in range(10_000)]
    hashed = client_secrets.hash_secret(SECRET)
    files["tenants.json"]["tenants"] |= {f"t-{n}": {"app_key": f"app-{n:016d}"} for n in range(48)}
    names = list(files["tenants.json"]["tenants"])
    files["clients.json"]["clients"] |= {
        client: {"tenant": names[number % 50], "scopes": ["chat"], "secrets": [hashed]}
        for number, client in enumerate(many)
    }

    with_few = seconds_to_issue(running)
    assert running.wait(running.switch(files)) < 10
    # Twice as long is what a busy machine makes of the same.
    assert seconds_to_issue(running) < 2 * with_few + 0.005
    used = running.gateway.stats(stream=False)["memory_stats"]
    assert used["usage"] - used["stats"].get("total_inactive_file", 0) < 200 * MEGABYTE
    with httpx.Client(timeout=60) as client:
        form = {"grant_type": "client_credentials", "client_secret": SECRET}
        public, internal = running.public, running.internal
        issued = [
            client.post(f"{public}/oauth/token", data={**form, "client_id": each}).json()["access_token"]
            for each in many[:1000]
        ]
        statuses = {
            client.get(f"{internal}/verify", headers={"Authorization": f"Bearer {token}"}).status_code
            for token in issued
        }
    assert statuses == {200}
    running.switch(installation())
    running.wait()


def test_the_log_is_json_and_tells_no_secret(running: Running) -> None:
    token = running.issued()
    running.verify(token + "x")

    printed = running.gateway.logs().decode()

    lines = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    assert {"token issued", "token refused", "configuration", "redis"} <= {line["event"] for line in lines}
    private = documents()["keys.json"]["keys"][0]["d"]
    for secret in (SECRET, OTHER_SECRET, PASSWORD, ACME_KEY, private, token, token.rpartition(".")[2]):
        assert secret not in printed
