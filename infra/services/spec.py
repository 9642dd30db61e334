"""The description of a service that a platform runs: its row of the catalogue, and what the settings add.

`infra.services.specs` makes the descriptions; a platform (``infra.platforms``) turns them into containers.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum

import pulumi

from infra.catalogue.releases import Release
from infra.catalogue.service import HealthCheck, Limits, Mount
from infra.settings.stack import Settings


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


class Delivery(Enum):
    """How a container of one engine gets its files. A pod of a cluster gets them before it starts, in each case."""

    # Before it starts: a change replaces the container.
    AT_START = "at start"
    # Before it starts. The service reads them when it has no data yet, and a change is none for a container that runs.
    FIRST_START = "first start"
    # Into the running container, by the resource that configures it: the service waits for them.
    RUNNING = "running"


@dataclass(frozen=True, kw_only=True)
class Port:
    """A container port published on one address of the host."""

    internal: int
    external: int
    address: str


@dataclass(frozen=True, kw_only=True)
class Details:
    """What the settings add to a service's row of the catalogue. `environment` comes on top of its variables.

    `entrypoint` takes the place of the row's, unless it is None. `aliases` are further names of the service, by the
    logical name of the network on which it answers to them.
    """

    entrypoint: tuple[str, ...] | None = None
    command: tuple[str, ...] | None = None
    environment: Mapping[str, pulumi.Input[str]] = field(default_factory=dict)
    files: tuple[File, ...] = ()
    delivery: Delivery = Delivery.AT_START
    ports: tuple[Port, ...] = ()
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


Detail = Callable[[Settings, Release], Details]


@dataclass(frozen=True, kw_only=True)
class ServiceSpec:
    """One service of the stack. The fields without an explanation here are those of `infra.catalogue.service.Service`.

    ``networks`` are the logical names of networks that the stack has (none: no network at all); the service answers
    there to ``name``, and to the ``aliases`` of that network. ``after`` names the services of the stack that must be
    ready first.
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
    delivery: Delivery = Delivery.AT_START
    mounts: tuple[Mount, ...] = ()
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
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
