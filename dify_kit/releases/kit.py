"""What this kit deploys for a release, as a topology: the services that its program renders, from default settings.

A service that only another setting brings (the other vector stores, certbot) is there too, rendered with that setting.
"""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pulumi

from dify_kit.releases.topology import Health, Mount, Port, Route, Service, Topology
from infra.catalogue.images import Image, own_roles
from infra.catalogue.project import declared
from infra.catalogue.releases import Release
from infra.catalogue.selection import by_compose_network
from infra.catalogue.service import Tier
from infra.platforms import images
from infra.services.spec import ServiceSpec
from infra.services.specs import networks, specs
from infra.settings.given import Given
from infra.settings.secrets import SHAPES
from infra.settings.stack import Settings, read

# The kit's networks by the names that upstream gives those that isolate the same.
NETWORKS: Mapping[str, str] = by_compose_network()
_BASE: Mapping[str, Any] = {"images": "registry", "adminEmail": "admin@example.com"}
# Settings that bring services which the defaults do not.
_VARIANTS: tuple[Mapping[str, Any], ...] = (
    {"vectorStore": "weaviate"},
    {"vectorStore": "qdrant"},
    {"vectorStore": "pgvector"},
    {
        "publicUrl": "https://dify.example.com",
        "bindAddress": "0.0.0.0",  # noqa: S104  # nothing listens
        "httpPort": 80,
        "httpsPort": 443,
        "tls": {"mode": "acme", "acme": {"email": "admin@example.com", "agreeTerms": True}},
    },
)


def topology(release: Release) -> Topology:
    """Return what the kit deploys for a release. Raises pulumi.RunError when its settings cannot be made."""
    return asyncio.run(_topology(release))


async def _topology(release: Release) -> Topology:
    # Settings hold outputs, which need a running loop.
    settings = _settings({}, release)
    services = {spec.name: _service(spec, release) for spec in _specs(settings, release)}
    for variant in _VARIANTS:
        for spec in _specs(_settings(variant, release), release):
            services.setdefault(spec.name, _service(spec, release))
    internal = {NETWORKS.get(name, name): inside for name, inside in networks(settings, release).items()}
    used = frozenset(mount.source for service in services.values() for mount in service.mounts)
    return Topology(
        services=services,
        networks=internal,
        volumes=used,
        routes=tuple(Route(location=route.prefix, service=route.service) for route in release.routes),
    )


def _settings(plain: Mapping[str, Any], release: Release) -> Settings:
    secrets = {key: shape.generate() for key, shape in SHAPES.items() if shape.generate}
    # The release need not be one that settings may name: a file, or a folder that was just read.
    values = {**_BASE, **plain, "release": str(declared()["release"]["default"])}
    reading = read(Given.of({**values, **secrets}, secrets), "check", conceal=pulumi.Output.secret)
    if reading.problems:
        raise pulumi.RunError(reading.message)
    return replace(reading.settings, release=release.version)


def _specs(settings: Settings, release: Release) -> Iterator[ServiceSpec]:
    for tier in Tier:
        yield from specs(tier, settings, release)


def _service(spec: ServiceSpec, release: Release) -> Service:
    return Service(
        name=spec.name,
        image=_image(spec.image, release),
        variables={
            name: value if isinstance(value, str) else None for name, value in spec.environment.items()
        },
        mounts=tuple(
            Mount(source=mount.volume, target=mount.path, read_only=mount.read_only) for mount in spec.mounts
        ),
        networks=frozenset(NETWORKS.get(name, name) for name in spec.networks),
        ports=tuple(
            Port(internal=port.internal, external=port.external, address=port.address) for port in spec.ports
        ),
        health=Health(command=spec.health.command) if spec.health else None,
        depends_on=dict.fromkeys(spec.after, "service_healthy"),
        command=spec.command or (),
        entrypoint=spec.entrypoint or (),
    )


def _image(role: str, release: Release) -> str | None:
    """Return the reference by tag; None for an image that the kit builds, or that the release does not name."""
    image = release.images.get(role)
    if role in own_roles() or image is None:
        return None
    return images.pulled_name(Image(repository=image.repository, tag=image.tag), "")
