"""One network namespace with an upstream, the proxies and the load in it, removed however the bench ends.

Everything shares the upstream's namespace, so that every proxy is reached over 127.0.0.1 and reaches the
upstream the same way, by Docker's name server: no bridge, no published port, no docker-proxy in between.
"""

import contextlib
import json
import os
import secrets
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import docker

from bench import cpu, images
from bench.load import Load, LoadError, command, parse
from bench.proxies import Proxy, Request, configured
from dify_kit.errors import KitError
from dify_kit.talk import say

LABEL = "dify-kit.bench"
UPSTREAM_CONFIG = "/bench/upstream.conf"
# nginx as upstream, by kind: its configuration in bench/configs.
UPSTREAMS = {"json": "upstream.conf", "llm": "llm-upstream.conf"}
UPSTREAM_USER = "65534"
RUN_SECONDS = 30
MEMORY = "512m"
LOG_DRIVER = "json-file"
LOG_OPTIONS = {"max-size": "10m", "max-file": "3"}
LOAD_GRACE_SECONDS = 20
TMP = "/tmp"  # noqa: S108  # the container's own


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One turn of one proxy: what wrk saw, and the proxy's CPU time in microseconds per request."""

    load: Load
    cpu: float


@dataclass(kw_only=True)
class Rig:
    """A running rig. Use `rig(...)`, which removes it."""

    name: str
    scratch: Path
    # Files of the load's container, and what runs beside the upstream before any proxy starts.
    load_files: Mapping[str, str] = field(default_factory=dict)
    upstream_files: Mapping[str, str] = field(default_factory=dict)
    client: Any = field(default_factory=docker.from_env)  # docker's models are not typed
    containers: dict[str, Any] = field(default_factory=dict)
    network: Any = None

    def start_upstream(self, kind: str, aliases: Sequence[str]) -> None:
        """Start the upstream, `json`, `llm` or `sse`, under the names of Dify's services."""
        self.network = self.client.networks.create(self.name, internal=True, labels={LABEL: self.name})
        if kind in UPSTREAMS:
            image, run = images.nginx(), ["nginx", "-e", "stderr", "-c", UPSTREAM_CONFIG, "-g", "daemon off;"]
            files = {UPSTREAM_CONFIG: configured(UPSTREAMS[kind]), **self.upstream_files}
        else:
            image, run, files = images.bench(), ["python3", "/bench/sse_server.py"], {}
        container = self._create("upstream", image, run, files, user=UPSTREAM_USER, network_mode="none")
        self.client.networks.get("none").disconnect(container)
        self.network.connect(container, aliases=list(aliases))
        container.start()
        # The load comes from a container, too: nothing has to be installed on the machine.
        waiting = ["sleep", "infinity"]
        self._create("load", images.bench(), waiting, self.load_files, init=True, **self._inside()).start()

    def start(self, proxy: Proxy) -> None:
        """Start a proxy and wait until it passes a request on. Raises KitError with its last words."""
        container = self._create(
            proxy.name,
            proxy.image or images.nginx(),
            list(proxy.command),
            proxy.files,
            programs=proxy.programs,
            memory=proxy.memory,
            user=proxy.user,
            environment=dict(proxy.environment),
            tmpfs=dict(proxy.tmpfs) | {TMP: ""},
            **self._inside(),
        )
        container.start()
        self.wait(proxy)

    def serve(
        self,
        name: str,
        image: str,
        run: Sequence[str],
        files: Mapping[str, str],
        **options: Any,  # noqa: ANN401  # what docker's create takes
    ) -> None:
        """Start a service that proxies ask, in the same place as the upstream."""
        self._create(name, image, list(run), files, **options, **self._inside()).start()

    def _inside(self) -> dict[str, Any]:
        return {"network_mode": f"container:{self.containers['upstream'].id}"}

    def _create(
        self,
        name: str,
        image: str,
        run: list[str],
        files: Mapping[str, str],
        *,
        programs: Mapping[str, Path] | None = None,
        memory: str = MEMORY,
        **options: Any,  # noqa: ANN401  # what docker's create takes
    ) -> Any:  # noqa: ANN401  # docker's models are not typed
        mounts = {str(path): {"bind": inside, "mode": "ro"} for inside, path in (programs or {}).items()}
        for inside, text in files.items():
            path = self.scratch / name / inside.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            mounts[str(path)] = {"bind": inside, "mode": "ro"}
        for path in (self.scratch / name).rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        container = self.client.containers.create(
            image,
            run,
            name=f"{self.name}-{name}",
            labels={LABEL: self.name},
            volumes=mounts,
            mem_limit=memory,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges:true"],
            # As the stack runs its services: a proxy's log costs what it costs there.
            log_config=docker.types.LogConfig(type=LOG_DRIVER, config=LOG_OPTIONS),
            **options,
        )
        self.containers[name] = container
        return container

    def wait(self, proxy: Proxy) -> None:
        """Wait until a proxy passes a request on. Raises KitError with its last words."""
        last = ""
        deadline = time.monotonic() + proxy.start_seconds
        while time.monotonic() < deadline:
            container = self.containers[proxy.name]
            container.reload()
            if container.status != "running":
                break
            headers = [
                part for name, value in proxy.request.headers.items() for part in ("-H", f"{name}: {value}")
            ]
            body = ["--data-binary", proxy.request.body] if proxy.request.body else []
            done = self.run(
                proxy.name,
                [
                    "curl",
                    "-sS",
                    "-o",
                    "/dev/null",
                    "-w",
                    "%{http_code}",
                    "-m",
                    "3",
                    *headers,
                    *body,
                    proxy.url,
                ],
            )
            last = done.stdout + done.stderr
            if done.stdout == "200":
                return
            time.sleep(0.3)
        container = self.containers[proxy.name]
        logs = container.logs(tail=20).decode(errors="replace")
        raise KitError(
            f"{proxy.name} ({container.status}) does not pass a request on, waited up to {proxy.start_seconds} s; "
            f"last: {last.strip()}\n{logs}"
        )

    def run(
        self, name: str, run: Sequence[str], *, seconds: float = RUN_SECONDS
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in a container of the rig, for at most `seconds`. Raises KitError when it does not end."""
        # The inner timeout ends the command inside the container; the outer one only our waiting.
        bounded = ["docker", "exec", self.containers[name].id, "timeout", "-k", "1", str(seconds), *run]
        try:
            return subprocess.run(bounded, check=False, capture_output=True, text=True, timeout=seconds + 10)
        except subprocess.TimeoutExpired:
            raise KitError(
                f"`{run[0]}` in {name} did not end within {seconds:.0f} s", "is Docker busy?"
            ) from None

    def cpu_seconds(self, name: str) -> float:
        """Return the CPU seconds that a container's processes have used so far. Raises KitError."""
        container = self.containers[name]
        container.reload()
        try:
            return cpu.tree_seconds(int(container.attrs["State"]["Pid"]))
        except cpu.NoProcessError as problem:
            raise KitError(
                f"{name}: {problem}", "unset DOCKER_HOST: figures need an engine on this machine"
            ) from None

    def load(self, proxy: Proxy, *, seconds: int) -> Measured:
        """Load one proxy for `seconds`. Raises KitError when it answers anything but success."""
        before = self.cpu_seconds(proxy.name)
        done = self.run(
            "load",
            command(proxy.url, seconds=seconds, headers=proxy.request.headers, script=proxy.request.script),
            seconds=seconds + LOAD_GRACE_SECONDS,
        )
        used = self.cpu_seconds(proxy.name) - before
        try:
            load = parse(done.stdout)
        except LoadError as problem:
            raise KitError(f"{proxy.name}: {problem} {done.stderr.strip()}") from None
        if load.refused or load.socket_errors or not load.requests:
            raise KitError(
                f"{proxy.name}: of {load.requests} requests {load.refused} were refused, "
                f"{load.socket_errors} failed in the socket",
                "figures of refusals are worth nothing: raise the limits in bench/proxies.py (EDGE_SETTINGS)",
            )
        return Measured(load=load, cpu=used * 1_000_000 / load.requests)

    @contextlib.contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """Give one container a core of its own, and all others the rest. Raises KitError on a machine of one core."""
        first, *others = sorted(os.sched_getaffinity(0))
        if not others:
            raise KitError("this machine has one core", "measure on one with two cores or more")
        shared = ",".join(map(str, others))
        for one, container in self.containers.items():
            container.update(cpuset_cpus=str(first) if one == name else shared)
        try:
            yield
        finally:
            for container in self.containers.values():
                container.update(cpuset_cpus=",".join(map(str, (first, *others))))

    def streams(
        self, request: Request, port: int, wanted: Mapping[str, Any], *, seconds: float
    ) -> list[dict[str, Any]]:
        """Follow event streams through a port and return what each saw. Raises KitError."""
        given = {"port": port, "host": request.headers["Host"], "path": request.path, **wanted}
        done = self.run("load", ["python3", "/bench/sse_client.py", json.dumps(given)], seconds=seconds)
        if done.returncode != 0:
            raise KitError(f"the streams' client failed: {done.stderr.strip()[-1500:]}")
        found: list[dict[str, Any]] = json.loads(done.stdout)["streams"]
        return found

    def remove(self) -> None:
        """Remove everything that was made."""
        for container in reversed(self.containers.values()):
            with contextlib.suppress(docker.errors.NotFound):
                container.remove(force=True)
        if self.network is not None:
            with contextlib.suppress(docker.errors.NotFound):
                self.network.remove()


@contextlib.contextmanager
def rig(
    kind: str,
    proxies: Sequence[Proxy],
    aliases: Sequence[str],
    *,
    load_files: Mapping[str, str] = MappingProxyType({}),
    upstream_files: Mapping[str, str] = MappingProxyType({}),
    services: Callable[[Rig], None] = lambda _: None,
) -> Iterator[Rig]:
    """Yield a rig with an upstream (`json`, `llm` or `sse`) and running proxies.

    `load_files` lie in the container of the load, `upstream_files` in the upstream's; `services` starts what the
    proxies need besides.
    """
    with tempfile.TemporaryDirectory(prefix="dify-kit-bench-") as scratch:
        made = Rig(
            name=f"dify-bench-{secrets.token_hex(3)}",
            scratch=Path(scratch),
            load_files=load_files,
            upstream_files=upstream_files,
        )
        try:
            say(f"starting {', '.join(proxy.name for proxy in proxies)} as {made.name}-*")
            made.start_upstream(kind, aliases)
            services(made)
            for proxy in proxies:
                made.start(proxy)
            yield made
        finally:
            made.remove()
