"""Refuses a stack whose containers would have the names of others, before anything is created.

A name of the engine is `dify-<stack>-<service>`, and both parts may have hyphens: the `local-sandbox` of stack `a` and
the `sandbox` of stack `a-local` would have one name.
"""

from collections.abc import Mapping, Sequence

from infra import engine
from infra.catalogue.services import SERVICES
from infra.guards.findings import Refusal, View
from infra.guards.volumes import ENGINE_TIMEOUT_SECONDS, STACK_LABEL
from infra.settings.stack import Settings


def names(stack: str) -> list[str]:
    """Return the names that containers of a stack may have on the engine."""
    return [f"dify-{stack}-{service}" for service in SERVICES]


def existing(endpoint: engine.Endpoint, wanted: Sequence[str]) -> dict[str, Mapping[str, str]]:
    """Return the labels of those of the containers that exist; none when the engine does not answer."""
    import docker  # noqa: PLC0415  # the program needs the engine's API for its guards only
    import requests  # noqa: PLC0415

    try:
        listed = endpoint.client(ENGINE_TIMEOUT_SECONDS).api.containers(all=True)
    except (docker.errors.DockerException, requests.RequestException):
        # The provider reports the cause in a moment.
        return {}
    return labels_of(listed, wanted)


def labels_of(listed: Sequence[Mapping[str, object]], wanted: Sequence[str]) -> dict[str, Mapping[str, str]]:
    """Return the labels of those of the containers that the engine's list has."""
    found = {
        str(name).removeprefix("/"): entry.get("Labels") or {}
        for entry in listed
        for name in entry.get("Names") or ()  # type: ignore[attr-defined]  # JSON of the engine
    }
    return {name: found[name] for name in wanted if name in found}  # type: ignore[misc]  # JSON of the engine


def refusals(settings: Settings, view: View) -> list[Refusal]:
    """Return the containers of others that have a name of this stack."""
    found = view.container_labels(names(settings.stack))
    return [
        Refusal(
            problem=f"container {name} exists and is not this stack's: its label {STACK_LABEL} is "
            f"{labels.get(STACK_LABEL) or 'missing'}",
            fix="start a stack of another name; or, when that container is needed no more, `docker rm` it",
        )
        for name, labels in sorted(found.items())
        if labels.get(STACK_LABEL) != settings.stack
    ]
