"""Images that the bench runs: the kit's own nginx, and one with wrk and the event streams."""

import subprocess
from pathlib import Path

from dify_kit.setup.base_images import BASE
from dify_kit.setup.commands import run_step
from infra.platforms.images import BASE_ARGUMENT, build_directory, context_digest, local_name

DIRECTORY = Path(__file__).parent / "image"
BUILD_SECONDS = 900


def _built(name: str, directory: Path) -> str:
    known = subprocess.run(["docker", "image", "inspect", name], check=False, capture_output=True, timeout=30)
    if known.returncode != 0:
        run_step(
            f"building {name}",
            [
                "docker",
                "build",
                "--quiet",
                "--build-arg",
                f"{BASE_ARGUMENT}={BASE}",
                "--tag",
                name,
                str(directory),
            ],
            hint="`make setup` makes the base image; is the Debian mirror reachable?",
            seconds=BUILD_SECONDS,
        )
    return name


def nginx() -> str:
    """Return the image in which the kit runs nginx, built when it is not there yet."""
    return of("nginx")


def of(role: str) -> str:
    """Return an image of the kit's own, built when it is not there yet. `role` has no build stages."""
    return _built(local_name(role), build_directory(role))


def bench() -> str:
    """Return the image with wrk and the event streams, built when it is not there yet."""
    return _built(f"dify-kit/bench:{context_digest(DIRECTORY)}", DIRECTORY)
