"""What the kit needs on this machine, installed where it is missing: Docker, Pulumi and its providers, base images."""

from dify_kit.errors import KitError
from dify_kit.setup.base_images import ensure_base_images
from dify_kit.setup.browser import ensure_browser
from dify_kit.setup.docker_engine import ensure_docker
from dify_kit.setup.kubernetes_provider import ensure_kubernetes_provider
from dify_kit.setup.pulumi_engine import engine_env, ensure_pulumi
from dify_kit.talk import say, warn

__all__ = [
    "engine_env",
    "ensure_base_images",
    "ensure_browser",
    "ensure_docker",
    "ensure_kubernetes_provider",
    "ensure_pulumi",
    "run_setup",
]


def run_setup(images: str | None = None, *, kubernetes: bool = False) -> None:
    """Install what is missing, in order. Raises KitError with the reason and the next thing to try.

    ``images`` is the stack's source of images (``dify:images``). Only ``local`` depends on the base image;
    while the source is unknown (None), a base image that cannot be had is worth a warning.
    ``kubernetes`` adds Pulumi's provider for that platform.
    """
    ensure_docker()
    ensure_pulumi()
    if kubernetes:
        ensure_kubernetes_provider()
    if images in {"registry", "mirror", "preloaded"}:
        return
    try:
        ensure_base_images()
    except KitError as problem:
        if images is not None:
            raise
        warn(f"no base image, so `images: local` will not work here: {problem.message}")
        if problem.hint:
            say(f"  hint: {problem.hint}")
