"""The platform of a stack, after everything that can be checked before anything is created."""

from infra.catalogue.releases import Release
from infra.guards import checks, cluster, volumes
from infra.platforms.docker import DockerPlatform
from infra.platforms.images import Images
from infra.platforms.kubernetes.images import NodeImages
from infra.platforms.kubernetes.platform import KubernetesPlatform
from infra.platforms.platform import Platform, VolumePolicy
from infra.services.queues import broker
from infra.settings.stack import Settings


def platform_of(settings: Settings, release: Release, *, docker_host: str) -> Platform:
    """Return the platform that the settings choose. Raises pulumi.RunError when it refuses the stack.

    `docker_host` is the stack's `docker:host`.
    """
    policy = VolumePolicy(
        keep=settings.keep_volumes, protect=settings.protect, labels=volumes.labels(settings)
    )
    if chosen := settings.kubernetes:
        dns = cluster.check(settings, release, chosen)
        images = NodeImages(settings, release, chosen)
        return KubernetesPlatform(
            settings.stack, chosen, images, policy, dns=dns, tls=settings.tls, broker=broker(settings)
        )
    found = checks.check(settings, release, docker_host)
    return DockerPlatform(settings.stack, Images(settings, release, found), policy)
