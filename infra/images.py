"""Where an image comes from: the public registry, a private mirror of it, or a build on this machine.

The kit's own images are in no registry: they are built in every mode, on a base image from where the others come from.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pulumi
import pulumi_docker as docker

from infra import standin_image
from infra.litellm_image import prepared_context
from infra.releases import LITELLM, Image, Release

ROOT = Path(__file__).resolve().parents[1]

# Built in every mode: nobody publishes them.
OWN = frozenset({"gateway"})
BASE = Image(repository="debian", tag="trixie-slim")
# How mode `local` builds each role: directory of the build context, and the target of its Dockerfile.
LOCAL_BUILDS: dict[str, tuple[str, str | None]] = {
    "api": ("standin", "api"),
    "web": ("standin", "web"),
    "sandbox": ("standin", "sandbox"),
    "plugin_daemon": ("standin", "plugin-daemon"),
    "agent_backend": ("standin", "agent-backend"),
    "local_sandbox": ("standin", "local-sandbox"),
    "postgres": ("containers/postgres", None),
    "pgvector": ("containers/postgres", None),
    "redis": ("containers/redis", None),
    "nginx": ("containers/nginx", None),
    "squid": ("containers/squid", None),
    "certbot": ("containers/certbot", None),
    "gateway": ("gateway", None),
    LITELLM: ("containers/litellm", None),
    # Any image with a shell and chown will do, and this one is there already.
    "busybox": ("containers/postgres", None),
}


def context_digest(directory: Path) -> str:
    """Return 12 hex digits over the paths and bytes of a directory."""
    paths = (path for path in directory.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return standin_image.digest_of({str(path.relative_to(directory)): path for path in paths})


def build_digest(role: str) -> str:
    """Return 12 hex digits over all that a role's image is built from."""
    directory, _ = LOCAL_BUILDS[role]
    if directory == standin_image.DIRECTORY:
        return standin_image.digest_of(standin_image.files())
    return context_digest(ROOT / directory)


def pulled_name(image: Image, mirror: str) -> str:
    """Return the reference to pull: repository:tag, by digest where the catalogue has one.

    `mirror` is a registry prefix such as `registry.example.com/dify` or empty.
    """
    prefix = f"{mirror.rstrip('/')}/" if mirror else ""
    digest = f"@{image.digest}" if image.digest else ""
    host, _, path = image.repository.partition("/")
    # A mirror takes the place of every registry.
    repository = path if mirror and "." in host else image.repository
    return f"{prefix}{repository}:{image.tag}{digest}"


def local_name(role: str) -> str:
    """Return the name under which mode `local` builds a role's image."""
    return f"dify-kit/{_local_key(role)}:{build_digest(role)}"


def build_directory(role: str) -> Path:
    """Return the build context of a role, filled first where the repository does not hold all of it."""
    directory, _ = LOCAL_BUILDS[role]
    if directory == standin_image.DIRECTORY:
        return standin_image.prepared_context()
    return prepared_context(build_digest(role)) if role == LITELLM else ROOT / directory


def _local_key(role: str) -> str:
    directory, target = LOCAL_BUILDS[role]
    name = Path(directory).name
    return f"{name}-{target}" if target else name


def reference(role: str, mode: str, mirror: str, release: Release) -> str:
    """Return the name of the image that a stack of these settings runs for a role."""
    return local_name(role) if mode == "local" or role in OWN else pulled_name(release.images[role], mirror)


class Images:
    """The images of one stack; each is pulled or built once, when a service first needs it."""

    def __init__(self, mode: str, mirror: str, release: Release) -> None:
        self._mode = mode
        self._mirror = mirror
        self._release = release
        self._known: dict[str, docker.RemoteImage] = {}
        self._group = _ImageGroup("images")

    def id_of(self, role: str) -> pulumi.Output[str]:
        """Return the image id for a role of the catalogue."""
        if self._mode == "local" or role in OWN:
            return self._image(_local_key(role), lambda: self._build(role)).image_id
        image = self._release.images[role]
        key = image.repository.rsplit("/", 1)[-1]
        return self._image(key, lambda: self._pull(key, image)).image_id

    def _image(self, key: str, make: Callable[[], docker.RemoteImage]) -> docker.RemoteImage:
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]

    def _pull(self, key: str, image: Image) -> docker.RemoteImage:
        return docker.RemoteImage(
            key,
            name=pulled_name(image, self._mirror),
            keep_locally=True,
            opts=pulumi.ResourceOptions(parent=self._group),
        )

    def _build(self, role: str) -> docker.RemoteImage:
        _, target = LOCAL_BUILDS[role]
        return docker.RemoteImage(
            _local_key(role),
            name=local_name(role),
            # The provider does not look into the context: the digest tells it to build again.
            triggers={"context": build_digest(role)},
            # Relative, so that a checkout at another path shows no change.
            build=docker.RemoteImageBuildArgs(
                context=os.path.relpath(build_directory(role)),
                target=target,
                build_args={"BASE": pulled_name(BASE, self._mirror)} if self._mirror else None,
            ),
            # Other stacks may run the same image, and a kept one makes the next `up` short.
            keep_locally=True,
            opts=pulumi.ResourceOptions(parent=self._group),
        )


class _ImageGroup(pulumi.ComponentResource):
    """Keeps the images together in Pulumi's tree."""

    def __init__(self, name: str) -> None:
        super().__init__("dify-kit:images:Images", name)
        self.register_outputs({})
