"""`dify-kit keys rotate`: each secret under a small steady load, its failures counted, and one that is killed."""

import base64
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import docker
import httpx
import pytest

from infra.settings.rotations import ROTATED
from support.stacks import CHECKOUT, KIT, Stack, kill_group, wait_until

# pgvector, the only vector store of local images, has the password of the database.
NAMES = tuple(name for name in ROTATED if name not in {"redis", "vector-store"})
# The answers of the edge while api restarts, and 0 for none. Others come from api: it did not reach one of its servers.
API_IS_AWAY = {0, 502, 503, 504}
PAUSE_SECONDS = 0.25
# All that have a secret of the rotation: a server, and its clients once each.
DIFY = ("migration", "api", "worker", "worker-beat", "api-websocket")
REPLACED: Mapping[str, Sequence[str]] = {
    "database": (*DIFY, "plugin-daemon"),
    "sandbox": (*DIFY, "sandbox"),
    "plugin": (*DIFY, "plugin-daemon", "agent-backend"),
    "agent": (*DIFY, "agent-backend", "local-sandbox"),
    "admin": (),
    "init": DIFY,
}
# A connection that answers five times a second, until the file is there.
OVER = "/tmp/over"  # noqa: S108  # the container's own
ONE_CONNECTION = (
    f'while [ ! -e {OVER} ]; do echo "select 1;"; sleep 0.2; done | '
    "psql -h 127.0.0.1 -U postgres -d dify -X -At -v ON_ERROR_STOP=1 2>&1"
)
CHAT = {"inputs": {}, "query": "hello", "user": "u-rotation", "response_mode": "blocking"}


@dataclass
class Load:
    """Chats, one after the other: the status of each, 0 for none."""

    statuses: list[int] = field(default_factory=list)

    @property
    def failures(self) -> Counter[int]:
        """How many chats failed, by status."""
        return Counter(status for status in self.statuses if status != 200)


@dataclass
class Rotating:
    """A stack whose secrets are replaced, and what each rotation cost the clients."""

    stack: Stack
    key: str
    nodes_key: str
    report: list[str] = field(default_factory=list)

    def chat(self, http: httpx.Client) -> int:
        """Return the status of a chat."""
        try:
            headers = {"Authorization": f"Bearer {self.key}"}
            return http.post("/v1/chat-messages", headers=headers, json=CHAT).status_code
        except httpx.HTTPError:
            return 0

    @contextmanager
    def load(self, name: str) -> Iterator[Load]:
        """Send chats while the block runs, and note how many failed."""
        found, over = Load(), threading.Event()

        def send() -> None:
            with httpx.Client(base_url=self.stack.url, timeout=30) as http:
                while not over.wait(PAUSE_SECONDS):
                    found.statuses.append(self.chat(http))

        began = time.monotonic()
        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        try:
            yield found
        finally:
            over.set()
            sender.join(timeout=60)
            failed = dict(found.failures)
            seconds = time.monotonic() - began
            self.report.append(f"{name}: {len(found.statuses)} chats in {seconds:.0f} s, failed: {failed}")
            # Shown of a test that fails, and with `-s`.
            sys.stdout.write(f"{self.report[-1]}\n")

    def started(self) -> list[tuple[str, str]]:
        """Return which containers of the data tier run, and since when."""
        found = [self.stack.container(name) for name in ("db-postgres", "pgvector", "redis")]
        return [(one.id, one.attrs["State"]["StartedAt"]) for one in found]

    @contextmanager
    def connected(self, password: str) -> Iterator[None]:
        """Hold a connection to the database while the block runs, and assert that it worked to the end."""
        answers: list[tuple[int, str]] = []
        variables = {"PGPASSWORD": password}

        def hold() -> None:
            answers.append(self.run("db-postgres", ["sh", "-c", ONE_CONNECTION], **variables))

        holder = threading.Thread(target=hold, daemon=True)
        holder.start()
        try:
            yield
        finally:
            self.run("db-postgres", ["touch", OVER])
            holder.join(timeout=60)
            self.run("db-postgres", ["rm", "-f", OVER])
        ((code, said),) = answers
        assert code == 0, said
        assert said.count("1\n") > 10

    def secrets(self) -> dict[str, str]:
        """Return the secrets of the settings by their keys."""
        shown = json.loads(self.stack.pulumi("config", "--json", "--show-secrets").stdout)
        keys = {key for one in ROTATED.values() for key in one}
        return {key: shown[f"dify:{key}"]["value"] for key in keys}

    def works(self) -> None:
        """Assert that a chat is answered, and that a node runs in the sandbox."""
        with httpx.Client(base_url=self.stack.url, timeout=60) as http:
            assert self.chat(http) == 200
            ran = http.post(
                "/v1/workflows/run",
                headers={"Authorization": f"Bearer {self.nodes_key}"},
                json={
                    "inputs": {"probe": "code", "text": "abc"},
                    "response_mode": "blocking",
                    "user": "u-rotation",
                },
            )
        assert ran.json()["data"]["outputs"] == {"answer": "cba 294"}

    def run(self, service: str, command: Sequence[str], **variables: str) -> tuple[int, str]:
        """Run a command in a service's container."""
        done = self.stack.container(service).exec_run(list(command), environment=variables)
        return done.exit_code, done.output.decode()

    def status(self, service: str, url: str, *options: str) -> int:
        """Return the status of a request that the service's own container sends."""
        command = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "20", *options, url]
        return int(self.run(service, command)[1])

    def environment(self, service: str) -> dict[str, str]:
        """Return the variables of a service's container."""
        lines = self.stack.container(service).attrs["Config"]["Env"]
        return dict(line.split("=", 1) for line in lines)

    def takes(self, key: str, value: str) -> bool:  # noqa: PLR0911  # one server after another
        """Tell whether the server of a secret accepts a value."""
        header = ("-H", f"X-Api-Key: {value}")
        match key:
            case "postgresPassword":
                command = ["psql", "-h", "127.0.0.1", "-U", "postgres", "-d", "dify", "-Atc", "select 1"]
                both = {self.run(one, command, PGPASSWORD=value) for one in ("db-postgres", "pgvector")}
                (answer,) = both
                assert answer == (0, "1\n") or "password authentication failed" in answer[1]
                return answer[0] == 0
            case "redisPassword":
                return self.run("redis", ["redis-cli", "ping"], REDISCLI_AUTH=value)[1] == "PONG\n"
            case "sandboxApiKey":
                body = ("-H", "Content-Type: application/json", "-d", '{"language": "python3", "code": "1"}')
                return self._accepted(
                    self.status("sandbox", "http://127.0.0.1:8194/v1/sandbox/run", *header, *body)
                )
            case "pluginDaemonKey":
                url = "http://127.0.0.1:5002/plugin/w/management/list?page=1&page_size=1"
                return self._accepted(self.status("plugin-daemon", url, *header))
            case "agentApiToken" | "agentSandboxToken":
                service = "agent-backend" if key == "agentApiToken" else "local-sandbox"
                path = "5050/runs" if key == "agentApiToken" else "5004/anything"
                script = (
                    "import sys, urllib.request as u, urllib.error as e\n"
                    "r = u.Request(sys.argv[1], data=b'{}', headers={'Authorization': 'Bearer ' + sys.argv[2]})\n"
                    "try: print(u.urlopen(r, timeout=20).status)\n"
                    "except e.HTTPError as answer: print(answer.code)"
                )
                said = self.run(service, ["python3", "-c", script, f"http://127.0.0.1:{path}", value])
                return self._accepted(int(said[1]))
            case "adminPassword":
                login = {
                    "email": "admin@example.com",
                    "password": base64.b64encode(value.encode()).decode(),
                    "remember_me": False,
                }
                found = httpx.post(f"{self.stack.url}/console/api/login", json=login, timeout=60)
                return self._accepted(found.status_code)
        # No server of the stand-in reads these two in a request: both ends have the same value.
        ends = {
            "pluginInnerApiKey": [
                ("api", "INNER_API_KEY_FOR_PLUGIN"),
                ("worker", "INNER_API_KEY_FOR_PLUGIN"),
                ("plugin-daemon", "DIFY_INNER_API_KEY"),
                ("agent-backend", "DIFY_AGENT_INNER_API_KEY"),
            ],
            "agentServerSecretKey": [("agent-backend", "DIFY_AGENT_SERVER_SECRET_KEY")],
            "initPassword": [("api", "INIT_PASSWORD"), ("worker", "INIT_PASSWORD")],
        }
        have = {self.environment(service)[variable] for service, variable in ends[key]}
        assert len(have) == 1, key
        return have == {value}

    @staticmethod
    def _accepted(status: int) -> bool:
        assert status in {200, 401, 404, 501}, status
        return status != 401

    def assert_replaced(self, name: str, before: dict[str, str]) -> None:
        """Assert that servers refuse the old values and accept the new ones, and that no other secret changed."""
        after = self.secrets()
        assert {key for key in after if after[key] != before[key]} == set(ROTATED[name])
        for key in ROTATED[name]:
            assert self.takes(key, after[key]), f"{key}: the new value is refused"
            assert not self.takes(key, before[key]), f"{key}: the old value is accepted"
        self.works()


@pytest.fixture(scope="module")
def rotating(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rotating]:
    """A stack with a chat app, whose edge limits nothing that this test sends."""
    stack = Stack(home=tmp_path_factory.mktemp("rotation") / "home")
    try:
        made = stack.init(set=['apps=["echo-chat"]'])
        assert made.code == 0, made.output
        stack.up()
        outputs = stack.outputs(secrets_too=True)
        yield Rotating(stack=stack, key=outputs["appKeys"]["echo-chat"], nodes_key=outputs["canaryNodesKey"])
    finally:
        stack.remove()


@pytest.mark.parametrize("name", NAMES)
def test_each_secret_is_replaced_under_load(
    rotating: Rotating, name: str, record_property: Callable[[str, object], None]
) -> None:
    before, started = rotating.secrets(), rotating.started()

    with rotating.load(name) as load, rotating.connected(before["postgresPassword"]):
        done = rotating.stack.kit("keys", "rotate", name, "--stack", rotating.stack.name)

    record_property("failures", rotating.report[-1])
    assert done.code == 0, done.output[-5000:]
    assert f"{name} is rotated" in done.stderr
    assert load.statuses.count(200) > 10
    rotating.assert_replaced(name, before)
    values = (*before.values(), *rotating.secrets().values())
    assert not [one for one in values if one in done.output]
    assert rotating.started() == started
    replaced = re.findall(r"^ *\+ container (\S+) +replaced", done.stderr, re.MULTILINE)
    assert sorted(replaced) == sorted(REPLACED[name])
    if name == "admin":
        assert load.failures == {}
    # A database that refuses its clients would show as an error of api.
    if name != "database":
        assert set(load.failures) <= API_IS_AWAY


def test_a_rotation_of_redis_that_is_killed_is_completed_by_up_and_no_client_is_refused(
    rotating: Rotating, record_property: Callable[[str, object], None]
) -> None:
    stack, before = rotating.stack, rotating.secrets()

    with rotating.load("redis, killed") as load:
        _kill_when_redis_accepts_both(rotating)
        assert rotating.takes("redisPassword", before["redisPassword"])
        assert rotating.takes("redisPassword", rotating.secrets()["redisPassword"])
        stack.up()

    record_property("failures", rotating.report[-1])
    assert set(load.failures) <= API_IS_AWAY
    rotating.assert_replaced("redis", before)
    assert _accepted(rotating) == 1
    # It restarts with what its files have, and the next rotation is another one.
    redis = stack.container("redis")
    redis.restart(timeout=60)
    wait_until(lambda: stack.well("redis"), seconds=120, what="Redis answers after a restart")
    assert rotating.takes("redisPassword", rotating.secrets()["redisPassword"])
    assert stack.container("redis").id == redis.id


def test_what_was_rotated_shows_no_change_and_leaves_nothing_in_logs(rotating: Rotating) -> None:
    stack = rotating.stack

    assert stack.steps() == {}
    assert stack.outputs()["secretRotations"] == dict.fromkeys((*NAMES, "redis"), 1)
    values = rotating.secrets().values()
    for service in ("db-postgres", "pgvector", "redis"):
        logged = stack.container(service).logs().decode()
        assert logged
        assert not [one for one in values if one in logged], service
        assert "SCRAM-SHA-256" not in logged
    snapshot = stack.home / "state" / ".pulumi" / "stacks" / "dify" / f"{stack.name}.json"
    state = snapshot.read_text()
    assert "redis-only-password" in state
    assert not [one for one in values if one in state]


def _accepted(rotating: Rotating) -> int:
    """Return how many passwords Redis accepts."""
    script = 'REDISCLI_AUTH="$(cat /etc/redis/password)" redis-cli acl getuser default'
    return len(set(re.findall(r"\b[0-9a-f]{64}\b", rotating.run("redis", ["sh", "-c", script])[1])))


def _kill_when_redis_accepts_both(rotating: Rotating) -> None:
    """Start a rotation of Redis' password, and kill it with its Pulumi once Redis has the new password too."""
    stack = rotating.stack
    record = stack.home / "runs" / f"{stack.name}.json"
    running = subprocess.Popen(
        [str(KIT), "keys", "rotate", "redis", "--stack", stack.name],
        cwd=CHECKOUT,
        env=stack.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        wait_until(lambda: _accepted(rotating) == 2, seconds=240, what="Redis accepts two passwords")
        found: dict[str, Any] = json.loads(record.read_text())
    finally:
        kill_group(running)
    os.killpg(found["pid"], signal.SIGKILL)
    assert docker.from_env().ping()
