"""The base image of everything that is built here, made from Debian packages where no registry answers."""

import os
import shutil
import subprocess

import docker

from dify_kit.errors import KitError
from dify_kit.setup.commands import as_root, done, run_step
from dify_kit.talk import say

BASE = "debian:trixie-slim"
SUITE = "trixie"
PULL_SECONDS = 60
BUILD_SECONDS = 900


def has_base_image() -> bool:
    """Tell whether the engine has the base image."""
    try:
        docker.from_env(timeout=10).images.get(BASE)
    except docker.errors.ImageNotFound:
        return False
    return True


def ensure_base_images() -> None:
    """Pull the base image, or make one of the same name. Raises KitError when neither works."""
    if has_base_image():
        done("base image", f"{BASE} is there")
        return
    if not _pull():
        _make()
    done("base image", BASE)


def _pull() -> bool:
    try:
        run_step(f"pulling {BASE}", ["docker", "pull", "--quiet", BASE], hint="", seconds=PULL_SECONDS)
    except KitError:
        say(f"  no registry has {BASE} for this machine: it is made from Debian packages")
        return False
    return True


def _make() -> None:
    if shutil.which("mmdebstrap") is None:
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        run_step(
            "installing mmdebstrap",
            as_root(["apt-get", "install", "-y", "-qq", "--no-install-recommends", "mmdebstrap"]),
            hint="run `apt-get update`; are Debian's package sources reachable?",
            seconds=BUILD_SECONDS,
            env=env,
        )
    # A pipe: the tar never lies on the disk.
    script = (
        f"mmdebstrap --quiet --variant=minbase --include=ca-certificates {SUITE} - "
        f"| docker import --change 'CMD [\"bash\"]' - {BASE}"
    )
    run_step(
        f"making {BASE} from Debian packages",
        as_root(["bash", "-o", "pipefail", "-c", script]),
        hint="are Debian's package sources reachable, and is /tmp large enough (500 MB)?",
        seconds=BUILD_SECONDS,
    )
    if not has_base_image():
        listed = subprocess.run(["docker", "images"], check=False, capture_output=True, text=True, timeout=30)
        raise KitError(f"{BASE} was made but the engine does not show it\n{listed.stdout}", "try again")
