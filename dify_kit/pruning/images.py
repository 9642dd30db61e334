"""Images of Dify and of the kit that no stack of this machine runs and no container has."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import requests
from docker.errors import DockerException

from dify_kit.errors import KitError
from dify_kit.images.wanted import source_of, wanted
from dify_kit.pruning.leftover import Kind, Leftover
from dify_kit.stack import settings as stack_settings
from dify_kit.upgrade import journal
from dify_kit.workspace.files import DataDir, StackFiles
from infra import engine, hints
from infra.catalogue.images import ROLES, local_builds
from infra.catalogue.releases import RELEASES
from infra.platforms import image_needs
from infra.platforms.images import local_name

SECONDS = 60
# A name without a tag, as the engine shows it.
_NAMELESS = "<none>"


@dataclass(frozen=True, kw_only=True)
class Found:
    """An image of the engine: its id, its names (`repository:tag` or `repository@digest`) and its size in bytes."""

    id: str
    names: tuple[str, ...]
    size: int


class Store(Protocol):
    """The images of an engine. Each method raises KitError."""

    def images(self) -> Sequence[Found]:
        """Return all that have a name."""

    def used(self) -> Collection[str]:
        """Return the ids of those that a container has, running or not."""

    def remove(self, name: str) -> None:
        """Take a name away; with its last name the image goes. One that a container has stays."""


class DockerStore:
    """The images of the engine behind ``DOCKER_HOST``."""

    def __init__(self) -> None:
        self._api = engine.client(SECONDS).api

    def images(self) -> list[Found]:
        """Return all that have a name."""
        return [
            Found(id=str(one["Id"]), names=names, size=int(one.get("Size") or 0))
            for one in self._asked("list images", self._api.images)
            if (names := tuple(_names(one)))
        ]

    def used(self) -> set[str]:
        """Return the ids of those that a container has."""
        containers = self._asked("list containers", lambda: self._api.containers(all=True))
        return {str(one["ImageID"]) for one in containers}

    def remove(self, name: str) -> None:
        """Take a name away."""
        self._asked(f"remove image {name}", lambda: self._api.remove_image(name))

    def _asked(self, what: str, ask: Callable[[], Any]) -> Any:  # noqa: ANN401  # docker's client is not typed
        try:
            return ask()
        except (DockerException, requests.RequestException, OSError) as problem:
            raise KitError(
                f"cannot {what}: {problem}", "does the engine answer? See `docker images`"
            ) from None


def _names(image: Mapping[str, Any]) -> Iterator[str]:
    tags = [name for name in image.get("RepoTags") or [] if _NAMELESS not in name]
    # An image that was pulled by digest has no tag.
    yield from tags or [name for name in image.get("RepoDigests") or [] if _NAMELESS not in name]


def needed(data: DataDir) -> set[str]:
    """Return the names of the images that stacks of this machine run, or run again after a rollback.

    Raises KitError for a stack whose settings cannot be read: what it runs is not known.
    """
    found = {local_name(role) for role in local_builds()}
    for stack in data.stack_names():
        files = StackFiles.look(stack)
        if not files.configured():
            continue
        try:
            chosen = stack_settings.checked(files)
            upgrade = journal.load(files)
        except KitError as problem:
            raise KitError(
                f"what stack {stack} runs is not known: {problem.message}",
                f"{hints.kit('doctor', stack=stack)} shows what is wrong with it",
            ) from None
        releases = [chosen.dify]
        if upgrade and upgrade.release in RELEASES:
            releases.append(RELEASES[upgrade.release])
        for release in releases:
            for one in wanted(image_needs.parts_of(chosen), release, source_of(chosen)):
                name, _, digest = one.reference.partition("@")
                found |= {name, f"{name.rpartition(':')[0]}@{digest}"} if digest else {name}
    return found


def leftovers(store: Store, kept: Collection[str]) -> Iterator[Leftover]:
    """Yield the images of Dify and of the kit that are not among the names `kept` and that no container has.

    Images of others, such as PostgreSQL's, may serve something else on this machine: they stay.
    """
    used = store.used()
    for image in sorted(store.images(), key=lambda one: one.names):
        if image.id in used or any(name in kept for name in image.names):
            continue
        own = all(_repository(name).startswith("dify-kit/") for name in image.names)
        if own or all(_of_dify(_repository(name)) for name in image.names):
            yield Leftover(
                kind=Kind.IMAGE,
                name=image.names[0],
                size=image.size,
                why="built from other files than this checkout has"
                if own
                else "of a release that no stack runs",
                remove=_removing(store, image),
            )


def _removing(store: Store, image: Found) -> Callable[[], None]:
    def remove() -> None:
        for name in image.names:
            store.remove(name)

    return remove


def _repository(name: str) -> str:
    return name.partition("@")[0] if "@" in name else name.rpartition(":")[0]


def _of_dify(repository: str) -> bool:
    """Tell whether a repository is one of Dify's own, at any registry."""
    own = {
        release.images[role].repository
        for release in RELEASES.values()
        for role in _dify_roles(release.images)
    }
    return any(repository == one or repository.endswith(f"/{one}") for one in own)


def _dify_roles(images: Mapping[str, Any]) -> list[str]:
    return [name for name, role in ROLES.items() if role.dify and name in images]
