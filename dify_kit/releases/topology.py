"""What a Dify deployment consists of, without saying who wrote it down: the kit or an official compose folder."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from infra.catalogue.names import service_name, with_service_hosts

# The network of a compose file's services that name none.
DEFAULT_NETWORK = "default"


@dataclass(frozen=True, kw_only=True)
class Mount:
    """Something of the host or a volume, mounted at `target`. `source` is empty for an anonymous volume."""

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True, kw_only=True, order=True)
class Port:
    """A container port that the host publishes; `address` is empty for every address of the host."""

    internal: int
    external: int
    address: str = ""
    protocol: str = "tcp"


@dataclass(frozen=True, kw_only=True)
class Health:
    """A health command, as words (`CMD-SHELL` ones as `sh -c <text>`), and its times as they were written."""

    command: tuple[str, ...]
    times: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Service:
    """One service.

    `image` is a reference, or None where the service is built. `variables` have their final values; None stands
    for a secret that the kit generates. `passing` names those that reach the service only because it gets the whole
    file of the project (`env_file: .env`), whether it reads them or not. `depends_on` maps a service to Compose's
    condition. A service with `profiles` starts only with one of them.
    """

    name: str
    image: str | None
    variables: Mapping[str, str | None]
    passing: frozenset[str] = frozenset()
    mounts: tuple[Mount, ...] = ()
    networks: frozenset[str] = frozenset()
    ports: tuple[Port, ...] = ()
    health: Health | None = None
    depends_on: Mapping[str, str] = field(default_factory=dict)
    profiles: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Route:
    """A location of nginx, as its configuration writes it, and the service that answers there."""

    location: str
    service: str


@dataclass(frozen=True, kw_only=True)
class Topology:
    """A whole deployment. `networks` tells which of them is internal, without a way out.

    `examples` are the example files by path, as they were written: name to value.
    """

    services: Mapping[str, Service]
    networks: Mapping[str, bool]
    volumes: frozenset[str]
    routes: tuple[Route, ...]
    examples: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def with_service_names(topology: Topology) -> Topology:
    """Return a topology whose services, and the hosts in their variables, have the kit's names."""
    return replace(
        topology,
        services={
            service_name(name): replace(
                service,
                name=service_name(name),
                variables={
                    variable: value if value is None else with_service_hosts(variable, value)
                    for variable, value in service.variables.items()
                },
                depends_on={service_name(other): how for other, how in service.depends_on.items()},
            )
            for name, service in topology.services.items()
        },
        routes=tuple(replace(route, service=service_name(route.service)) for route in topology.routes),
    )
