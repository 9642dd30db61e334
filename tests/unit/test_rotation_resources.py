"""Passwords of PostgreSQL and Redis while they run: what the servers are told, and a run that is killed at any step."""

import hashlib
import hmac
import io
import re
import tarfile
from base64 import b64decode
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from infra.catalogue.container_paths import (
    POSTGRES_PASSWORD_FILE,
    REDIS_CONFIG,
    REDIS_PASSWORD_FILE,
    REDIS_UID,
)
from infra.engine.runtime import RUNNING, Ran, Said, State, WorkloadError
from infra.resources import redis_config, role_password
from infra.resources.redis_config import OnlyPasswordProvider, RedisConfigError, RedisConfigProvider
from infra.resources.role_password import RolePasswordError, RolePasswordProvider

OLD, NEW = "old-password-0123456789", r'new "pass\word" 0123456789'
CONTAINER = "0123456789abcdef"


class Killed(BaseException):
    """SIGKILL of the process that runs the provider: no `except Exception` sees it."""


@dataclass(kw_only=True)
class Steps:
    """Counts what is done to a server; the process ends when `left` reaches 0."""

    left: int = -1
    done: int = 0

    def step(self, effect: Callable[[], Any] = lambda: None) -> Any:
        """Have an effect. The process may end before it, or after it and before the answer."""
        self._tick()
        answer = effect()
        self._tick()
        return answer

    def _tick(self) -> None:
        self.done += 1
        if self.left == 0:
            raise Killed
        self.left -= 1


class Fake(AbstractContextManager["Fake"]):
    """The parts of a `Runtime` that no test changes."""

    def __exit__(self, *_: object) -> None:
        """Close nothing."""


def hash_of(password: str) -> str:
    return hashlib.sha256(password.encode()).hexdigest()


def config_of(password: str, more: str = "") -> str:
    quoted = password.replace("\\", "\\\\").replace('"', '\\"')
    return f'port 6379\nrequirepass "{quoted}"\n{more}'


@dataclass(kw_only=True)
class FakeRedis(Fake):
    """A Redis in a container, with the rules of its ACL. `client` is what the services connect with now."""

    steps: Steps = field(default_factory=Steps)
    # Debian's package brings a configuration.
    files: dict[str, str] = field(default_factory=lambda: {REDIS_CONFIG: "daemonize yes\n"})
    owners: dict[str, tuple[int, int]] = field(default_factory=dict)
    accepted: set[str] = field(default_factory=set)
    commands: list[str] = field(default_factory=list)
    arguments: list[Sequence[str]] = field(default_factory=list)
    restarts: int = 0
    status: str = RUNNING
    broken: str = "no such directive"
    client: str = ""
    refused: list[str] = field(default_factory=list)

    def state(self) -> State | None:
        return State(status=self.status) if self.status else None

    def ask(self, command: Sequence[str], *, seconds: float, line: bytes = b"") -> Said:
        assert seconds > 0
        self.arguments.append(command)
        text = line.decode()
        assert text.endswith("\n")
        return Said(stdout=f"{self.steps.step(lambda: self._answer(text.strip()))}\n".encode(), stderr=b"")

    def _answer(self, command: str) -> str:
        if self.status != RUNNING or self.broken in self.files.get(REDIS_CONFIG, ""):
            return "Could not connect to Redis at 127.0.0.1:6379: Connection refused"
        if REDIS_PASSWORD_FILE in self.files and not self.accepted:
            self.load()
        if hash_of(self.files.get(REDIS_PASSWORD_FILE, "")) not in self.accepted:
            return "NOAUTH Authentication required."
        self.commands.append(command)
        if command == "PING":
            return "PONG"
        words = command.split()
        assert words[:3] == ["ACL", "SETUSER", "default"]
        accepted = set() if "resetpass" in words else set(self.accepted)
        self.accepted = accepted | {word[1:] for word in words if word.startswith("#")}
        self._clients()
        return "OK"

    def run(self, command: Sequence[str], *, root: bool = False) -> Ran:
        assert root
        self.arguments.append(command)
        if command[0] == "cat":
            text = self.files.get(command[1])
            return Ran(code=0 if text is not None else 1, output=text or "")
        for source, target in re.findall(r"mv -f (\S+) (\S+)", command[-1]):
            self.steps.step(partial(self._move, source, target))
        return Ran(code=0, output="")

    def _move(self, source: str, target: str) -> None:
        self.files[target], self.owners[target] = self.files.pop(source), self.owners.pop(source)

    def unpack(self, directory: str, archive: bytes) -> None:
        assert directory == "/"

        def write() -> None:
            with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
                for one in tar.getmembers():
                    if one.isfile():
                        self.files[f"/{one.name}"] = tar.extractfile(one).read().decode()  # type: ignore[union-attr]
                        self.owners[f"/{one.name}"] = (one.uid, one.mode)

        self.steps.step(write)

    def restart(self, grace: int) -> None:
        assert grace >= 60
        self.restarts += 1
        self.status = RUNNING
        self.steps.step(self.load)

    def load(self) -> None:
        """Start with the configuration of the files, as Redis reads it."""
        found = re.search(r'^requirepass "(.*)"$', self.files[REDIS_CONFIG], re.MULTILINE)
        assert found
        self.accepted = {hash_of(re.sub(r"\\(.)", r"\1", found[1]))}
        self._clients()

    def logs(self, *, lines: int) -> bytes:
        assert lines
        return f"*** FATAL CONFIG FILE ERROR ***\n{self.files[REDIS_CONFIG]}".encode()

    def _clients(self) -> None:
        if self.client and hash_of(self.client) not in self.accepted:
            self.refused.append(self.client)


@pytest.fixture
def redis(monkeypatch: pytest.MonkeyPatch) -> FakeRedis:
    fake = FakeRedis()
    monkeypatch.setattr(redis_config, "runtime", lambda _reference, _timeout: fake)
    for name, seconds in (("LIVE_SECONDS", 0.2), ("RUNNING_SECONDS", 0.1), ("POLL_SECONDS", 0.01)):
        monkeypatch.setattr(redis_config, name, seconds)
    return fake


def props(password: str, more: str = "") -> dict[str, Any]:
    return {"container": CONTAINER, "config": config_of(password, more), "password": password}


def test_a_new_redis_waits_for_its_configuration_and_gets_it_for_its_own_user_alone(redis: FakeRedis) -> None:
    RedisConfigProvider().create(props(OLD))

    assert redis.files == {REDIS_CONFIG: config_of(OLD), REDIS_PASSWORD_FILE: OLD}
    assert set(redis.owners.values()) == {(REDIS_UID, 0o400)}
    assert redis.accepted == {hash_of(OLD)}
    assert redis.restarts == 0


def test_another_password_is_accepted_besides_the_old_one_without_a_restart(redis: FakeRedis) -> None:
    RedisConfigProvider().create(props(OLD))

    RedisConfigProvider().update("", props(OLD), props(NEW))

    assert redis.accepted == {hash_of(OLD), hash_of(NEW)}
    assert redis.files == {REDIS_CONFIG: config_of(NEW), REDIS_PASSWORD_FILE: NEW}
    OnlyPasswordProvider().update("", {"container": CONTAINER, "password": OLD}, props(NEW))
    assert redis.accepted == {hash_of(NEW)}
    assert redis.restarts == 0
    said = f"{redis.arguments} {redis.commands}"
    assert OLD not in said
    assert NEW not in said


def test_another_line_of_the_configuration_restarts_redis(redis: FakeRedis) -> None:
    RedisConfigProvider().create(props(OLD))

    RedisConfigProvider().update("", props(OLD), props(OLD, "maxclients 9\n"))

    assert redis.restarts == 1
    assert "maxclients 9" in redis.files[REDIS_CONFIG]


def test_a_configuration_that_redis_rejects_is_told_without_the_password_and_the_next_one_repairs_it(
    redis: FakeRedis,
) -> None:
    RedisConfigProvider().create(props(NEW))

    with pytest.raises(RedisConfigError, match=r"data/redis\.conf\.j2") as told:
        RedisConfigProvider().update("", props(NEW), props(NEW, f"{redis.broken}\n"))

    assert "requirepass" in str(told.value)
    assert r"new \"pass" not in str(told.value)
    for status in (RUNNING, "restarting"):
        redis.status = status
        RedisConfigProvider().update("", props(NEW), props(NEW))
        assert redis.files[REDIS_CONFIG] == config_of(NEW)
        assert redis.accepted == {hash_of(NEW)}
        redis.files[REDIS_CONFIG] = config_of(NEW, redis.broken)


def test_what_redis_rejects_is_an_error(redis: FakeRedis) -> None:
    RedisConfigProvider().create(props(OLD))
    redis.files[REDIS_PASSWORD_FILE] = "changed-by-hand"

    with pytest.raises(RedisConfigError, match="NOAUTH"):
        OnlyPasswordProvider().create(props(OLD))


@pytest.mark.parametrize("status", ["", "exited", RUNNING])
def test_a_refresh_reports_a_configuration_gone_with_its_container(redis: FakeRedis, status: str) -> None:
    redis.status = status

    assert bool(RedisConfigProvider().read("id", props(OLD)).id) is (status == RUNNING)


@dataclass
class RedisStack:
    """What Pulumi's state has, and one `up` in the order of the program."""

    redis: FakeRedis
    config: dict[str, Any]
    only: dict[str, Any]

    def up(self, password: str) -> None:
        """Bring a password to Redis, restart its clients with it, and let Redis forget the old one."""
        wanted = props(password)
        if RedisConfigProvider().diff("", self.config, wanted).changes:
            RedisConfigProvider().update("", self.config, wanted)
            self.config = wanted
        self.redis.steps.step(lambda: setattr(self.redis, "client", password))
        if OnlyPasswordProvider().diff("", self.only, wanted).changes:
            OnlyPasswordProvider().update("", self.only, wanted)
            self.only = wanted


def killed_at(step: int, redis: FakeRedis) -> tuple[RedisStack, bool]:
    """Return a stack whose rotation was killed at a step, and whether it was."""
    RedisConfigProvider().create(props(OLD))
    stack = RedisStack(redis=redis, config=props(OLD), only=props(OLD))
    redis.client = OLD
    redis.steps = Steps(left=step)
    try:
        stack.up(NEW)
    except Killed:
        return stack, True
    return stack, False


# A rotation has fewer steps, which the last test of them shows.
MOST_STEPS = 40


@pytest.mark.parametrize("step", range(MOST_STEPS))
def test_redis_and_its_clients_agree_again_after_a_run_that_was_killed(redis: FakeRedis, step: int) -> None:
    stack, killed = killed_at(step, redis)
    redis.steps = Steps()

    stack.up(NEW)

    assert redis.accepted == {hash_of(NEW)}
    assert redis.files == {REDIS_CONFIG: config_of(NEW), REDIS_PASSWORD_FILE: NEW}
    assert redis.client == NEW
    assert redis.refused == [], f"killed: {killed}"
    assert redis.restarts == 0


def test_the_steps_of_a_rotation_of_redis_are_all_tried(redis: FakeRedis) -> None:
    assert not killed_at(MOST_STEPS - 1, redis)[1]
    assert redis.steps.done > 10


# --- PostgreSQL


def matches(verifier: str, password: str) -> bool:
    """Tell whether a password is that of a verifier, as PostgreSQL's server finds out (RFC 5802)."""
    found = re.fullmatch(r"SCRAM-SHA-256\$(\d+):([^$]+)\$([^:]+):(.+)", verifier)
    assert found
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), b64decode(found[2]), int(found[1]))
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    return stored == b64decode(found[3]) and hmac.digest(salted, b"Server Key", "sha256") == b64decode(
        found[4]
    )


@dataclass(kw_only=True)
class FakePostgres(Fake):
    """A PostgreSQL: `verifier` is what it has of the role's password. `trust`: its socket asks for none."""

    verifier: str
    trust: bool = False
    steps: Steps = field(default_factory=Steps)
    lost: int = 0
    error: str = ""
    tried: int = 0
    commands: list[Sequence[str]] = field(default_factory=list)
    statements: list[str] = field(default_factory=list)
    # What connects from inside the container reads it.
    file: tuple[str, int, int] = (OLD, 0, 0o400)

    def unpack(self, directory: str, archive: bytes) -> None:
        assert directory == "/run/secrets"

        def write() -> None:
            with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
                (one,) = tar.getmembers()
                assert one.name == "postgres_password"
                content = tar.extractfile(one)
                assert content
                self.file = (content.read().decode(), one.uid, one.mode)

        self.steps.step(write)

    def ask(self, command: Sequence[str], *, seconds: float, line: bytes = b"") -> Said:
        assert seconds > 0
        self.commands.append(command)
        password, statements, end = line.decode().split("\n")
        assert end == ""
        self.tried += 1
        answer = self.steps.step(lambda: self._answer(password, statements))
        if self.lost:
            self.lost -= 1
            answer = ""
        return Said(stdout=answer.encode(), stderr=b"")

    def _answer(self, password: str, statements: str) -> str:
        if self.error:
            return f"failed: Password:  {self.error}\n"
        if not self.trust and not matches(self.verifier, password):
            return 'failed: psql: error: FATAL:  password authentication failed for user "postgres"\n'
        self.statements.append(statements)
        found = re.search(r"ALTER ROLE postgres PASSWORD '([^']+)';$", statements)
        assert found
        self.verifier = found[1]
        return "done\n"


@pytest.fixture
def postgres(monkeypatch: pytest.MonkeyPatch) -> FakePostgres:
    fake = FakePostgres(verifier=role_password.verifier(OLD, b"0123456789abcdef"))
    monkeypatch.setattr(role_password, "runtime", lambda _reference, _timeout: fake)
    return fake


def role(password: str) -> dict[str, Any]:
    return {
        "container": CONTAINER,
        "service": "db-postgres",
        "password": password,
        "file": POSTGRES_PASSWORD_FILE,
    }


def test_the_verifier_is_that_of_postgresql() -> None:
    # The example of RFC 7677, as PostgreSQL writes it.
    salt, made = (
        b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="),
        (
            "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"
            "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
        ),
    )

    assert role_password.verifier("pencil", salt) == made


@pytest.mark.parametrize("trust", [False, True])
def test_the_role_gets_a_verifier_and_no_log_and_no_argument_the_password(
    postgres: FakePostgres, trust: bool
) -> None:
    postgres.trust = trust

    RolePasswordProvider().update("", role(OLD), role(NEW))

    assert matches(postgres.verifier, NEW)
    (statements,) = postgres.statements
    assert statements.index("log_statement = 'none'") < statements.index("ALTER ROLE")
    assert NEW not in f"{postgres.commands}{statements}"
    assert postgres.file == (NEW, 0, 0o400)


def test_the_file_of_a_password_that_was_set_before_is_written_once(postgres: FakePostgres) -> None:
    before = role(OLD)
    del before["file"]

    assert RolePasswordProvider().diff("", before, role(OLD)).changes
    assert not RolePasswordProvider().diff("", role(OLD), role(OLD)).changes
    RolePasswordProvider().update("", before, role(OLD))
    assert postgres.file == (OLD, 0, 0o400)


def test_a_cluster_writes_the_file_by_itself(postgres: FakePostgres) -> None:
    RolePasswordProvider().update("", role(OLD), role(NEW) | {"file": ""})

    assert matches(postgres.verifier, NEW)
    assert postgres.file == (OLD, 0, 0o400)


@pytest.mark.parametrize("step", range(6))
def test_postgresql_has_the_new_password_after_a_run_that_was_killed(
    postgres: FakePostgres, step: int
) -> None:
    postgres.steps = Steps(left=step)
    killed = False
    try:
        RolePasswordProvider().update("", role(OLD), role(NEW))
    except Killed:
        killed = True
    assert killed is (step < 4)
    postgres.steps = Steps()

    RolePasswordProvider().update("", role(OLD), role(NEW))

    assert matches(postgres.verifier, NEW)
    assert postgres.file[0] == NEW


def test_a_lost_answer_is_asked_for_again(postgres: FakePostgres) -> None:
    postgres.lost = 1

    RolePasswordProvider().update("", role(OLD), role(NEW))

    assert matches(postgres.verifier, NEW)


def test_a_volume_with_another_password_is_told_and_nothing_changes(postgres: FakePostgres) -> None:
    before = postgres.verifier

    with pytest.raises(RolePasswordError, match="dify:postgresPassword") as told:
        RolePasswordProvider().create(role(NEW))

    assert postgres.verifier == before
    assert NEW not in str(told.value)


def test_another_error_is_told_and_no_other_password_is_tried(postgres: FakePostgres) -> None:
    postgres.error = "ERROR:  cannot execute ALTER ROLE in a read-only transaction"

    with pytest.raises(RolePasswordError, match="read-only transaction"):
        RolePasswordProvider().update("", role(OLD), role(NEW))

    assert postgres.tried == 1


def test_a_database_that_does_not_run_is_told(
    monkeypatch: pytest.MonkeyPatch, postgres: FakePostgres
) -> None:
    def gone(*_: object, **__: object) -> Said:
        raise WorkloadError("there is no container")

    monkeypatch.setattr(postgres, "ask", gone)

    with pytest.raises(RolePasswordError, match="db-postgres: there is no container"):
        RolePasswordProvider().create(role(OLD))


@pytest.mark.parametrize(
    ("changed", "changes"), [({}, False), ({"password": NEW}, True), ({"container": "another"}, True)]
)
def test_another_password_or_another_container_is_a_change(changed: dict[str, str], changes: bool) -> None:
    olds = role(OLD)

    for provider in (RolePasswordProvider(), RedisConfigProvider(), OnlyPasswordProvider()):
        assert provider.diff("", olds, olds | changed).changes is changes
