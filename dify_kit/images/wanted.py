"""The images that a stack needs, each with the exact reference that it runs, and what the engine has of them."""

from dataclasses import dataclass
from typing import Any

import requests
from docker.errors import BuildError, DockerException, ImageNotFound

from dify_kit.errors import KitError
from dify_kit.images.ticks import Ticks
from dify_kit.talk import say
from infra import engine as endpoint
from infra import hints
from infra.catalogue.images import BASE, BASE_ROLE, Image, local_builds, own_roles
from infra.catalogue.releases import RELEASES, Release
from infra.platforms import image_needs
from infra.platforms.images import (
    BASE_ARGUMENT,
    build_directory,
    loaded_name,
    local_name,
    pulled_name,
    registry_of,
)
from infra.settings.stack import Settings

ENGINE_SECONDS = 60
# The engine may say nothing while it pulls a large layer, or writes one to its disk.
WORK_SECONDS = 1800
HUB = "docker.io"


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a stack's images come from: `dify:images`, its mirror, and whether digests count."""

    mode: str = "registry"
    mirror: str = ""
    pinned: bool = True


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """One image. `reference` is what the stack runs; `name` is repository:tag, as `dify:images preloaded` runs it.

    `digest` is the catalogue's, None where it has none or the image is built; `build` is the build context, empty
    where it is pulled, and `base` the reference of the image that it builds on; `origin` says where it comes from.
    """

    roles: tuple[str, ...]
    reference: str
    name: str
    digest: str | None = None
    build: str = ""
    base: str = ""
    origin: str


@dataclass(frozen=True, kw_only=True)
class Present:
    """An image of the engine. `size` in bytes, unpacked; `layers` are the digests of its unpacked layers."""

    id: str
    size: int
    platform: str
    layers: tuple[str, ...]


def source_of(settings: Settings) -> Source:
    """Return where the settings take images from."""
    pinned = settings.image_pins and settings.images != "preloaded"
    return Source(mode=settings.images, mirror=settings.mirror, pinned=pinned)


def wanted(parts: image_needs.Parts, release: Release, source: Source) -> list[Wanted]:
    """Return what a stack runs, by reference; roles that share an image are one."""
    return _listed(image_needs.roles(parts, release), release, source)


def to_copy(parts: image_needs.Parts, release: Release, source: Source) -> list[Wanted]:
    """Return what a mirror has to hold."""
    return _listed(image_needs.roles_to_copy(parts, release), release, source)


def _listed(roles: tuple[str, ...], release: Release, source: Source) -> list[Wanted]:
    found: dict[str, Wanted] = {}
    for role in roles:
        one = _wanted(role, release, source)
        known = found.get(one.reference)
        # The same image for two roles: one entry, with both.
        merged = tuple(sorted({*(known.roles if known else ()), role}))
        found[one.reference] = Wanted(**{**vars(one), "roles": merged})
    return [found[reference] for reference in sorted(found)]


def _wanted(role: str, release: Release, source: Source) -> Wanted:
    if source.mode == "local" or role in own_roles():
        name = local_name(role)
        directory, _ = local_builds()[role]
        origin = "the engine" if source.mode == "preloaded" else f"built from {directory}/"
        base = loaded_name(BASE)
        if source.mode in {"registry", "mirror"}:
            base = pulled_name(BASE, source.mirror, pinned=source.pinned)
        return Wanted(roles=(role,), reference=name, name=name, build=directory, base=base, origin=origin)
    image = BASE if role == BASE_ROLE else release.images[role]
    return Wanted(
        roles=(role,),
        reference=pulled_name(image, source.mirror, pinned=source.pinned),
        name=loaded_name(image),
        digest=image.digest,
        origin=_origin(image, source),
    )


def _origin(image: Image, source: Source) -> str:
    if source.mode == "preloaded":
        return "the engine"
    return source.mirror.partition("/")[0] or registry_of(image.repository) or HUB


def release_named(version: str) -> Release:
    """Return a release of the catalogue. Raises KitError."""
    if version not in RELEASES:
        raise KitError(f"release {version} is not in the catalogue", hints.nearest(version, RELEASES))
    return RELEASES[version]


class ImageStore:
    """The images of the engine behind ``DOCKER_HOST``. Every method raises KitError with the engine's reason."""

    def __init__(self, client: Any = None) -> None:  # noqa: ANN401  # docker's client is not typed
        try:
            self.client = client or endpoint.client(ENGINE_SECONDS)
            self._info: dict[str, Any] = self.client.info()
        except (DockerException, requests.RequestException, OSError) as problem:
            raise KitError(
                f"the Docker engine does not answer: {problem}",
                f"run `{hints.kit('setup')}`, or check DOCKER_HOST",
            ) from None

    @property
    def keeps_manifests(self) -> bool:
        """Whether ids are digests of manifests (containerd's image store), and not of configurations."""
        return any("containerd.snapshotter" in str(row) for row in self._info.get("DriverStatus") or [])

    @property
    def platform(self) -> str:
        """What the engine runs without emulation, such as linux/amd64."""
        try:
            found = self.client.version()
        except (DockerException, requests.RequestException) as problem:
            raise KitError(f"the Docker engine does not answer: {problem}", "see `docker version`") from None
        return f"{found.get('Os', 'linux')}/{found.get('Arch', '')}"

    def find(self, reference: str) -> Present | None:
        """Return the image of a reference or an id; None when the engine has none."""
        try:
            found = self.client.api.inspect_image(reference)
        except ImageNotFound:
            return None
        except (DockerException, requests.RequestException) as problem:
            raise KitError(f"cannot look for image {reference}: {problem}", "see `docker images`") from None
        return Present(
            id=str(found["Id"]),
            size=int(found.get("Size") or 0),
            platform=f"{found.get('Os', 'linux')}/{found.get('Architecture', '')}",
            layers=tuple((found.get("RootFS") or {}).get("Layers") or ()),
        )

    def fetch(self, one: Wanted) -> Present:
        """Pull or build an image that is not there."""
        if one.build:
            self._build(one)
        else:
            self.pull(one.reference)
        found = self.find(one.reference)
        if found is None:
            raise KitError(
                f"{one.reference} was fetched, and the engine does not have it", "see `docker images`"
            )
        return found

    def pull(self, reference: str) -> None:
        """Pull a reference, with the credentials of `docker login`."""
        # By digest the tag says nothing, and the engine wants one of the two.
        name, _, digest = reference.partition("@")
        repository, tag = _split(name)
        try:
            with Ticks(f"pulling {name}") as ticks:
                for line in self._slow().pull(repository, tag=digest or tag, stream=True, decode=True):
                    if "error" in line:
                        raise _unfetched(reference, line["error"])
                    ticks.note(str(line.get("status", "")))
        except (DockerException, requests.RequestException) as problem:
            raise _unfetched(reference, problem) from None

    def push(self, name: str) -> str:
        """Push a tag, with the credentials of `docker login`; return the digest that the registry gave it."""
        digest = ""
        repository, tag = _split(name)
        try:
            with Ticks(f"pushing {name}") as ticks:
                for line in self._slow().push(repository, tag=tag, stream=True, decode=True):
                    if "error" in line:
                        raise KitError(
                            f"cannot push {name}: {line['error']}",
                            "`docker login` at the registry, and see that the engine trusts its certificate",
                        )
                    digest = str((line.get("aux") or {}).get("Digest") or digest)
                    ticks.note(str(line.get("status", "")))
        except (DockerException, requests.RequestException) as problem:
            raise KitError(
                f"cannot push {name}: {problem}", "see the engine's log, and `docker login`"
            ) from None
        return digest

    def tag(self, image_id: str, name: str) -> None:
        """Give an image a name."""
        repository, tag = _split(name)
        try:
            self.client.api.tag(image_id, repository, tag)
        except (DockerException, requests.RequestException) as problem:
            raise KitError(f"cannot name {image_id[:19]} {name}: {problem}", "see `docker images`") from None

    def untag(self, name: str) -> None:
        """Take a name away; the image stays while it has another."""
        try:
            self.client.api.remove_image(name, noprune=True)
        except (DockerException, requests.RequestException) as problem:
            say(f"    {name} stays in the engine: {problem}")

    def _slow(self) -> Any:  # noqa: ANN401  # docker's client is not typed
        return endpoint.client(WORK_SECONDS).api

    def _build(self, one: Wanted) -> None:
        role = one.roles[0]
        _, target = local_builds()[role]
        if self.find(one.base) is None:
            self.pull(one.base)
        try:
            with Ticks(f"building {one.name}"):
                endpoint.client(WORK_SECONDS).images.build(
                    path=str(build_directory(role)),
                    tag=one.name,
                    target=target or "",
                    rm=True,
                    buildargs={BASE_ARGUMENT: one.base},
                )
        except (BuildError, DockerException, requests.RequestException) as problem:
            raise KitError(
                f"cannot build {one.name}: {problem}",
                "are Debian's packages and the package index reachable?",
            ) from None


def _split(name: str) -> tuple[str, str]:
    """Return repository and tag of `repository:tag`; a port of the registry is no tag."""
    repository, _, tag = name.rpartition(":")
    return repository, tag


def _unfetched(reference: str, reason: object) -> KitError:
    return KitError(
        f"cannot pull {reference}: {reason}",
        "is the registry reachable, and does it want `docker login`? An image of that tag that came without a registry "
        "is taken with --by-tag",
    )
