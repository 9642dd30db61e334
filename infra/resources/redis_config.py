"""The configuration of Dify's Redis in its running container, and the passwords that it accepts.

Redis keeps several passwords of a user. A new one is added first, then the files in the container get it, and the old
one goes when every client has restarted with the new one: no client is refused in between. Passwords reach Redis as
their SHA-256, which is what its ACL keeps. Any other change of the configuration restarts Redis.
"""

import hashlib
import io
import tarfile
import time
from collections.abc import Collection, Mapping
from typing import Any

import pulumi
from pulumi import dynamic

from infra.catalogue import ports
from infra.catalogue.container_paths import REDIS_CONFIG, REDIS_PASSWORD_FILE, REDIS_UID
from infra.catalogue.services import SERVICES
from infra.engine.runtime import RUNNING, Runtime, WorkloadError, runtime
from infra.services.files import RedisContext

ENGINE_TIMEOUT_SECONDS = 60
COMMAND_SECONDS = 20
# How long Redis may take to answer with a configuration; it loads its data first.
LIVE_SECONDS = 120.0
# How long one that runs already may take.
RUNNING_SECONDS = 30.0
POLL_SECONDS = 0.3
LOG_LINES = 20
# An engine under load now and then loses the output of a command.
ASK_TIMES = 5
_SERVICE = "redis"
_CLI = f'head -n 1 | REDISCLI_AUTH="$(cat {REDIS_PASSWORD_FILE})" redis-cli -p {ports.REDIS}'
_DIRECTORY = REDIS_CONFIG.rpartition("/")[0]
_DRAFT = ".new"
# In the order in which they are written: Redis waits for the last one (`infra.services.data`).
_FILES = (REDIS_CONFIG, REDIS_PASSWORD_FILE)


class RedisConfigError(Exception):
    """Redis does not run with the configuration. The message has no secret."""


def digest(password: str) -> str:
    """Return a password as an ACL keeps it."""
    return hashlib.sha256(password.encode()).hexdigest()


def shape(config: str, passwords: Collection[str]) -> str:
    """Return a configuration without the passwords that it may have: what Redis has to restart for."""
    for one in sorted(filter(None, passwords), key=len, reverse=True):
        config = config.replace(RedisContext(password=one).quoted_password, "")
    return config


def archive(config: str, password: str, *, suffix: str) -> bytes:
    """Return a tar of both files for `/`, of Redis' user alone."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        folder = tarfile.TarInfo(_DIRECTORY.lstrip("/"))
        folder.type, folder.mode, folder.mtime = tarfile.DIRTYPE, 0o755, int(time.time())
        tar.addfile(folder)
        for path, text in zip(_FILES, (config, password), strict=True):
            data = text.encode()
            entry = tarfile.TarInfo(f"{path}{suffix}".lstrip("/"))
            entry.mode, entry.uid, entry.gid, entry.mtime = 0o400, REDIS_UID, REDIS_UID, int(time.time())
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


class RedisContainer:
    """Redis in its container."""

    def __init__(self, redis: Runtime) -> None:
        self._runtime = redis

    def running(self) -> bool:
        """Tell whether the container runs; Redis in it may wait for its configuration."""
        state = self._runtime.state()
        return state is not None and state.status == RUNNING

    def files(self) -> tuple[str, str]:
        """Return the configuration and the password that the container got, empty for none."""
        password = self._file(REDIS_PASSWORD_FILE)
        return (self._file(REDIS_CONFIG), password) if password else ("", "")

    def say(self, command: str) -> str:
        """Return Redis' answer to one command, authenticated with the password in the container; empty for none."""
        answer = self._runtime.ask(["sh", "-c", _CLI], seconds=COMMAND_SECONDS, line=command.encode() + b"\n")
        return answer.stdout.decode(errors="replace").strip()

    def accept(self, password: str) -> None:
        """Let Redis accept a password besides those that it accepts. Raises RedisConfigError."""
        self._must(f"ACL SETUSER default #{digest(password)}")

    def accept_only(self, password: str) -> None:
        """Let Redis accept this password and no other, in one step. Raises RedisConfigError."""
        self._must(f"ACL SETUSER default resetpass #{digest(password)}")

    def place(self, config: str, password: str) -> None:
        """Write both files, each in one step where Redis runs. Raises WorkloadError."""
        if not self.running():
            self._runtime.unpack("/", archive(config, password, suffix=""))
            return
        self._runtime.unpack("/", archive(config, password, suffix=_DRAFT))
        moves = " && ".join(f"mv -f {path}{_DRAFT} {path}" for path in _FILES)
        ran = self._runtime.run(["sh", "-c", moves], root=True)
        if ran.code != 0:
            raise RedisConfigError(f"{_SERVICE}: its files cannot be written: {ran.output.strip()}")

    def restart(self) -> None:
        """Restart Redis, which writes its data before it ends."""
        self._runtime.restart(SERVICES[_SERVICE].stop_grace)

    def answers(self, seconds: float) -> str:
        """Wait until Redis answers; return what it said instead until the time was up, empty for an answer."""
        deadline, said = time.monotonic() + seconds, "nothing"
        while time.monotonic() < deadline:
            try:
                said = self.say("PING") or "nothing"
            except WorkloadError as problem:
                # It is starting, and runs no command.
                said = str(problem)
            if said == "PONG":
                return ""
            time.sleep(POLL_SECONDS)
        return said

    def wait(self, password: str) -> None:
        """Wait until Redis answers. Raises RedisConfigError with the last log lines."""
        said = self.answers(LIVE_SECONDS)
        if not said:
            return
        logged = self._runtime.logs(lines=LOG_LINES).decode(errors="replace").rstrip()
        hidden = logged.replace(RedisContext(password=password).quoted_password, "****")
        raise RedisConfigError(
            f"{_SERVICE} does not answer with its configuration after {LIVE_SECONDS:.0f} s (it said: "
            f"{said}); look at a template of your own (data/redis.conf.j2) if you have one; last log "
            f"lines:\n{hidden}"
        )

    def _must(self, command: str) -> None:
        said = ""
        for _ in range(ASK_TIMES):
            if said := self.say(command):
                break
        if said != "OK":
            words = " ".join(command.split()[:3])
            raise RedisConfigError(f"{_SERVICE} did not take `{words}`: {said or 'it did not answer'}")

    def _file(self, path: str) -> str:
        for _ in range(ASK_TIMES):
            ran = self._runtime.run(["cat", path], root=True)
            if ran.code != 0:
                return ""
            if ran.output:
                return ran.output
        raise RedisConfigError(f"{_SERVICE}: {path} cannot be read")


def bring(redis: RedisContainer, config: str, password: str, *, former: str = "") -> None:
    """Let Redis run with a configuration. Each step may be done again by a run after one that was killed.

    `former` is the password before, empty for none. Raises RedisConfigError and WorkloadError.
    """
    if not redis.running():
        redis.place(config, password)
        redis.restart()
        redis.wait(password)
        return
    before, in_use = redis.files()
    # A run that was killed may have written one file alone.
    passwords = {password, former, in_use}
    restart = bool(before) and shape(before, passwords) != shape(config, passwords)
    if before and redis.answers(RUNNING_SECONDS):
        # The configuration that it has does not work.
        restart = True
    elif before:
        redis.accept(password)
    redis.place(config, password)
    if restart:
        redis.restart()
    redis.wait(password)


class RedisConfigProvider(dynamic.ResourceProvider):
    """Pickled by reference: this module must keep its name."""

    def create(self, props: dict[str, Any]) -> dynamic.CreateResult:
        """Give a container its configuration, for which Redis waits in a new one."""
        self._bring(props)
        return dynamic.CreateResult(props["container"][:12], outs=props)

    def update(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> dynamic.UpdateResult:
        """Let another configuration go live; the passwords before stay accepted."""
        self._bring(news, former=olds["password"])
        return dynamic.UpdateResult(outs=news)

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> dynamic.DiffResult:
        """Another configuration is an update; another container gets everything again."""
        moved = olds.get("container") != news.get("container")
        changed = any(olds.get(key) != news.get(key) for key in ("config", "password"))
        return dynamic.DiffResult(
            changes=moved or changed, replaces=["container"] if moved else [], delete_before_replace=True
        )

    def read(self, id_: str, props: dict[str, Any]) -> dynamic.ReadResult:
        """Report the configuration gone where its container does not run."""
        with runtime(props["container"], ENGINE_TIMEOUT_SECONDS) as found:
            running = RedisContainer(found).running()
        return dynamic.ReadResult(id_, props) if running else dynamic.ReadResult("", {})

    def delete(self, _id: str, props: dict[str, Any]) -> None:
        """Do nothing: the configuration goes with the container."""

    @staticmethod
    def _bring(props: Mapping[str, Any], *, former: str = "") -> None:
        with runtime(props["container"], ENGINE_TIMEOUT_SECONDS) as found:
            bring(RedisContainer(found), props["config"], props["password"], former=former)


class RedisConfig(dynamic.Resource):
    """The configuration that Dify's Redis runs in `container` (a reference). `config` and `password` are secrets."""

    def __init__(
        self,
        name: str,
        *,
        container: pulumi.Input[str],
        config: pulumi.Input[str],
        password: pulumi.Input[str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        props = {"container": container, "config": config, "password": password}
        super().__init__(RedisConfigProvider(), name, props, opts)


class OnlyPasswordProvider(dynamic.ResourceProvider):
    """Pickled by reference: this module must keep its name."""

    def create(self, props: dict[str, Any]) -> dynamic.CreateResult:
        """Let Redis accept one password alone."""
        self._accept(props)
        return dynamic.CreateResult(props["container"][:12], outs=props)

    def update(self, _id: str, _olds: dict[str, Any], news: dict[str, Any]) -> dynamic.UpdateResult:
        """Drop the passwords before."""
        self._accept(news)
        return dynamic.UpdateResult(outs=news)

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> dynamic.DiffResult:
        """Compare what was set, and where."""
        keys = ("container", "password")
        return dynamic.DiffResult(changes=any(olds.get(key) != news.get(key) for key in keys))

    def delete(self, _id: str, props: dict[str, Any]) -> None:
        """Do nothing."""

    @staticmethod
    def _accept(props: Mapping[str, Any]) -> None:
        with runtime(props["container"], ENGINE_TIMEOUT_SECONDS) as found:
            RedisContainer(found).accept_only(props["password"])


class OnlyPassword(dynamic.Resource):
    """The one password that Redis in `container` (a reference) accepts; it depends on all clients that have it."""

    def __init__(
        self,
        name: str,
        *,
        container: pulumi.Input[str],
        password: pulumi.Input[str],
        opts: pulumi.ResourceOptions,
    ) -> None:
        super().__init__(OnlyPasswordProvider(), name, {"container": container, "password": password}, opts)
