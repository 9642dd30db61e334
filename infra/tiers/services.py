"""A tier: services that start together, in the order of their dependencies."""

from collections.abc import Mapping, Sequence

import pulumi

from infra.catalogue.service import Keep
from infra.platforms.platform import Platform, Running
from infra.services.spec import ServiceSpec


class ServiceTier(pulumi.ComponentResource):
    """Runs the given services and their volumes.

    `running` holds the containers of this tier and the tiers before it, by service.
    """

    def __init__(
        self,
        name: str,
        specs: Sequence[ServiceSpec],
        platform: Platform,
        *,
        volumes: Mapping[str, Keep],
        before: Mapping[str, Running] | None = None,
        after: Sequence[pulumi.Resource] = (),
    ) -> None:
        super().__init__(f"dify-kit:tiers:{name.capitalize()}", name)
        platform.add_volumes(volumes, parent=self)
        self.running: dict[str, Running] = dict(before or {})
        for spec in specs:
            needed = [self.running[service].ready for service in spec.after]
            self.running[spec.name] = self._run(spec, platform, [*needed, *after])
        self.register_outputs({})

    def _run(self, spec: ServiceSpec, platform: Platform, after: Sequence[pulumi.Resource]) -> Running:
        return platform.run(spec, parent=self, after=after)
