"""The images of the test cluster: that of its nodes, those of its own pods, and those that tests load."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dify_kit.setup.base_images import BASE
from dify_kit.setup.commands import cache_directory, run_step
from tests.cluster import programs
from tests.cluster.components import HELPER_IMAGE, PAUSE_IMAGE
from tests.cluster.docker import docker
from tests.cluster.objects import DNS_IMAGE
from tests.cluster.plan import container

CONTAINERS = Path(__file__).parent / "containers"
BUILD_SECONDS, LOAD_SECONDS = 600, 600
REGISTRY = "docker.io/"
_HINT = "are Debian's package sources reachable, and has the engine enough disk (`docker info`)?"


def digest(*folders: str) -> str:
    """Return a digest of image sources: 12 hexadecimal digits."""
    found = hashlib.sha256()
    for folder in folders:
        for path in sorted((CONTAINERS / folder).iterdir()):
            found.update(f"{folder}/{path.name}\0".encode())
            found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()[:12]


def node_image() -> str:
    """Return the name of the nodes' image; its tag follows its sources."""
    return f"dify-kit-cluster/node:{digest('node')}"


def archive() -> Path:
    """Return the path of the archive with the images of the cluster's own pods, by what is in it."""
    parts = (digest("tools", "program"), programs.DNS.key, programs.SANDBOX.key)
    key = hashlib.sha256(repr(parts).encode()).hexdigest()[:12]
    return cache_directory() / programs.FOLDER / f"images-{key}" / "images.tar"


def ensure_images() -> None:
    """Build the nodes' image into the engine, and the archive of the others into the cache, where missing."""
    if not docker("images", "--quiet", node_image()):
        _build("the image of nodes", node_image(), CONTAINERS / "node", base=True)
    if not archive().is_file():
        _make_archive(archive())


def _build(what: str, tag: str, context: Path, *, base: bool = False) -> None:
    arguments = ["--build-arg", f"BASE={BASE}"] if base else []
    run_step(
        f"building {what}",
        ["docker", "build", "--quiet", *arguments, "--tag", tag, str(context)],
        hint=_HINT,
        seconds=BUILD_SECONDS,
    )


def _make_archive(target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    names = [one.removeprefix(REGISTRY) for one in (HELPER_IMAGE, PAUSE_IMAGE, DNS_IMAGE)]
    helper, pause, dns = names
    _build("the image of tools", helper, CONTAINERS / "tools", base=True)
    for name, build in ((pause, programs.SANDBOX), (dns, programs.DNS)):
        with tempfile.TemporaryDirectory(prefix=".context-", dir=target.parent) as scratch:
            shutil.copyfile(CONTAINERS / "program" / "Dockerfile", Path(scratch) / "Dockerfile")
            shutil.copy2(programs.program(build), Path(scratch) / "program")
            _build(f"the image {name}", name, Path(scratch))
    with tempfile.TemporaryDirectory(prefix=".new-", dir=target.parent) as scratch:
        draft = Path(scratch) / target.name
        docker("save", "--output", str(draft), *names, seconds=LOAD_SECONDS)
        draft.replace(target)
    docker("image", "rm", *names)


def wanted(images: Mapping[str, str], loaded: Mapping[str, str]) -> list[str]:
    """Return the names of images (name -> id) of which a node has not loaded just that id."""
    return [name for name, identity in images.items() if loaded.get(name) != identity]


def load(cluster: str, nodes: Sequence[str], directory: Path, images: Sequence[str]) -> dict[str, list[str]]:
    """Copy images of the local engine to nodes, each only where it is missing; return node -> names loaded.

    ``directory`` is the cluster's; a file of it has what was loaded before. A pod names an image as the engine does,
    with `imagePullPolicy: IfNotPresent` or `Never`. Raises KitError.
    """
    found = {name: docker("image", "inspect", "--format", "{{.Id}}", name) for name in images}
    record = directory / "loaded.json"
    before: dict[str, dict[str, str]] = json.loads(record.read_text()) if record.is_file() else {}
    todo = {node: wanted(found, before.get(node, {})) for node in nodes}
    everything = list(dict.fromkeys(name for names in todo.values() for name in names))
    if everything:
        with tempfile.TemporaryDirectory(prefix=".images-", dir=directory) as scratch:
            packed = Path(scratch) / "images.tar"
            docker("save", "--output", str(packed), *everything, seconds=LOAD_SECONDS)
            _import_everywhere([container(cluster, node) for node, names in todo.items() if names], packed)
        after = {node: {**before.get(node, {}), **found} for node in nodes}
        record.write_text(json.dumps(before | after))
    return todo


def _import_everywhere(containers: Sequence[str], packed: Path) -> None:
    def one(name: str) -> None:
        with packed.open("rb") as stream:
            command = ("exec", "--interactive", name, "ctr", "--namespace", "k8s.io", "images", "import", "-")
            docker(*command, stdin=stream, seconds=LOAD_SECONDS)

    with ThreadPoolExecutor(max_workers=len(containers)) as pool:
        # The list raises what one of them raised.
        list(pool.map(one, containers))
