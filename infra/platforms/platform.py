"""The seam between a stack and what runs it: tiers and exports use this, and each platform implements it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import pulumi

from infra.catalogue.service import Keep
from infra.edge.context import ServiceNames
from infra.services.spec import ServiceSpec


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What a platform made of a service that is not ready yet.

    `reference` is how `infra.engine.runtime` reaches it; it changes when another container takes its place, which needs
    everything again. `resource` is the parent of what belongs to it.
    """

    reference: pulumi.Output[str]
    resource: pulumi.Resource


Configure = Callable[[Workload], pulumi.Resource]


@dataclass(frozen=True, kw_only=True)
class Content:
    """A revision of a live configuration, below ``directory`` (`infra.resources.revision_container`).

    ``files`` and ``private_files`` map a path in the revision to its text; only the service's own user reads the
    private ones.
    """

    directory: str
    revision: pulumi.Input[str]
    files: pulumi.Input[Mapping[str, pulumi.Input[str]]] = field(default_factory=dict)
    private_files: pulumi.Input[Mapping[str, pulumi.Input[str]]] = field(default_factory=dict)


Live = Callable[[], Content]


@dataclass(frozen=True, kw_only=True)
class Running:
    """A service that was brought up.

    `ready` exists once the service does its work. `workload` refers to the container that runs now, `name` to
    whichever runs for the service: both are references of `infra.engine.runtime`.
    """

    spec: ServiceSpec
    workload: pulumi.Output[str]
    name: pulumi.Output[str]
    ready: pulumi.Resource


@dataclass(frozen=True, kw_only=True)
class VolumePolicy:
    """What applies to volumes whose data has to outlive a container.

    `keep`: they stay when the stack is destroyed. `protect`: Pulumi refuses to delete or to replace them, and with them
    the stack. `labels` record what the data was made with.
    """

    keep: bool
    protect: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)


class Platform(Protocol):
    """Names and creates everything of one stack."""

    def name(self, part: str) -> str:
        """Return the platform-wide name of a part of this stack."""

    @property
    def service_names(self) -> ServiceNames:
        """How nginx resolves the names of services."""

    @property
    def starts_together(self) -> int:
        """How many services that import Dify start at the same time: more of them would delay each other."""

    @property
    def network_names(self) -> list[str]:
        """The platform-wide names of the stack's networks."""

    def add_networks(self, networks: Mapping[str, bool]) -> None:
        """Create the stack's networks; the value says whether a network is internal (no route to the outside)."""

    def add_volumes(self, volumes: Mapping[str, Keep], parent: pulumi.Resource) -> None:
        """Create or adopt volumes of the stack, by their logical names, before a service mounts them."""

    def run(
        self,
        spec: ServiceSpec,
        *,
        parent: pulumi.Resource,
        after: Sequence[pulumi.Resource] = (),
        configure: Configure | None = None,
        live: Live | None = None,
    ) -> Running:
        """Run a service once all of `after` exist. Its networks and volumes were added before.

        A service with a live configuration has both of the others, and a platform uses one of them. `configure` makes
        the resource that brings the configuration into the running workload before it can be ready. `live` returns what
        new workloads start with.
        """
