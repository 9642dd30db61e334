"""The data tier: databases, Redis and vector store, and the passwords that they accept while they run.

A password reaches its server before the services that connect with it start again: they depend on the server, and it
counts as ready once it has the password.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import pulumi

from infra.catalogue.container_paths import POSTGRES_PASSWORD_FILE
from infra.catalogue.data_services import DATABASE, REDIS
from infra.catalogue.releases import Release
from infra.catalogue.service import Tier
from infra.platforms.platform import Platform, Running, Workload
from infra.resources.redis_config import OnlyPassword, RedisConfig
from infra.resources.role_password import RolePassword
from infra.services.files import redis_config
from infra.services.spec import ServiceSpec
from infra.services.specs import specs, tier_volumes
from infra.settings.stack import Settings
from infra.tiers.services import ServiceTier

_POSTGRES = frozenset({DATABASE, "pgvector"})


class DataTier(ServiceTier):
    """Runs the services of the data tier.

    `redis` is where Redis got its configuration while it ran; None with an external one, and on a platform that gives
    it to a new pod instead.
    """

    def __init__(self, name: str, settings: Settings, release: Release, platform: Platform) -> None:
        self._settings = settings
        self.redis: pulumi.Output[str] | None = None
        super().__init__(
            name,
            specs(Tier.DATA, settings, release),
            platform,
            volumes=tier_volumes(Tier.DATA, settings, release),
        )

    def _run(self, spec: ServiceSpec, platform: Platform, after: Sequence[pulumi.Resource]) -> Running:
        if spec.name == REDIS:
            return platform.run(spec, parent=self, after=after, configure=self._configure_redis)
        running = super()._run(spec, platform, after)
        if spec.name not in _POSTGRES:
            return running
        password = RolePassword(
            f"{spec.name}-password",
            container=running.workload,
            service=spec.name,
            password=self._settings.secrets.postgres_password,
            # A cluster mounts it.
            file="" if self._settings.kubernetes else POSTGRES_PASSWORD_FILE,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[running.ready]),
        )
        return replace(running, ready=password)

    def _configure_redis(self, workload: Workload) -> RedisConfig:
        self.redis = workload.reference
        password = self._settings.secrets.redis_password
        return RedisConfig(
            "redis-config",
            container=workload.reference,
            config=redis_config(self._settings, password),
            password=password,
            opts=pulumi.ResourceOptions(parent=workload.resource),
        )


def retire_passwords(
    settings: Settings, data: DataTier, *, clients: Iterable[Running]
) -> tuple[pulumi.Resource, ...]:
    """Let Redis forget the password before, once all of its clients have started with the new one."""
    if data.redis is None:
        return ()
    return (
        OnlyPassword(
            "redis-only-password",
            container=data.redis,
            password=settings.secrets.redis_password,
            opts=pulumi.ResourceOptions(parent=data, depends_on=[one.ready for one in clients]),
        ),
    )
