"""Finds the images of `dify:images preloaded` in the engine, before anything is created. It contacts no registry."""

from collections.abc import Mapping

import pulumi

from infra import engine
from infra.catalogue.images import BASE, local_builds, own_roles
from infra.catalogue.releases import Release
from infra.platforms import image_needs
from infra.platforms.images import BASE_ARGUMENT, loaded_name, local_name, reference
from infra.settings.stack import Settings

ENGINE_TIMEOUT_SECONDS = 15
UNPINNED = (
    "dify:imagePins is false: images are taken by tag, with any digest. An account that can write to {source} "
    "decides what this stack runs, and the same tag may be another image tomorrow"
)
PRELOADED = (
    "images: preloaded, by tag, as they are in the engine; the catalogue's digests are not compared. `dify-kit images "
    "load` checks what it loads by its checksums"
)


def check(settings: Settings, release: Release) -> Mapping[str, str]:
    """Return role -> image id in mode `preloaded`; nothing in others. Warns of images taken by tag.

    Raises pulumi.RunError that names every missing image, and the commands to load it.
    """
    if settings.images in {"registry", "mirror"} and not settings.image_pins:
        pulumi.log.warn(UNPINNED.format(source=settings.mirror or "the registry"))
    if settings.images != "preloaded":
        return {}
    parts = image_needs.parts_of(settings)
    names = {role: reference(role, settings, release) for role in image_needs.roles(parts, release)}
    found = ids(sorted(set(names.values())))
    if missing := sorted({name for name in names.values() if name not in found}):
        raise pulumi.RunError(problem(missing, parts, release))
    pulumi.log.info(PRELOADED)
    return {role: found[name] for role, name in names.items()}


def problem(missing: list[str], parts: image_needs.Parts, release: Release) -> str:
    """Return the message about missing images."""
    listed = "\n".join(f"  - {name}" for name in missing)
    also = "".join(f" --also {role}" for role in sorted(parts.optional))
    options = f"--release {release.version} --vector-store {parts.vector_store}{also}"
    lines = [
        f"dify:images: preloaded, and {len(missing)} image(s) are not in the engine:",
        listed,
        "on a machine with the registry and this version of the kit:",
        f"  dify-kit images save {options} dify-images.tar",
        "then here:",
        "  dify-kit images load dify-images.tar",
        "or load copies of your own (`docker load --input <file>`) under these names (`docker tag <image> <name>`)",
    ]
    for role in sorted(own_roles() & parts.optional):
        name, (directory, _) = local_name(role), local_builds()[role]
        if name in missing:
            base = f"{BASE_ARGUMENT}={loaded_name(BASE)}"
            build = f"`docker build --build-arg {base} --tag {name} {directory}`"
            lines.append(f"{name} is the kit's own; where Debian's packages can be reached: {build}")
    return "\n".join(lines)


def ids(names: list[str]) -> dict[str, str]:
    """Return name -> id of the images that the engine has. Raises pulumi.RunError when it does not answer."""
    import docker  # noqa: PLC0415  # the program needs the engine's API for its guards only
    import requests  # noqa: PLC0415

    found = {}
    try:
        client = engine.client(ENGINE_TIMEOUT_SECONDS)
        for name in names:
            try:
                found[name] = str(client.api.inspect_image(name)["Id"])  # type: ignore[no-untyped-call]
            except docker.errors.ImageNotFound:
                continue
    except (docker.errors.DockerException, requests.RequestException) as silence:
        raise pulumi.RunError(
            f"dify:images: preloaded, and the Docker engine does not list its images: {silence}; see `docker "
            "info`"
        ) from None
    return found
