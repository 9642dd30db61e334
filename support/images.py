"""Images of the kit for tests, built when the engine does not have them yet."""

import subprocess

import docker

from dify_kit.setup.base_images import BASE
from infra.catalogue.images import local_builds
from infra.platforms.images import BASE_ARGUMENT, build_directory, local_name

BUILD_SECONDS = 900


def image_of(role: str) -> str:
    """Return the name of the local image of a role."""
    name = local_name(role)
    try:
        docker.from_env().images.get(name)
    except docker.errors.ImageNotFound:
        _, target = local_builds()[role]
        command = ["docker", "build", "--quiet", "--build-arg", f"{BASE_ARGUMENT}={BASE}", "--tag", name]
        command += ["--target", target] if target else []
        subprocess.run(
            [*command, str(build_directory(role))], check=True, capture_output=True, timeout=BUILD_SECONDS
        )
    return name
