"""Which images a stack needs, by role of the catalogue. Plain facts in, so that no stack has to exist."""

from collections.abc import Mapping
from dataclasses import dataclass

from infra.catalogue.releases import GATEWAY, LITELLM, Release
from infra.platforms.images import BASE_ROLE, OWN
from infra.settings.stack import Settings

# Service -> the role of its image, where the two differ.
_ROLES: Mapping[str, str] = {
    "worker": "api",
    "worker_beat": "api",
    "api_websocket": "api",
    "ssrf_proxy": "squid",
    "agent_ssrf_proxy": "squid",
}
# In every stack, beside the services of the release and the vector store.
_ALWAYS = frozenset({"busybox", "postgres", "redis", "nginx"})
CERTBOT = "certbot"
# What a stack may need on top, by its settings.
OPTIONAL = frozenset({GATEWAY, LITELLM, CERTBOT})


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What decides about the images of a stack besides its release: the vector store, and roles of OPTIONAL."""

    vector_store: str
    optional: frozenset[str] = frozenset()


def parts_of(settings: Settings) -> Parts:
    """Return what the settings of a stack turn on."""
    found = {
        GATEWAY: settings.gateway,
        LITELLM: bool(settings.llm and settings.llm.litellm),
        CERTBOT: bool(settings.tls.acme),
    }
    return Parts(
        vector_store=settings.vector_store, optional=frozenset(role for role, on in found.items() if on)
    )


def roles(parts: Parts, release: Release) -> tuple[str, ...]:
    """Return the roles whose images the containers of a stack run, sorted."""
    services = {_ROLES.get(service, service) for service in release.services}
    return tuple(sorted(services | _ALWAYS | {parts.vector_store} | parts.optional))


def roles_to_copy(parts: Parts, release: Release) -> tuple[str, ...]:
    """Return the roles that a mirror must hold: own images are built there on the base image, from the mirror."""
    wanted = roles(parts, release)
    return tuple(role for role in wanted if role not in OWN) + ((BASE_ROLE,) if OWN & set(wanted) else ())
