"""Which images a stack needs, by role of the catalogue. No stack has to exist."""

from dataclasses import dataclass

from infra.catalogue import selection
from infra.catalogue.images import BASE_ROLE, own_roles
from infra.catalogue.releases import Release
from infra.catalogue.service import Part
from infra.services.specs import parts_of as parts_turned_on
from infra.settings.stack import Settings

# What a stack may need on top, by its settings: parts of the catalogue, which are named as the roles of their images.
OPTIONAL = frozenset(str(part) for part in selection.OPTIONAL_IMAGES)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What decides about the images of a stack besides its release: the vector store, and parts of OPTIONAL.

    `external` are the services that the stack does not run, because it uses a server outside of it.
    """

    vector_store: str
    optional: frozenset[str] = frozenset()
    external: frozenset[str] = frozenset()


def parts_of(settings: Settings) -> Parts:
    """Return what the settings of a stack turn on."""
    return Parts(
        vector_store=settings.vector_store,
        optional=OPTIONAL & {str(part) for part in parts_turned_on(settings)},
        external=settings.external_services,
    )


def roles(parts: Parts, release: Release) -> tuple[str, ...]:
    """Return the roles whose images the containers of a stack run, sorted."""
    chosen = selection.Selection(
        release=release.services,
        vector_store=parts.vector_store,
        parts=frozenset(Part(one) for one in parts.optional),
        external=parts.external,
    )
    return tuple(sorted({service.image for service in chosen.services().values()}))


def roles_to_copy(parts: Parts, release: Release) -> tuple[str, ...]:
    """Return the roles that a mirror must hold: own images are built there on the base image, from the mirror."""
    wanted = roles(parts, release)
    own = own_roles()
    return tuple(role for role in wanted if role not in own) + ((BASE_ROLE,) if own & set(wanted) else ())
