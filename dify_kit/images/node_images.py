"""The images that the kit builds, for the nodes of a cluster: pushed to `dify:kubernetes.registry`."""

from dify_kit.errors import KitError
from dify_kit.images import copying, wanted
from dify_kit.images.copying import Copy, Pair
from dify_kit.images.wanted import ImageStore
from dify_kit.talk import step, warn
from infra import hints
from infra.platforms import image_needs
from infra.platforms.kubernetes.images import node_name
from infra.settings.kubernetes import PRELOADED
from infra.settings.stack import Settings


def to_push(settings: Settings) -> list[Pair]:
    """Return what the registry has to hold; nothing for a stack whose images other registries have.

    Raises KitError for a stack without such a registry.
    """
    cluster = settings.kubernetes
    if cluster is None:
        raise KitError(
            "dify:platform is docker: the engine builds its images itself, and nothing is pushed",
            f"for a private registry: `{hints.kit('images', 'mirror', stack=settings.stack)}`",
        )
    built = [one for one in _images(settings) if one.build]
    if built and cluster.registry in {"", PRELOADED}:
        raise KitError(
            f"dify:kubernetes.registry: {cluster.registry!r} names no registry to push to",
            f"name its prefix: `{hints.kit('set', 'kubernetes.registry', 'HOST:PORT/PATH', stack=settings.stack)}`",
        )
    return [
        Pair(
            wanted=one,
            source=one.reference,
            target=node_name(one.roles[0], cluster.registry),
            digest=None,
        )
        for one in built
    ]


def push(settings: Settings, store: ImageStore) -> list[Copy]:
    """Push them, built first where the engine lacks one; layers that are there stay. Raises KitError."""
    return copying.push(to_push(settings), store)


def ensure(settings: Settings) -> None:
    """Push them before a deployment; without a Docker engine here they have to be there already.

    Nothing is done for a stack on Docker, and for one whose nodes have the images. Raises KitError.
    """
    cluster = settings.kubernetes
    if cluster is None or cluster.registry in {"", PRELOADED} or not (pairs := to_push(settings)):
        return
    try:
        store = ImageStore()
    except KitError as problem:
        warn(f"no image is built and pushed: {problem.message}. {cluster.registry} has to have them")
        return
    step(f"pushing {len(pairs)} image(s) to {cluster.registry}")
    copying.push(pairs, store)


def _images(settings: Settings) -> list[wanted.Wanted]:
    parts = image_needs.parts_of(settings)
    return wanted.wanted(parts, settings.dify, wanted.source_of(settings))
