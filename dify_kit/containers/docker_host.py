"""What the command line asks of the Docker engine, the one that ``infra.engine`` chooses."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import requests
from docker.errors import APIError, DockerException, NotFound

from dify_kit.errors import KitError
from infra import engine
from infra.guards.ports import Publisher, published

STACK_LABEL = "dify-kit.stack"
SERVICE_LABEL = "dify-kit.service"
JOB_LABEL = "dify-kit.job"
SSH_HINT = "make `docker version` work through that ssh first, with a key and without a prompt"
OTHER_ENGINE = "set or unset DOCKER_HOST, or `docker context use <name>`"
_TIMEOUT = 60
_STOP_GRACE = 20


@dataclass(frozen=True, kw_only=True)
class Container:
    """A container of the stack. ``state`` is Docker's status, ``health`` is empty without a health check."""

    id: str
    name: str
    service: str
    job: bool
    state: str
    health: str = ""
    exit_code: int = 0

    def sick(self) -> str:
        """Say what is wrong with the container; empty when it is as it should be."""
        if self.job:
            if self.state == "exited":
                return f"failed with exit code {self.exit_code}" if self.exit_code else ""
            return "" if self.state == "running" else f"is {self.state}"
        if self.state != "running":
            return f"is {self.state}" + (
                f" with exit code {self.exit_code}" if self.state == "exited" else ""
            )
        return "is unhealthy" if self.health == "unhealthy" else ""


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network of the stack, with the names of the containers on it."""

    id: str
    name: str


class Engine(Protocol):
    """The engine, as far as deploying one stack needs it."""

    def local(self) -> bool:
        """Whether the engine runs on this machine, so that its ports and disk are ours."""

    def data_root(self) -> str:
        """Return the directory in which the engine keeps images and volumes."""

    def containers(self, stack: str) -> list[Container]:
        """Return the containers with the stack's label, in every state."""

    def networks(self, stack: str) -> list[Network]:
        """Return the networks with the stack's label."""

    def volumes(self, names: list[str]) -> list[str]:
        """Return those of ``names`` that exist."""

    def publishers(self, port: int) -> list[Publisher]:
        """Return the running containers that publish ``port`` of the host over TCP."""

    def remove_container(self, container_id: str, *, stop: bool = False) -> None:
        """Remove a container, after a proper stop when ``stop``. A missing one is no error."""

    def restart_container(self, container_id: str) -> None:
        """Stop a container with its own signal, and start it again."""

    def stop_container(self, container_id: str) -> None:
        """Stop a container with its own signal, and kill it after its own grace. A missing one is no error."""

    def remove_network(self, network_id: str) -> None:
        """Disconnect all containers from a network and remove it. A missing network is no error."""

    def remove_volume(self, name: str) -> None:
        """Remove a volume with its data."""

    def images(self, names: list[str]) -> list[str]:
        """Return those of ``names`` under which the engine has an image. No registry is asked."""

    def can_reach_registry(self, image: str, deadline: float) -> str:
        """Ask the engine for ``image``'s registry entry; return why not, or an empty string."""


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except (DockerException, requests.RequestException) as problem:
        raise KitError(
            f"{what}: {problem}", "see `docker ps -a` and `docker system df`, then try again"
        ) from None


class DockerEngine(Engine):
    """The engine, through the Docker SDK."""

    def __init__(self) -> None:
        self._endpoint = chosen_engine()
        try:
            self._client = self._endpoint.client(_TIMEOUT)
            self._info: dict[str, Any] = self._client.info()
        except (DockerException, requests.RequestException, OSError) as problem:
            missing = engine.ssh_problem(self._endpoint)
            raise KitError(
                f"the Docker engine at {self._endpoint} does not answer: {missing or problem}",
                SSH_HINT
                if missing
                else "run `make setup` (it starts a local engine), get access to the socket, or choose another engine: "
                + OTHER_ENGINE,
            ) from None

    def local(self) -> bool:
        """See Engine."""
        return self._endpoint.local

    def data_root(self) -> str:
        """See Engine."""
        return str(self._info.get("DockerRootDir") or "/var/lib/docker")

    def containers(self, stack: str) -> list[Container]:
        """See Engine."""
        found = []
        with _explained("cannot list the stack's containers"):
            for summary in self._client.api.containers(all=True, filters={"label": f"{STACK_LABEL}={stack}"}):
                with contextlib.suppress(NotFound):
                    found.append(_container(self._client.api.inspect_container(summary["Id"])))
        return found

    def networks(self, stack: str) -> list[Network]:
        """See Engine."""
        with _explained("cannot list the stack's networks"):
            listed = self._client.api.networks(filters={"label": f"{STACK_LABEL}={stack}"})
        return [Network(id=entry["Id"], name=entry["Name"]) for entry in listed]

    def volumes(self, names: list[str]) -> list[str]:
        """See Engine."""
        with _explained("cannot list volumes"):
            listed = self._client.api.volumes().get("Volumes") or []
        existing = {entry["Name"] for entry in listed}
        return [name for name in names if name in existing]

    def publishers(self, port: int) -> list[Publisher]:
        """See Engine."""
        with _explained("cannot list containers"):
            return published(self._client.api.containers(), port)

    def remove_container(self, container_id: str, *, stop: bool = False) -> None:
        """See Engine."""
        with _explained(f"cannot remove container {container_id[:12]}"), contextlib.suppress(NotFound):
            if stop:
                with contextlib.suppress(APIError):
                    self._client.api.stop(container_id, timeout=_STOP_GRACE)
            self._client.api.remove_container(container_id, v=True, force=True)

    def restart_container(self, container_id: str) -> None:
        """See Engine."""
        with _explained(f"cannot restart container {container_id[:12]}"):
            self._client.api.restart(container_id, timeout=_STOP_GRACE)

    def stop_container(self, container_id: str) -> None:
        """See Engine."""
        with _explained(f"cannot stop container {container_id[:12]}"), contextlib.suppress(NotFound):
            configured = self._client.api.inspect_container(container_id)["Config"].get("StopTimeout")
            # Given, so that the SDK waits for the answer that much longer.
            grace = _STOP_GRACE if configured is None else int(configured)
            self._client.api.stop(container_id, timeout=grace)

    def remove_network(self, network_id: str) -> None:
        """See Engine."""
        with _explained(f"cannot remove network {network_id[:12]}"), contextlib.suppress(NotFound):
            attached = self._client.api.inspect_network(network_id).get("Containers") or {}
            for container_id in attached:
                with contextlib.suppress(NotFound):
                    self._client.api.disconnect_container_from_network(container_id, network_id, force=True)
            self._client.api.remove_network(network_id)

    def remove_volume(self, name: str) -> None:
        """See Engine."""
        with _explained(f"cannot remove volume {name}"), contextlib.suppress(NotFound):
            self._client.api.remove_volume(name)

    def images(self, names: list[str]) -> list[str]:
        """See Engine."""
        found = []
        with _explained("cannot look for images"):
            for name in names:
                with contextlib.suppress(NotFound):
                    self._client.api.inspect_image(name)  # type: ignore[no-untyped-call]
                    found.append(name)
        return found

    def can_reach_registry(self, image: str, deadline: float) -> str:
        """See Engine."""
        # The engine asks the registry itself: its proxies, mirrors and credentials are what counts.
        impatient = self._endpoint.client(deadline)
        try:
            impatient.api.inspect_distribution(image)  # type: ignore[no-untyped-call]
        except (DockerException, requests.RequestException) as problem:
            return str(getattr(problem, "explanation", None) or problem)
        finally:
            impatient.close()
        return ""


def chosen_engine() -> engine.Endpoint:
    """Return the engine that docker's own rules choose. Raises KitError when they choose none."""
    try:
        return engine.chosen()
    except engine.EngineChoiceError as problem:
        raise KitError(str(problem), problem.fix) from None


def _container(details: dict[str, Any]) -> Container:
    labels = details["Config"].get("Labels") or {}
    state = details["State"]
    name = details["Name"].removeprefix("/")
    return Container(
        id=details["Id"],
        name=name,
        service=labels.get(SERVICE_LABEL, name),
        job=labels.get(JOB_LABEL) == "true",
        state=state["Status"],
        health=(state.get("Health") or {}).get("Status", ""),
        exit_code=int(state.get("ExitCode") or 0),
    )
