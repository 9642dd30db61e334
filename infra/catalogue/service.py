"""The types of the service catalogue: what `infra.catalogue.services` states about each service.

Imports nothing of Pulumi: the command line, the smoke tests and the stand-in's images read the catalogue, too.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType


class Tier(StrEnum):
    """Services that start together. The program brings the tiers up in this order."""

    DATA = "data"
    DIFY = "dify"
    OAUTH = "oauth"
    LLM = "llm"
    EDGE = "edge"


class Part(StrEnum):
    """The condition for a service, a network or a mount to exist."""

    # In every stack.
    STACK = "stack"
    # In the releases whose catalogue file lists the service.
    RELEASE = "release"
    # The one that `dify:vectorStore` names.
    VECTOR_STORE = "vectorStore"
    # `dify:oauth.enabled` or the OIDC gate.
    GATEWAY = "gateway"
    # External issuers of tokens, or the gate's provider.
    ISSUERS = "issuers"
    # `dify:llm.enabled` on one engine: nginx counts itself.
    LLM = "llm"
    # `dify:llm.enabled` on a cluster: pods of nginx come and go, and one workload counts for them.
    LLM_OWNER = "llmOwner"
    # `dify:llm.engine: litellm`.
    LITELLM = "litellm"
    # `dify:database.host`, `dify:redis.host` or `dify:vectorServer.host`.
    EXTERNAL_DATA = "externalData"
    # `dify:tls.mode: acme`.
    CERTBOT = "certbot"


class Keep(StrEnum):
    """How long a volume lasts."""

    # Outlives the stack, and can be read with the stack's secrets alone.
    DATA = "data"
    # Outlives the stack; no secret of the stack protects it.
    RECORDS = "records"
    # Removed with the stack: the next `up` fills it again.
    EPHEMERAL = "ephemeral"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The most that a service may use. ``memory`` in MiB, ``cpus`` in cores, ``pids``: processes and threads."""

    memory: int
    cpus: float = 2.0
    pids: int = 512


@dataclass(frozen=True, kw_only=True)
class HealthCheck:
    """A command that exits 0 exactly when the service works.

    ``command`` runs inside the container, without a shell unless it names one. Times are in whole seconds.

    The engine runs it every ``interval`` for the whole life of the stack: each run costs 15 to 60 ms of CPU, for each
    service. While a service starts, `Ready` runs the command itself, more often. A failed service is therefore
    unhealthy after ``interval * retries + timeout`` at the latest: 130 s.
    """

    command: tuple[str, ...]
    interval: int = 60
    timeout: int = 10
    retries: int = 2
    start_period: int = 60


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A volume of the stack, mounted at ``path`` where ``part`` is on."""

    volume: str
    path: str
    read_only: bool = False
    part: Part = Part.STACK


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network of the stack.

    ``internal``: it has no route to the outside. It exists where ``service`` runs (empty: always) and ``part`` is on.
    ``compose`` is the name of the official compose folder's network that isolates the same, empty where there is none.
    """

    internal: bool
    service: str = ""
    part: Part = Part.STACK
    compose: str = ""


@dataclass(frozen=True, kw_only=True)
class Service:
    """One service of the stack: all that is the same in every stack that runs it.

    ``image`` is a role of `infra.catalogue.images`. ``part`` says which stacks run the service; ``required`` marks one
    that every release must list. ``networks`` are names of `NETWORKS`; those that the stack lacks are left out, as are
    the services of ``after``, which must be ready first. ``port`` is where the service answers others on its networks.
    ``holds_data`` marks a data store, which no service outside the data networks may reach.

    ``variables`` is the service whose entries of a catalogue file describe this one's environment, empty for a service
    that reads none. ``variables_complete`` is false for a server that reads more than the file lists. ``go`` marks one
    that reads numbers and booleans as Go does. ``templates`` are the files below `templates/` that render its
    configuration. ``imports_dify`` marks a process that spends 13 s of one core at its start.

    ``least_memory`` is the smallest memory limit that an operator may set, in MiB.

    A ``job`` runs once, to exit code 0. ``capabilities`` (`CHOWN`, not `CAP_CHOWN`) are added back after all were
    dropped; None keeps the engine's default set without NET_RAW. ``init`` runs a reaping PID 1 before the command.
    ``dns_options`` are those of resolv.conf. ``stop_grace`` and ``ready_timeout`` are in seconds.
    """

    image: str
    tier: Tier
    limits: Limits
    least_memory: int = 32
    part: Part = Part.STACK
    required: bool = False
    networks: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()
    port: int | None = None
    holds_data: bool = False
    health: HealthCheck | None = None
    variables: str = ""
    variables_complete: bool = True
    go: bool = False
    templates: tuple[str, ...] = ()
    imports_dify: bool = False
    job: bool = False
    user: str | None = None
    entrypoint: tuple[str, ...] | None = None
    tmpfs: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    capabilities: tuple[str, ...] | None = ()
    dns_options: tuple[str, ...] = ()
    init: bool = False
    read_only: bool = False
    stop_grace: int = 20
    stop_signal: str | None = None
    ready_timeout: int = 240
