"""Where an image comes from: the public registry, a mirror of it, the engine itself, or a build on this machine.

The kit's own images are in no registry: they are built on a base image from where the others come from, unless
`dify:images preloaded` demands that they are in the engine, too.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pulumi
import pulumi_docker as docker

from infra.catalogue.images import BASE, BASE_ROLE, STANDIN, Image, local_builds, own_roles
from infra.catalogue.project import ROOT
from infra.catalogue.releases import Release
from infra.catalogue.services import LITELLM
from infra.engine.registry_login import logged_in
from infra.platforms import standin_image
from infra.platforms.litellm_image import prepared_context
from infra.services.outbound import build_arguments
from infra.settings.stack import Settings

# The build argument of every Dockerfile of the kit.
BASE_ARGUMENT = "BASE"


def context_digest(directory: Path) -> str:
    """Return 12 hex digits over the paths and bytes of a directory."""
    paths = (path for path in directory.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return standin_image.digest_of({str(path.relative_to(directory)): path for path in paths})


def build_digest(role: str) -> str:
    """Return 12 hex digits over all that a role's image is built from."""
    directory, _ = local_builds()[role]
    if directory == STANDIN:
        return _on_base(standin_image.digest_of(standin_image.files()))
    return _on_base(context_digest(ROOT / directory))


def _on_base(digest: str) -> str:
    """Return a digest of a build context together with the base image."""
    return hashlib.sha256(f"{digest} {BASE.tag} {BASE.digest}".encode()).hexdigest()[: len(digest)]


def registry_of(repository: str) -> str:
    """Return the registry host that a repository's name begins with, as Docker reads it; empty for Docker Hub.

    Only a first part with a dot or a port is a host, and `localhost`: `registry/dify` is a repository of Docker Hub.
    """
    host, slash, _ = repository.partition("/")
    return host if slash and ("." in host or ":" in host or host == "localhost") else ""


def pulled_name(image: Image, mirror: str, *, pinned: bool = True) -> str:
    """Return the reference to pull: repository:tag, and the digest where the catalogue has one and `pinned`.

    `mirror` is a registry prefix such as `registry.example.com/dify` or empty.
    """
    prefix = f"{mirror.rstrip('/')}/" if mirror else ""
    digest = f"@{image.digest}" if image.digest and pinned else ""
    host = registry_of(image.repository)
    # A mirror takes the place of every registry.
    repository = image.repository.removeprefix(f"{host}/") if mirror and host else image.repository
    return f"{prefix}{repository}:{image.tag}{digest}"


def loaded_name(image: Image) -> str:
    """Return the name of an image in mode `preloaded`: repository:tag.

    The engine has no digest of a loaded image, and sends every reference with a digest to the registry.
    """
    return pulled_name(image, "", pinned=False)


def local_name(role: str) -> str:
    """Return the name under which mode `local` builds a role's image."""
    return f"dify-kit/{_local_key(role)}:{build_digest(role)}"


def build_directory(role: str) -> Path:
    """Return the build context of a role, filled first where the repository does not hold all of it."""
    directory, _ = local_builds()[role]
    if directory == STANDIN:
        return standin_image.prepared_context()
    return prepared_context(build_digest(role)) if role == LITELLM else ROOT / directory


def _local_key(role: str) -> str:
    directory, target = local_builds()[role]
    name = Path(directory).name
    return f"{name}-{target}" if target else name


def reference(role: str, settings: Settings, release: Release) -> str:
    """Return the name of the image that a stack of these settings runs for a role."""
    if role == BASE_ROLE:
        return base_name(settings)
    if settings.images == "local" or role in own_roles():
        return local_name(role)
    image = release.images[role]
    if settings.images == "preloaded":
        return loaded_name(image)
    return pulled_name(image, settings.mirror, pinned=settings.image_pins)


def base_name(settings: Settings) -> str:
    """Return the base image of what a stack builds: by digest where a registry has it, else the engine's own.

    Machines without a registry make their base image from Debian packages (`dify_kit.setup.base_images`).
    """
    if settings.images in {"local", "preloaded"}:
        return loaded_name(BASE)
    return pulled_name(BASE, settings.mirror, pinned=settings.image_pins)


class Images:
    """The images of one stack; each is pulled or built once, when a service first needs it.

    `loaded` maps every role to the id of its image, in mode `preloaded` (`infra.guards.images`).
    """

    def __init__(self, settings: Settings, release: Release, loaded: Mapping[str, str]) -> None:
        self._settings = settings
        self._mode = settings.images
        self._release = release
        self._loaded = loaded
        self._known: dict[str, docker.RemoteImage] = {}
        self._group = _ImageGroup("images")
        self._provider = self._logged_in()

    def id_of(self, role: str) -> pulumi.Input[str]:
        """Return the image id for a role of the catalogue."""
        if self._mode == "preloaded":
            return self._loaded[role]
        if self._mode == "local" or role in own_roles():
            return self._image(_local_key(role), lambda: self._build(role)).image_id
        return self._pulled(role).image_id

    def _pulled(self, role: str) -> docker.RemoteImage:
        image = BASE if role == BASE_ROLE else self._release.images[role]
        key = image.repository.rsplit("/", 1)[-1]
        return self._image(key, lambda: self._pull(key, role))

    def _logged_in(self) -> docker.Provider | None:
        """Return a provider that uses the operator's `docker login` at the mirror; None where there is none.

        Pulumi's default provider pulls without the credentials that `docker login` stored. This
        one gets the path of the file, so that neither the state nor a process list has what is in it.
        """
        host = registry_of(f"{self._settings.mirror}/")
        file = logged_in(host) if self._mode == "mirror" else None
        if file is None:
            return None
        login = docker.ProviderRegistryAuthArgs(address=host, config_file=str(file))
        return docker.Provider(
            "mirror", registry_auth=[login], opts=pulumi.ResourceOptions(parent=self._group)
        )

    def _image(self, key: str, make: Callable[[], docker.RemoteImage]) -> docker.RemoteImage:
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]

    def _pull(self, key: str, role: str) -> docker.RemoteImage:
        return docker.RemoteImage(
            key,
            name=reference(role, self._settings, self._release),
            keep_locally=True,
            opts=pulumi.ResourceOptions(parent=self._group, provider=self._provider),
        )

    def _build(self, role: str) -> docker.RemoteImage:
        _, target = local_builds()[role]
        pulled = self._mode in {"registry", "mirror"}
        return docker.RemoteImage(
            _local_key(role),
            name=local_name(role),
            # The provider does not read the context: a changed digest makes it build again.
            triggers={"context": build_digest(role)},
            # Relative, so that a checkout at another path shows no change.
            build=docker.RemoteImageBuildArgs(
                context=os.path.relpath(build_directory(role)),
                target=target,
                build_args={BASE_ARGUMENT: base_name(self._settings), **build_arguments(self._settings)},
            ),
            # Other stacks may run the same image, and a kept one makes the next `up` short.
            keep_locally=True,
            opts=pulumi.ResourceOptions(
                parent=self._group,
                # A build has no credentials for a registry, and takes a base image that the engine has.
                depends_on=[self._pulled(BASE_ROLE)] if pulled else None,
            ),
        )


class _ImageGroup(pulumi.ComponentResource):
    """Keeps the images together in Pulumi's tree."""

    def __init__(self, name: str) -> None:
        super().__init__("dify-kit:images:Images", name)
        self.register_outputs({})
