"""The stack's containers, as the Docker engine shows them."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import requests
import tenacity
from docker.errors import DockerException, NotFound

from infra import engine
from infra.catalogue.names import service_name
from smoke_tests.exports import TargetError

STACK_LABEL = "dify-kit.stack"
SERVICE_LABEL = "dify-kit.service"
SETTLE_SECONDS = 60.0
POLL_SECONDS = 0.5
ENGINE_SECONDS = 30
LAST = 400
# The meaning of an empty address in Docker.
EVERYWHERE = "0.0.0.0"  # noqa: S104  # compared, not bound


@dataclass(frozen=True, kw_only=True)
class Publication:
    """A port of a container that the host listens on."""

    address: str
    port: int
    inside: str


@dataclass(frozen=True, kw_only=True)
class Container:
    """One container. `health` is empty without a health check, `memory_limit` (bytes) 0 without a limit.

    `environment` and `raw` hold secrets. What follows `said` is known of a Docker engine alone.
    """

    name: str
    service: str
    status: str
    health: str
    exit_code: int
    said: str
    published: tuple[Publication, ...] = ()
    privileged: bool = False
    memory_limit: int = 0
    pids_limit: int = 0
    security_options: tuple[str, ...] = ()
    host_namespaces: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    networks: Mapping[str, str] = field(default_factory=dict)
    health_command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(repr=False, default_factory=dict)
    raw: str = field(repr=False, default="")

    @property
    def starting(self) -> bool:
        """Whether the container is still starting, so its state may change."""
        return self.status in {"created", "restarting"} or (
            self.status == "running" and self.health == "starting"
        )

    @property
    def account(self) -> str:
        """State, health and last output of the container, in a line."""
        state = f"{self.status} (exit code {self.exit_code})" if self.status == "exited" else self.status
        health = f", health: {self.health}" if self.health else ", no health check"
        return f"{self.name} is {state}{health}; last: {self.said or 'nothing'}"


def settled(read: Callable[[str], Container], name: str, until: float) -> Container:
    """Read a container again and again until it is no longer starting, or until a time of the monotonic clock."""
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_result(lambda container: container.starting),
        wait=tenacity.wait_fixed(POLL_SECONDS),
        stop=lambda _state: time.monotonic() > until,
        retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
    )
    container: Container = retrying(read, name)
    return container


class Engine:
    """The Docker engine (`infra.engine`), and one stack on it. Raises TargetError when it does not answer."""

    def __init__(self, stack: str) -> None:
        self._stack = stack
        try:
            self._client = engine.client(ENGINE_SECONDS)
            self._client.ping()
        except (engine.EngineChoiceError, DockerException, requests.RequestException, OSError) as problem:
            raise TargetError(
                f"the Docker engine does not answer: {problem}. Run these tests on the Docker host "
                "(or set DOCKER_HOST); from elsewhere, test with --url"
            ) from None
        self._settle_until = time.monotonic() + SETTLE_SECONDS
        self._proven: set[str] = set()

    def __repr__(self) -> str:
        """Name the stack."""
        return f"<Engine of stack {self._stack}>"

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def container(self, name: str) -> Container:
        """Return a container as it is now. Raises AssertionError when there is none."""
        try:
            found = self._client.api.inspect_container(name)
        except NotFound:
            raise AssertionError(
                f"container {name} does not exist. Run `make up STACK={self._stack}` to create it"
            ) from None
        container = _container(found)
        if container.status == "running" and container.health in {"", "healthy"}:
            return container
        return _container(found, said=self._last_lines(found))

    def settled(self, name: str) -> Container:
        """Return a container once it is no longer starting, or after 60 s of this run.

        Docker runs the first health check only after an interval of up to half a minute. Until then, the
        health command is run here.
        """
        return settled(self._asked, name, self._settle_until)

    def _asked(self, name: str) -> Container:
        """Return a container as it is now; healthy also when its health command succeeds before Docker runs it."""
        container = self.container(name)
        if container.status != "running" or container.health != "starting" or not container.health_command:
            return container
        if name not in self._proven:
            code, output = self.run(name, list(container.health_command))
            if code != 0:
                return replace(container, said=f"health check exited with {code}: {output.strip()[-LAST:]}")
            self._proven.add(name)
        return replace(container, health="healthy")

    def of_stack(self) -> list[Container]:
        """Return every container with the stack's label, exported or not, running or not."""
        found = self._client.api.containers(all=True, filters={"label": f"{STACK_LABEL}={self._stack}"})
        return [_container(self._client.api.inspect_container(one["Id"])) for one in found]

    def internal(self, network: str) -> bool:
        """Return whether a network is internal, without a route out."""
        return bool(self._client.api.inspect_network(network)["Internal"])

    def run(self, name: str, command: list[str]) -> tuple[int, str]:
        """Run a command that ends by itself in a container; return its exit code and output."""
        try:
            run = self._client.api.exec_create(name, command)
            output = self._client.api.exec_start(run["Id"]).decode("utf-8", errors="replace")
            code = self._client.api.exec_inspect(run["Id"])["ExitCode"]
        except (DockerException, requests.RequestException) as problem:
            raise AssertionError(f"{command[0]} cannot run in {name}: {problem}") from None
        return int(code or 0), output

    def _last_lines(self, found: Mapping[str, Any]) -> str:
        """Return the last health log when there is one, else the last lines of the container's log."""
        checks = (found["State"].get("Health") or {}).get("Log") or []
        if checks and found["State"]["Status"] == "running":
            last = checks[-1]
            return f"health check exited with {last['ExitCode']}: {str(last['Output']).strip()[-LAST:]}"
        log = self._client.api.logs(found["Id"], tail=5).decode("utf-8", errors="replace")
        return str(found["State"].get("Error") or "") + log.strip()[-LAST:]


def _container(found: Mapping[str, Any], said: str = "") -> Container:
    config, host, state = found["Config"], found["HostConfig"], found["State"]
    name = found["Name"].removeprefix("/")
    environment = dict(entry.partition("=")[::2] for entry in config.get("Env") or [])
    # NetworkSettings has what is published now, HostConfig what the next start publishes.
    ports = {**(host.get("PortBindings") or {}), **(found["NetworkSettings"].get("Ports") or {})}
    published = {
        Publication(
            address=binding.get("HostIp") or EVERYWHERE, port=int(binding["HostPort"] or 0), inside=inside
        )
        for inside, bindings in ports.items()
        for binding in bindings or []
    }
    namespaces = {kind: host.get(f"{kind}Mode") or "" for kind in ("Network", "Pid", "Ipc", "UTS")}
    return Container(
        name=name,
        service=service_name((config.get("Labels") or {}).get(SERVICE_LABEL, name)),
        status=state["Status"],
        health=(state.get("Health") or {}).get("Status", ""),
        exit_code=int(state.get("ExitCode") or 0),
        said=said,
        published=tuple(sorted(published, key=lambda one: (one.port, one.address))),
        privileged=bool(host.get("Privileged")),
        memory_limit=int(host.get("Memory") or 0),
        pids_limit=int(host.get("PidsLimit") or 0),
        security_options=tuple(host.get("SecurityOpt") or ()),
        host_namespaces=tuple(kind for kind, mode in namespaces.items() if mode == "host"),
        mounts=tuple(str(mount.get("Source", "")) for mount in found.get("Mounts") or ()),
        networks={
            network: details.get("IPAddress") or ""
            for network, details in (found["NetworkSettings"].get("Networks") or {}).items()
        },
        health_command=_health_command((config.get("Healthcheck") or {}).get("Test") or []),
        environment=environment,
        raw=json.dumps(found),
    )


def _health_command(test: list[str]) -> tuple[str, ...]:
    """Return the command of a container's health check; empty without one."""
    kind, *rest = test or ["NONE"]
    return {"CMD": tuple(rest), "CMD-SHELL": ("/bin/sh", "-c", *rest)}.get(kind, ())
