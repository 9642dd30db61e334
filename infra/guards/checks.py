"""The one list of checks that the program, `dify-kit up` and `dify-kit doctor` share.

What one of them refuses, all of them refuse, in the same words. The settings come first: `infra.settings.stack` reads
them for all three, with secrets, certificate and key.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pulumi

from infra import engine
from infra.catalogue.releases import Release
from infra.guards import (
    advisories,
    containers,
    database,
    images,
    ports,
    provider,
    redis_server,
    vector_server,
    volumes,
)
from infra.guards.findings import Publisher, Refusal, View
from infra.settings.external_data import DATABASE_PASSWORD, REDIS_PASSWORD
from infra.settings.stack import Settings
from infra.settings.vector_server import VECTOR_PASSWORD


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What a stack is checked against: the chosen engine, what there is on it, and the provider's environment.

    `provider_host` is the stack's `docker:host`.
    """

    endpoint: engine.Endpoint
    view: View
    environ: Mapping[str, str]
    provider_host: str = ""


@dataclass(frozen=True, kw_only=True)
class Guard:
    """A check by its name. It can be made where no problem is about one of the settings that it `needs`."""

    name: str
    needs: tuple[str, ...]
    refusals: Callable[[Settings, Release, Surroundings], list[Refusal]]


GUARDS: Sequence[Guard] = (
    Guard(
        name="engine choice",
        needs=(),
        refusals=lambda settings, _release, around: provider.refusals(
            settings.stack, around.endpoint, around.environ, around.provider_host
        ),
    ),
    Guard(
        name="volumes",
        needs=("images", "vectorStore", "vectorServer"),
        refusals=lambda settings, _release, around: volumes.refusals(settings, around.view),
    ),
    Guard(
        name="container names",
        needs=(),
        refusals=lambda settings, _release, around: containers.refusals(settings, around.view),
    ),
    Guard(
        name="port",
        needs=("bindAddress", "httpPort", "httpsPort", "tls"),
        refusals=lambda settings, _release, around: ports.refusals(settings, around.view),
    ),
    Guard(
        name="database",
        needs=("database", DATABASE_PASSWORD),
        refusals=lambda settings, _release, around: database.refusals(settings, around.view),
    ),
    Guard(
        name="redis",
        needs=("redis", REDIS_PASSWORD),
        refusals=lambda settings, _release, around: redis_server.refusals(settings, around.view),
    ),
    Guard(
        name="vector store",
        needs=("vectorServer", "vectorStore", "database", VECTOR_PASSWORD),
        refusals=lambda settings, _release, around: vector_server.refusals(settings, around.view),
    ),
    Guard(
        name="images",
        needs=(
            "release",
            "catalogue",
            "images",
            "mirror",
            "vectorStore",
            "weaviateVersion",
            "llm",
            "oauth",
            "tls",
            "database",
            "redis",
            "vectorServer",
        ),
        refusals=lambda settings, release, around: images.refusals(settings, release, around.view),
    ),
)


def refusals(settings: Settings, release: Release, around: Surroundings) -> list[Refusal]:
    """Return everything that keeps a stack with sound settings from being deployed."""
    return [one for guard in GUARDS for one in guard.refusals(settings, release, around)]


def warnings(settings: Settings, release: Release) -> list[str]:
    """Return what does not stop a deployment and should be known before it."""
    return [*advisories.warnings(release), *images.warnings(settings)]


class EngineView:
    """The engine as the program looks at it. One that does not answer is left to the provider, which says why."""

    def __init__(self, endpoint: engine.Endpoint) -> None:
        self._endpoint = endpoint

    def local(self) -> bool:
        """See View."""
        return self._endpoint.local

    def publishers(self, port: int) -> Sequence[Publisher] | None:
        """See View."""
        return ports.publishers(self._endpoint, port)

    def volume_labels(self, names: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
        """See View."""
        return volumes.existing(names)

    def container_labels(self, names: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
        """See View."""
        return containers.existing(self._endpoint, names)

    def image_ids(self, names: Sequence[str]) -> Mapping[str, str]:
        """See View."""
        return images.ids(names)


def check(settings: Settings, release: Release, provider_host: str) -> Mapping[str, str]:
    """Raise pulumi.RunError when the stack cannot be deployed as its settings say; log warnings.

    `provider_host` is the stack's `docker:host`. Returns role -> image id in mode `preloaded`; nothing in other modes.
    """
    try:
        endpoint = engine.chosen()
    except engine.EngineChoiceError as problem:
        raise pulumi.RunError(f"{problem}; {problem.fix}") from None
    view = EngineView(endpoint)
    around = Surroundings(endpoint=endpoint, view=view, environ=dict(os.environ), provider_host=provider_host)
    if found := refusals(settings, release, around):
        raise pulumi.RunError("\n".join(one.text(settings.stack) for one in found))
    for line in warnings(settings, release):
        pulumi.log.warn(line)
    if settings.images == "preloaded":
        pulumi.log.info(images.PRELOADED)
    return images.loaded(settings, release, view)
