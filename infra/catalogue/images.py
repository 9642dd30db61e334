"""The roles of images: how each is built on this machine, and the images that no release names."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, kw_only=True)
class Image:
    """An image by its registry name. `digest` is `sha256:...`, or None where no public source pins it."""

    repository: str
    tag: str
    digest: str | None = None


@dataclass(frozen=True, kw_only=True)
class Role:
    """One role of an image.

    `build` is the directory of the build context of `dify:images local`, `target` the stage of its Dockerfile. `own`
    marks an image that no registry has: it is built in every mode. `image` is one that belongs to the kit and not to a
    release. `dify` marks an image of Dify itself, whose tag is the release's version.
    """

    build: str
    target: str | None = None
    own: bool = False
    image: Image | None = None
    dify: bool = False


# What every Dockerfile of the kit builds on, passed as its argument BASE. The digest is that of the index of all
# platforms, read on 2026-10-06.
BASE = Image(
    repository="debian",
    tag="trixie-slim",
    digest="sha256:a29215f6a35e51e22adffa17f89e9d2ef06214e64a2bad10d765c46aea49f11f",
)
# The role of the base image. No service runs it.
BASE_ROLE = "base"
# The version is also that of containers/litellm. 1.82.7, 1.82.8 and 1.107.0 were malicious; releases from 1.106.6 on
# are signed with the key that was made after that.
LITELLM_IMAGE = Image(repository="ghcr.io/berriai/litellm", tag="v1.106.12")
STANDIN = "standin"

ROLES: Mapping[str, Role] = MappingProxyType(
    {
        "api": Role(build=STANDIN, target="api", dify=True),
        "web": Role(build=STANDIN, target="web", dify=True),
        "sandbox": Role(build=STANDIN, target="sandbox"),
        "plugin_daemon": Role(build=STANDIN, target="plugin-daemon"),
        "agent_backend": Role(build=STANDIN, target="agent-backend", dify=True),
        "local_sandbox": Role(build=STANDIN, target="local-sandbox", dify=True),
        "postgres": Role(build="containers/postgres"),
        "pgvector": Role(build="containers/postgres"),
        "redis": Role(build="containers/redis"),
        "nginx": Role(build="containers/nginx"),
        "squid": Role(build="containers/squid"),
        "certbot": Role(build="containers/certbot"),
        # Any image with a shell and chown works, and this one is built anyway.
        "busybox": Role(build="containers/postgres"),
        # No local build: `dify:images local` runs pgvector.
        "weaviate": Role(build=""),
        "qdrant": Role(build=""),
        "gateway": Role(build="gateway", own=True),
        "litellm": Role(build="containers/litellm", image=LITELLM_IMAGE),
    }
)


def local_builds() -> dict[str, tuple[str, str | None]]:
    """Return how `dify:images local` builds each role: the build context, and the stage of its Dockerfile."""
    return {name: (role.build, role.target) for name, role in ROLES.items() if role.build}


def can_build(role: str) -> bool:
    """Tell whether `dify:images local` has an image for a role."""
    return role in ROLES and bool(ROLES[role].build)


def own_roles() -> frozenset[str]:
    """Return the roles that are built in every mode, since no registry has their images."""
    return frozenset(name for name, role in ROLES.items() if role.own)


def images_of_the_kit() -> dict[str, Image]:
    """Return the images that are the same for every release, by role."""
    return {name: role.image for name, role in ROLES.items() if role.image}


def stands_in(role: str) -> bool:
    """Tell whether the stand-in takes the place of a role's image in mode `local`."""
    return role in ROLES and ROLES[role].build == STANDIN
