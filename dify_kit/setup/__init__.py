"""What the kit needs on this machine, installed where it is missing: Docker engine, Pulumi engine, base images."""

from dify_kit.setup.base_images import ensure_base_images
from dify_kit.setup.docker_engine import ensure_docker
from dify_kit.setup.pulumi_engine import engine_env, ensure_pulumi

__all__ = ["engine_env", "ensure_base_images", "ensure_docker", "ensure_pulumi", "run_setup"]


def run_setup() -> None:
    """Install what is missing, in order. Raises KitError with the reason and the next thing to try."""
    ensure_docker()
    ensure_pulumi()
