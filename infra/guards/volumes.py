"""Refuses settings that do not fit the volumes a stack already has, and volumes of others, before anything is created.

Volumes outlive `pulumi destroy` and a lost state. What made one is written on it as labels, once, at its
creation; what has migrated the data since is a marker inside (`infra.services.data`, init-permissions).
"""

from collections.abc import Mapping, Sequence

from infra import engine
from infra.catalogue.releases import POSTGRES_MAJOR
from infra.catalogue.selection import volume_names
from infra.catalogue.service import Keep
from infra.guards.findings import Refusal, View
from infra.settings.stack import Settings

STACK_LABEL = "dify-kit.stack"
IMAGES_LABEL = "dify-kit.images"
POSTGRES_LABEL = "dify-kit.postgres"
VECTOR_LABEL = "dify-kit.vector"
ENGINE_TIMEOUT_SECONDS = 15
# What each label says, and what to do when the settings say something else.
_REASONS: Mapping[str, tuple[str, str]] = {
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


def fitting(settings: Settings) -> dict[str, str]:
    """Return what the labels of the stack's volumes must say.

    The kind of vector store may be another one where it is outside, and the setting says that nothing is lost.
    """
    found = labels(settings)
    if settings.vector_server and settings.vector_server.own_data_moved:
        del found[VECTOR_LABEL]
    return found


def names(stack: str, *keep: Keep) -> list[str]:
    """Return the names of a stack's volumes on the engine; of all of them without `keep`."""
    return [f"dify-{stack}-{volume}" for volume in volume_names(*(keep or tuple(Keep)))]


def existing(wanted: Sequence[str]) -> dict[str, Mapping[str, str]]:
    """Return the labels of those of the volumes that exist; none when the engine does not answer."""
    import docker  # noqa: PLC0415  # the program needs the engine's API here only
    import requests  # noqa: PLC0415

    try:
        client = engine.client(ENGINE_TIMEOUT_SECONDS)
        return labels_of(client.api.volumes(), wanted)
    except (engine.EngineChoiceError, docker.errors.DockerException, requests.RequestException):
        # The provider reports the cause in a moment.
        return {}


def labels_of(
    listed: Mapping[str, Sequence[Mapping[str, object]] | None], wanted: Sequence[str]
) -> dict[str, Mapping[str, str]]:
    """Return the labels of those of the volumes that the engine's list has."""
    found = {str(entry["Name"]): entry.get("Labels") or {} for entry in listed.get("Volumes") or []}
    return {name: found[name] for name in wanted if name in found}  # type: ignore[misc]  # JSON of the engine


def refusals(settings: Settings, view: View) -> list[Refusal]:
    """Return the volumes that are not this stack's, and those that were made with other settings than these."""
    wanted = fitting(settings)
    found = view.volume_labels(names(settings.stack))
    return [refusal for name in sorted(found) for refusal in _of(name, found[name], wanted)]


def _of(name: str, found: Mapping[str, str], wanted: Mapping[str, str]) -> list[Refusal]:
    if found.get(STACK_LABEL) != wanted[STACK_LABEL]:
        return [
            Refusal(
                problem=f"volume {name} exists and is not this stack's: its label {STACK_LABEL} is "
                f"{found.get(STACK_LABEL) or 'missing'}",
                fix=f"start a stack of another name; or, when its content may be lost, `docker volume rm {name}`",
            )
        ]
    return unfit(f"volume {name}", found, wanted)


def unfit(what: str, found: Mapping[str, str], wanted: Mapping[str, str]) -> list[Refusal]:
    """Return why data that was made with other settings, by its labels, does not fit these."""
    return [
        Refusal(
            problem=f"{what} was made with {setting} {found[label]}, and the settings say {wanted[label]}",
            fix=fix,
        )
        for label, (setting, fix) in _REASONS.items()
        if label in wanted and found.get(label) and found[label] != wanted[label]
    ]
