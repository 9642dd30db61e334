"""What a service is, without saying which engine runs it.

A tier describes each of its services once as a :class:`ServiceSpec`; a platform (``infra.platforms``) turns
the description into containers or Swarm services.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pulumi


@dataclass(frozen=True, kw_only=True)
class HealthCheck:
    """A command that exits 0 exactly when the service does its work.

    ``command`` runs inside the container, without a shell unless it names one. Times are in whole seconds.

    The engine asks every ``interval``, for as long as the stack stands: each question costs 15 to 60 ms of CPU, times
    all services. While a service starts, `Ready` asks by itself, and more often. So what fails is unhealthy after
    ``interval * retries + timeout`` at the latest: 130 s.
    """

    command: tuple[str, ...]
    interval: int = 60
    timeout: int = 10
    retries: int = 2
    start_period: int = 60


@dataclass(frozen=True, kw_only=True)
class File:
    """A file placed in the container before it starts.

    ``owner`` is a uid, root when None. Only for services without ``user``: with both, the engine looks the
    uid up among the users of its host, where it need not exist.
    """

    path: str
    content: pulumi.Input[str]
    mode: str = "0444"
    owner: int | None = None


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A named volume of the stack, mounted at ``path``."""

    volume: str
    path: str
    read_only: bool = False


@dataclass(frozen=True, kw_only=True)
class Port:
    """A container port published on one address of the host."""

    internal: int
    external: int
    address: str


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Most a service may use. ``memory`` in MiB, ``cpus`` in cores, ``pids``: processes and threads together."""

    memory: int
    cpus: float = 2.0
    pids: int = 512


@dataclass(frozen=True, kw_only=True)
class ServiceSpec:
    """One service of the stack.

    ``image`` is a role of the release catalogue (``infra.catalogue.releases``), not an image name. ``networks`` are
    logical names (none: no network at all); the service answers there to ``name``. ``after`` names the
    services that must be ready first. A ``job`` runs once, to exit code 0.
    ``capabilities`` (`CHOWN`, not `CAP_CHOWN`) are added back after all were dropped; None keeps the engine's
    default set without NET_RAW. ``init`` puts a reaping PID 1 before the command. ``stop_grace``, ``ready_timeout``:
    seconds. ``dns_options`` are those of resolv.conf.
    """

    name: str
    image: str
    networks: tuple[str, ...]
    limits: Limits
    after: tuple[str, ...] = ()
    environment: Mapping[str, pulumi.Input[str]] = field(default_factory=dict)
    entrypoint: tuple[str, ...] | None = None
    command: tuple[str, ...] | None = None
    files: tuple[File, ...] = ()
    mounts: tuple[Mount, ...] = ()
    ports: tuple[Port, ...] = ()
    tmpfs: Mapping[str, str] = field(default_factory=dict)
    health: HealthCheck | None = None
    user: str | None = None
    capabilities: tuple[str, ...] | None = ()
    dns_options: tuple[str, ...] = ()
    init: bool = False
    read_only: bool = False
    job: bool = False
    stop_grace: int = 20
    stop_signal: str | None = None
    ready_timeout: int = 240
