"""The base image of everything that is built here, made from Debian packages where no registry answers."""

import shutil
import tempfile
from pathlib import Path

import requests
from docker.errors import DockerException, ImageNotFound

from dify_kit.containers.docker_host import DockerEngine
from dify_kit.errors import KitError
from dify_kit.setup.commands import apt_install, as_root, cache_directory, done, run_step
from dify_kit.talk import say
from infra import engine
from infra.catalogue import images

# By its name alone: the digest of the catalogue is that of a registry.
BASE = f"{images.BASE.repository}:{images.BASE.tag}"
SUITE = images.BASE.tag.removesuffix("-slim")
PROBE_SECONDS = 12
PULL_SECONDS = 600
BUILD_SECONDS = 900
_OTHER_WAYS = (
    f"load one from another machine (`docker save {BASE}` there, `docker load` here), "
    "or use `--images registry` or `--images mirror`"
)


def has_base_image() -> bool:
    """Tell whether the engine has the base image. Raises KitError when the engine does not answer."""
    try:
        engine.client(10).images.get(BASE)
    except ImageNotFound:
        return False
    except (DockerException, requests.RequestException, OSError) as problem:
        raise KitError(
            f"the Docker engine does not say which images it has: {problem}", "see `docker info`"
        ) from None
    return True


def ensure_base_images() -> None:
    """Pull the base image, or make one of the same name. Raises KitError when neither works."""
    if has_base_image():
        done("base image", f"{BASE} is there")
        return
    if not _pull():
        _make()
    if not has_base_image():
        raise KitError(
            f"{BASE} was made, but the engine does not show it", f"see `docker images`; {_OTHER_WAYS}"
        )
    done("base image", BASE)


def _pull() -> bool:
    say(f"→ asking the registry for {BASE} ...")
    # A question first: it is answered within seconds, where a pull may hang for minutes before it fails.
    problem = DockerEngine().can_reach_registry(BASE, PROBE_SECONDS)
    if problem:
        say(f"  not there ({problem.strip().splitlines()[0][:120]}): it is made from Debian packages instead")
        return False
    try:
        run_step(f"pulling {BASE}", ["docker", "pull", "--quiet", BASE], hint="", seconds=PULL_SECONDS)
    except KitError as failed:
        say(f"  {failed.message.splitlines()[-1].strip()}: it is made from Debian packages instead")
        return False
    return True


def _make() -> None:
    if shutil.which("mmdebstrap") is None:
        hint = f"are Debian's package sources reachable? Otherwise {_OTHER_WAYS}"
        # Ubuntu lacks the keys of Debian's archive.
        apt_install(["mmdebstrap", "debian-archive-keyring"], hint=hint, seconds=BUILD_SECONDS)
    cache_directory().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".base-", dir=cache_directory()) as scratch:
        archive = Path(scratch) / "base.tar"
        variant = ["--quiet", "--variant=minbase", "--include=ca-certificates"]
        run_step(
            f"making {BASE} from Debian packages",
            as_root(["mmdebstrap", *variant, SUITE, str(archive)]),
            hint=f"are Debian's package sources reachable, and is the disk not full? Otherwise {_OTHER_WAYS}",
            seconds=BUILD_SECONDS,
        )
        run_step(
            f"importing {BASE}",
            ["docker", "import", "--change", 'CMD ["bash"]', str(archive), BASE],
            hint="see `docker info`: has the engine enough disk?",
            seconds=BUILD_SECONDS,
        )
