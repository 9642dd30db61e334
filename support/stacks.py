"""A stack that a test owns: its name, its port, its data directory, and the command line that drives it."""

import fcntl
import json
import os
import secrets
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker

from infra.platforms.images import local_name
from support.ports import free_port

CHECKOUT = Path(__file__).resolve().parents[1]
KIT = CHECKOUT / ".venv" / "bin" / "dify-kit"
PYTEST = CHECKOUT / ".venv" / "bin" / "pytest"
UP_SECONDS = 900
# Roles of images that a stack of any release runs.
OF_EVERY_STACK = ("api", "web", "sandbox", "plugin_daemon", "postgres", "redis", "nginx", "squid", "busybox")
LEFTOVER_SECONDS, CLEAN_LOOKS = 90, 5
# The release with the fewest services, for stacks that are deployed for something else than Dify's.
SMALLEST = "1.12.1"
# How the names of a test run's stacks begin. Workers of one run inherit it.
RUN = f"it-{os.environ.setdefault('DIFY_KIT_TEST_RUN', secrets.token_hex(2))}-"
# `refresh` looks at a resource; what it finds shows as another step.
UNCHANGED = {"same", "read", "refresh"}


def unique(kind: str) -> str:
    """Return a name for what a test makes in the engine besides stacks, of this run and found by `remove_leftovers`."""
    return f"dify-{RUN}{kind}-{secrets.token_hex(3)}"


@dataclass(frozen=True, kw_only=True)
class Done:
    """A command that ended."""

    code: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def output(self) -> str:
        """Standard error and standard output of the command."""
        return f"{self.stderr}\n{self.stdout}"


@dataclass(kw_only=True)
class Stack:
    """One stack of the tests, driven through `dify-kit` as an operator would."""

    home: Path
    release: str = "1.17.1"
    # Names and ports differ between concurrent test runs.
    name: str = field(default_factory=lambda: f"{RUN}{secrets.token_hex(2)}")
    port: int = field(default_factory=free_port)
    # The first deployment.
    first: Done | None = None
    _prepared: str = ""
    _removed: bool = False

    @property
    def environment(self) -> dict[str, str]:
        """The environment of every command: a data directory of its own, and no colour."""
        kept = {
            name: value
            for name, value in os.environ.items()
            # Without bytecode, as build machines often have it, every process compiles all packages again.
            if not name.startswith(("PULUMI_", "DIFY_")) and name != "PYTHONDONTWRITEBYTECODE"
        }
        return kept | {"DIFY_KIT_HOME": str(self.home), "DIFY_KIT_STACK": self.name, "NO_COLOR": "1"}

    @property
    def url(self) -> str:
        """Where the edge listens."""
        return f"http://localhost:{self.port}"

    def kit(self, *arguments: str, timeout: int = UP_SECONDS, stdin: str = "") -> Done:
        """Run `dify-kit` and return its result, also with another exit code than 0."""
        return self._run([str(KIT), *arguments], timeout=timeout, stdin=stdin)

    def init(self, **flags: str | Sequence[str]) -> Done:
        """Create the stack's settings: local images, its own port. A flag with several values is repeated."""
        own = {"images": "local", "http-port": str(self.port), "release": self.release}
        given: dict[str, str | Sequence[str]] = {**own, **flags}
        pairs = [
            (f"--{key}", one)
            for key, value in given.items()
            for one in ([value] if isinstance(value, str) else value)
        ]
        return self.kit("init", self.name, *(part for pair in pairs for part in pair))

    def up(self) -> Done:
        """Run `dify-kit up` and demand success."""
        done = self.try_up()
        assert done.code == 0, f"up failed:\n{done.output[-6000:]}"
        return done

    def try_up(self) -> Done:
        """Run `dify-kit up`; the machine was set up before the tests."""
        with images_built_once():
            return self.kit("up", "--stack", self.name, "--skip-setup")

    def down(self) -> Done:
        """Run `dify-kit down`: the data stays."""
        done = self.kit("down", "--stack", self.name)
        assert done.code == 0, f"down failed:\n{done.output[-6000:]}"
        return done

    def pulumi(self, *arguments: str, stdin: str = "") -> Done:
        """Run plain `pulumi` in the environment that `dify-kit env` prepares, as an operator may."""
        script = f'eval "$KIT_ENV" && exec pulumi "$@" --stack {self.name}'
        command = ["bash", "-c", script, "pulumi", *arguments]
        return self._run(command, timeout=UP_SECONDS, stdin=stdin, KIT_ENV=self._shell())

    def _shell(self) -> str:
        """Return what `dify-kit env` prints: the same for the whole life of the stack, so asked for once."""
        if not self._prepared:
            done = self.kit("env", "--stack", self.name)
            assert done.code == 0, done.output
            self._prepared = done.stdout
        return self._prepared

    def set_config(self, path: str, value: str) -> None:
        """Set one setting; `path` may reach into an object (`cors.v1[0]`)."""
        done = self.pulumi("config", "set", "--path", f"dify:{path}", value)
        assert done.code == 0, done.output

    def unset_config(self, path: str) -> None:
        """Remove one setting."""
        done = self.pulumi("config", "rm", "--path", f"dify:{path}")
        assert done.code == 0, done.output

    def outputs(self, *, secrets_too: bool = False) -> dict[str, Any]:
        """Return the stack's exports."""
        done = self.pulumi("stack", "output", "--json", *(["--show-secrets"] if secrets_too else []))
        assert done.code == 0, done.output
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def steps(self, *arguments: str) -> dict[str, str]:
        """Return what `pulumi preview` would do: resource name -> operation, without those that stay the same."""
        done = self.pulumi("preview", "--json", *arguments)
        assert done.code == 0, done.output
        steps = json.loads(done.stdout).get("steps", [])
        return {step["urn"].rsplit("::", 1)[-1]: step["op"] for step in steps if step["op"] not in UNCHANGED}

    def smoke(self, *options: str, **variables: str) -> Done:
        """Run the smoke tests against this stack; `variables` are added to the environment."""
        return self._run(
            [str(PYTEST), "smoke_tests", "--stack", self.name, *options], timeout=300, **variables
        )

    def container(self, service: str) -> Any:  # docker's models are not typed
        """Return the running container of a service."""
        return docker.from_env().containers.get(f"dify-{self.name}-{service}")

    def well(self, service: str) -> bool:
        """Return whether a service's own health command succeeds now: the engine runs it once a minute."""
        container = self.container(service)
        if container.status != "running":
            return False
        return bool(container.exec_run(container.attrs["Config"]["Healthcheck"]["Test"][1:]).exit_code == 0)

    def containers(self) -> dict[str, str]:
        """Return service -> container id for everything of this stack that exists."""
        # The low-level list: the other one inspects each, and one may be gone by then.
        found = docker.from_env().api.containers(all=True, filters={"label": f"dify-kit.stack={self.name}"})
        return {one["Labels"]["dify-kit.service"]: one["Id"] for one in found}

    def volumes(self) -> list[str]:
        """Return the names of the stack's volumes."""
        found = docker.from_env().volumes.list(filters={"name": f"dify-{self.name}-"})
        return sorted(one.name for one in found)

    def start_up(self) -> "subprocess.Popen[str]":
        """Start `dify-kit up` in a process group of its own, to be killed by a test."""
        return subprocess.Popen(
            [str(KIT), "up", "--stack", self.name],
            cwd=CHECKOUT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def remove(self) -> None:
        """Remove everything of this stack, however far it came. Its state goes with its home: no need of Pulumi."""
        if self._removed:
            return
        self._removed = True
        remove_from_engine(self.name)
        (CHECKOUT / f"Pulumi.{self.name}.yaml").unlink(missing_ok=True)

    def _run(self, command: list[str], *, timeout: int, stdin: str = "", **variables: str) -> Done:
        started = time.monotonic()
        done = subprocess.run(
            command,
            cwd=CHECKOUT,
            env=self.environment | variables,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Done(
            code=done.returncode,
            stdout=done.stdout,
            stderr=done.stderr,
            seconds=time.monotonic() - started,
        )


@contextmanager
def images_built_once() -> Iterator[None]:
    """Let one worker at a time deploy while the engine lacks images that every stack has.

    Two builds of one image differ, and the name goes to the later one: the next `up` would replace the containers of
    the other worker's stack.
    """
    with (Path(tempfile.gettempdir()) / f"dify-kit-tests-{os.geteuid()}.lock").open("w") as lock:
        if not _images_are_there():
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _images_are_there():
                fcntl.flock(lock, fcntl.LOCK_UN)
        yield


def _images_are_there() -> bool:
    known = {tag for image in docker.from_env().api.images() for tag in image.get("RepoTags") or []}
    return {local_name(role) for role in OF_EVERY_STACK} <= known


def kill_group(process: "subprocess.Popen[str]") -> None:
    """Kill the command and everything in its process group, as a lost machine would."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=30)


def wait_until(condition: Callable[[], bool], *, seconds: float, what: str) -> None:
    """Wait for a condition; fail with what was waited for."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.3)
    raise AssertionError(f"not within {seconds:.0f} s: {what}")


@contextmanager
def settings_changed(stack: Stack, values: Mapping[str, str]) -> Iterator[None]:
    """Change settings for the time of a test; the next `up` brings the old ones back."""
    for path, value in values.items():
        stack.set_config(path, value)
    try:
        yield
    finally:
        for path in values:
            stack.unset_config(path)


def remove_from_engine(name: str) -> int:
    """Remove containers, networks and volumes of every stack whose name begins like this; return how many.

    Containers without such a name go with their network, which cannot be removed before them.
    """
    client, found = docker.from_env(), 0
    for container in client.containers.list(all=True, filters={"name": f"^/?dify-{name}"}):
        container.remove(force=True, v=True)
        found += 1
    for network in client.networks.list(filters={"name": f"^dify-{name}"}):
        network.reload()
        for container in network.containers:
            container.remove(force=True, v=True)
            found += 1
        network.remove()
        found += 1
    for volume in client.volumes.list(filters={"name": f"^dify-{name}"}):
        volume.remove(force=True)
        found += 1
    return found


def remove_leftovers() -> None:
    """Remove what workers of this run left that were killed: nothing, in a run that came to its end.

    Commands that they had started may go on for a while, and make more of it.
    """
    deadline, clean = time.monotonic() + LEFTOVER_SECONDS, 0
    while clean < CLEAN_LOOKS and time.monotonic() < deadline:
        try:
            clean = 0 if remove_from_engine(RUN) else clean + 1
        except docker.errors.APIError:
            clean = 0
        time.sleep(1 if clean else 0)
    for link in CHECKOUT.glob(f"Pulumi.{RUN}*.yaml"):
        link.unlink()
