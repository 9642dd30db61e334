"""Refuses settings that do not fit the volumes a stack already has, before anything is created.

Volumes outlive `pulumi destroy` and a lost state. What made one is written on it as labels, once, at its
creation; what has migrated the data since is a marker inside (`infra.services.data`, init_permissions).
"""

from collections.abc import Mapping

import pulumi

from infra import engine
from infra.catalogue.releases import POSTGRES_MAJOR
from infra.settings.stack import Settings

STACK_LABEL = "dify-kit.stack"
IMAGES_LABEL = "dify-kit.images"
POSTGRES_LABEL = "dify-kit.postgres"
VECTOR_LABEL = "dify-kit.vector"
ENGINE_TIMEOUT_SECONDS = 15


def labels(settings: Settings) -> dict[str, str]:
    """Return the labels of volumes that these settings make."""
    # A mirror and an archive have the registry's images: the data means the same to all.
    source = "local" if settings.images == "local" else "registry"
    return {
        STACK_LABEL: settings.stack,
        IMAGES_LABEL: source,
        POSTGRES_LABEL: str(POSTGRES_MAJOR[source]),
        VECTOR_LABEL: settings.vector_store,
    }


def existing(stack: str) -> dict[str, Mapping[str, str]]:
    """Return the labels of the stack's volumes by their name; empty when the engine does not answer."""
    import docker  # noqa: PLC0415  # the program needs the engine's API here only

    try:
        client = engine.client(ENGINE_TIMEOUT_SECONDS)
        found = client.volumes.list(filters={"label": f"{STACK_LABEL}={stack}"})
    except (engine.EngineChoiceError, docker.errors.DockerException):
        # The provider reports the cause in a moment.
        return {}
    return {volume.name: volume.attrs.get("Labels") or {} for volume in found}


def check(settings: Settings) -> None:
    """Raise pulumi.RunError when a volume was made with other settings than these."""
    wanted = labels(settings)
    reasons = {
        IMAGES_LABEL: (
            "dify:images",
            "the data of one source means nothing to the other; set it back, or start a stack of another name",
        ),
        POSTGRES_LABEL: (
            "the PostgreSQL major",
            "dump the database with the old one and restore it with the new one",
        ),
        VECTOR_LABEL: (
            "dify:vectorStore",
            "the vectors would be lost; set it back, or start a stack of another name and index there",
        ),
    }
    for name, found in sorted(existing(settings.stack).items()):
        for label, (what, fix) in reasons.items():
            if found.get(label) and found[label] != wanted[label]:
                raise pulumi.RunError(
                    f"volume {name} was made with {what} {found[label]}, and the settings say "
                    f"{wanted[label]}: {fix}"
                )
