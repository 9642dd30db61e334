"""Finds the images of `dify:images preloaded` in the engine, before anything is created. It contacts no registry."""

from collections.abc import Mapping, Sequence

import pulumi

from infra import engine, hints
from infra.catalogue.images import BASE, local_builds, own_roles
from infra.catalogue.releases import Release
from infra.guards.findings import Refusal, View
from infra.platforms import image_needs
from infra.platforms.images import BASE_ARGUMENT, loaded_name, local_name, reference
from infra.settings.stack import Settings

ENGINE_TIMEOUT_SECONDS = 15
UNPINNED = (
    "dify:imagePins is false: images are taken by tag, with any digest. An account that can write to {source} "
    "decides what this stack runs, and the same tag may be another image tomorrow"
)
PRELOADED = (
    "images: preloaded, by tag, as they are in the engine; the catalogue's digests are not compared. The command "
    "`images load` checks what it loads by its checksums"
)


def refusals(settings: Settings, release: Release, view: View) -> list[Refusal]:
    """Return the images of mode `preloaded` that are missing, with the commands to load them; nothing in others."""
    if settings.images != "preloaded":
        return []
    names = _names(settings, release)
    found = view.image_ids(sorted(set(names.values())))
    missing = sorted({name for name in names.values() if name not in found})
    return [missing_images(missing, image_needs.parts_of(settings), release)] if missing else []


def loaded(settings: Settings, release: Release, view: View) -> Mapping[str, str]:
    """Return role -> image id in mode `preloaded`, where no image is missing; nothing in others."""
    if settings.images != "preloaded":
        return {}
    names = _names(settings, release)
    found = view.image_ids(sorted(set(names.values())))
    return {role: found[name] for role, name in names.items()}


def warnings(settings: Settings) -> list[str]:
    """Return what there is to know about images that are taken by tag from a registry."""
    if settings.images in {"registry", "mirror"} and not settings.image_pins:
        return [UNPINNED.format(source=settings.mirror or "the registry")]
    return []


def _names(settings: Settings, release: Release) -> dict[str, str]:
    roles = image_needs.roles(image_needs.parts_of(settings), release)
    return {role: reference(role, settings, release) for role in roles}


def missing_images(missing: list[str], parts: image_needs.Parts, release: Release) -> Refusal:
    """Return what is to be said about missing images."""
    listed = "\n".join(f"  - {name}" for name in missing)
    also = [word for role in sorted(parts.optional) for word in ("--also", role)]
    options = ["--release", release.version, "--vector-store", parts.vector_store, *also]
    lines = [
        "on a machine with the registry and this version of the kit:",
        f"  {hints.kit('images', 'save', *options, 'dify-images.tar')}",
        "then here:",
        f"  {hints.kit('images', 'load', 'dify-images.tar')}",
        "or load copies of your own (`docker load --input <file>`) under these names (`docker tag <image> <name>`)",
    ]
    for role in sorted(own_roles() & parts.optional):
        name, (directory, _) = local_name(role), local_builds()[role]
        if name in missing:
            base = f"{BASE_ARGUMENT}={loaded_name(BASE)}"
            build = f"`docker build --build-arg {base} --tag {name} {directory}`"
            lines.append(f"{name} is the kit's own; where Debian's packages can be reached: {build}")
    return Refusal(
        problem=f"dify:images: preloaded, and {len(missing)} image(s) are not in the engine:\n{listed}",
        fix="\n".join(lines),
    )


def ids(names: Sequence[str]) -> dict[str, str]:
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
