"""What the command line asks of the Docker engine, the one that ``infra.engine`` chooses."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import requests
from docker.errors import APIError, DockerException, NotFound

from dify_kit.containers.seen import Notice, Scale, Shown
from dify_kit.errors import KitError
from infra import engine, hints
from infra.catalogue.checks import names_secret
from infra.catalogue.names import service_name
from infra.engine.runtime import WorkloadError
from infra.guards import containers
from infra.guards.findings import Publisher
from infra.guards.ports import published
from infra.guards.volumes import labels_of
from infra.settings.secrets import SECRET_VARIABLES

STACK_LABEL = "dify-kit.stack"
SERVICE_LABEL = "dify-kit.service"
JOB_LABEL = "dify-kit.job"
SSH_HINT = "make `docker version` work through that ssh first, with a key and without a prompt"
OTHER_ENGINE = "set or unset DOCKER_HOST, or `docker context use <name>`"
# What a `Runtime` raises that cannot be reached; the errors of requests are OSErrors.
BROKEN = (WorkloadError, engine.EngineChoiceError, DockerException, OSError)
_TIMEOUT = 60
_STOP_GRACE = 20


@dataclass(frozen=True, kw_only=True)
class Container:
    """A container of the stack, or a pod. ``state`` is Docker's status, ``health`` is empty without a health check.

    ``id`` is its reference (`infra.engine.runtime`). ``image`` is the image's id or reference, ``memory_limit`` in
    bytes, 0 for none. ``secrets`` are the values of variables of its environment that hold secrets by their names.
    ``pod`` is the name of a pod, empty for a container of an engine. ``reason`` says why it has not started, or how its
    last run ended, where that is known.
    """

    id: str
    name: str
    service: str
    job: bool
    state: str
    health: str = ""
    exit_code: int = 0
    restarts: int = 0
    image: str = ""
    memory_limit: int = 0
    secrets: frozenset[str] = field(default=frozenset(), repr=False)
    pod: str = ""
    reason: str = ""

    def sick(self) -> str:
        """Say what is wrong with the container; empty when it is as it should be."""
        wrong = self._wrong()
        return f"{wrong} ({self.reason})" if wrong and self.reason else wrong

    def _wrong(self) -> str:
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
    """What runs one stack, as far as the command line needs it: a Docker engine, or a cluster.

    The last methods are for looking: what they return is shown, and not changed.
    """

    def local(self) -> bool:
        """Whether the engine runs on this machine, so that its ports and disk are ours."""

    def data_root(self) -> str:
        """Return the directory in which the engine keeps images and volumes."""

    def containers(self, stack: str) -> list[Container]:
        """Return the containers with the stack's label, in every state."""

    def inspected(self, stack: str) -> list[Mapping[str, Any]]:
        """Return everything that the engine shows of the stack's containers. Their environment has secrets."""

    def image_names(self) -> Mapping[str, str]:
        """Return id -> name of the engine's images, those without a name left out."""

    def networks(self, stack: str) -> list[Network]:
        """Return the networks with the stack's label."""

    def volumes(self, names: list[str]) -> list[str]:
        """Return those of ``names`` that exist."""

    def volume_labels(self, names: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
        """Return the labels of those of ``names`` that exist."""

    def container_labels(self, names: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
        """Return the labels of those of the containers that exist, those of other stacks too."""

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

    def image_ids(self, names: Sequence[str]) -> Mapping[str, str]:
        """Return name -> id of those of ``names`` under which the engine has an image. No registry is asked."""

    def can_reach_registry(self, image: str, deadline: float) -> str:
        """Ask the engine for ``image``'s registry entry; return why not, or an empty string."""

    def pause(self, container: Container) -> None:
        """Stop a service that has one container or pod, with its own grace, and return when it has stopped."""

    def resume(self, container: Container) -> None:
        """Start a service again that was stopped by `pause`."""

    def workloads(self, stack: str) -> list[Container]:
        """Return what runs the stack's services, in every state: containers, or pods."""
        return self.containers(stack)

    def scales(self, stack: str) -> Mapping[str, Scale]:
        """Return service -> how many pods it has; none on an engine, where a service is one container."""
        del stack
        return {}

    def notices(self, stack: str) -> list[Notice]:
        """Return what went wrong lately by the platform's own account, oldest first; none on an engine."""
        del stack
        return []

    def shown(self, stack: str) -> list[Shown]:
        """Return what the platform shows of the stack's objects."""
        return [
            Shown(
                path=f"containers/{(service := container_of(one).service)}.json",
                what=f"what the engine shows of {service}, secrets masked",
                content=one,
            )
            for one in self.inspected(stack)
        ]


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
                else f"run `{hints.kit('setup')}` (it starts a local engine), get access to the socket, or choose "
                f"another engine: {OTHER_ENGINE}",
            ) from None

    def local(self) -> bool:
        """See Engine."""
        return self._endpoint.local

    def data_root(self) -> str:
        """See Engine."""
        return str(self._info.get("DockerRootDir") or "/var/lib/docker")

    def containers(self, stack: str) -> list[Container]:
        """See Engine."""
        return [container_of(one) for one in self.inspected(stack)]

    def inspected(self, stack: str) -> list[Mapping[str, Any]]:
        """See Engine."""
        found: list[Mapping[str, Any]] = []
        with _explained("cannot list the stack's containers"):
            for summary in self._client.api.containers(all=True, filters={"label": f"{STACK_LABEL}={stack}"}):
                with contextlib.suppress(NotFound):
                    found.append(self._client.api.inspect_container(summary["Id"]))
        return found

    def image_names(self) -> Mapping[str, str]:
        """See Engine. An image that was pulled by digest alone has that name."""
        with _explained("cannot list images"):
            listed = self._client.api.images()
        named = {one["Id"]: [*(one.get("RepoTags") or ()), *(one.get("RepoDigests") or ())] for one in listed}
        known = {key: [name for name in names if "<none>" not in name] for key, names in named.items()}
        return {key: names[0] for key, names in known.items() if names}

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

    def volume_labels(self, names: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
        """See Engine."""
        with _explained("cannot list volumes"):
            return labels_of(self._client.api.volumes(), names)

    def container_labels(self, names: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
        """See Engine."""
        with _explained("cannot list containers"):
            return containers.labels_of(self._client.api.containers(all=True), names)

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

    def pause(self, container: Container) -> None:
        """See Engine."""
        self.stop_container(container.id)

    def resume(self, container: Container) -> None:
        """See Engine."""
        with _explained(f"cannot start container {container.name}"):
            self._client.api.start(container.id)

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
        return list(self.image_ids(names))

    def image_ids(self, names: Sequence[str]) -> Mapping[str, str]:
        """See Engine."""
        found = {}
        with _explained("cannot look for images"):
            for name in names:
                with contextlib.suppress(NotFound):
                    found[name] = str(self._client.api.inspect_image(name)["Id"])  # type: ignore[no-untyped-call]
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


def environment_of(details: Mapping[str, Any]) -> dict[str, str]:
    """Return the environment of an inspected container."""
    return dict(entry.partition("=")[::2] for entry in details["Config"].get("Env") or ())


def holds_secret(variable: str) -> bool:
    """Whether a variable of a service's environment holds a secret, by the catalogue or by its name."""
    return variable in SECRET_VARIABLES or names_secret(variable)


def container_of(details: Mapping[str, Any]) -> Container:
    """Return an inspected container."""
    labels = details["Config"].get("Labels") or {}
    state = details["State"]
    name = details["Name"].removeprefix("/")
    return Container(
        id=details["Id"],
        name=name,
        service=service_name(labels.get(SERVICE_LABEL, name)),
        job=labels.get(JOB_LABEL) == "true",
        state=state["Status"],
        health=(state.get("Health") or {}).get("Status", ""),
        exit_code=int(state.get("ExitCode") or 0),
        restarts=int(details.get("RestartCount") or 0),
        image=str(details["Config"].get("Image") or ""),
        memory_limit=int((details.get("HostConfig") or {}).get("Memory") or 0),
        secrets=frozenset(
            value for name, value in environment_of(details).items() if value and holds_secret(name)
        ),
    )
