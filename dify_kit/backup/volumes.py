"""Copies volumes out of the engine and into it, through its API alone: a remote engine works as a local one does.

A container is made of an empty image and never started: no image of a registry is needed, and nothing runs. The engine
reads and writes tars in its volume, owners and modes included.
"""

import contextlib
import io
import secrets
import tarfile
from collections.abc import Iterator, Mapping
from typing import Any

import docker
import requests

from dify_kit.backup.blocks import gathered
from dify_kit.backup.stores import ROOT, VolumeError, Volumes, counted
from dify_kit.backup.trees import Census
from dify_kit.errors import KitError
from dify_kit.stack.cut_off_backup import HOLDER
from infra import engine
from infra.guards.volumes import STACK_LABEL

IMAGE, TAG = "dify-kit/empty", "1"
# A directory above the volume: the engine then stores and restores owner and mode of the volume's own directory, too.
ABOVE = "/backup"
# Between two blocks of a stream. A disk that hangs longer is no disk to back up from.
SECONDS = 600
BROKEN = (docker.errors.DockerException, requests.RequestException, OSError)


def connect() -> Any:  # noqa: ANN401  # docker's client has no types
    """Return a client of the chosen engine with long timeouts. Raises KitError."""
    try:
        return engine.client(SECONDS)
    except (engine.EngineChoiceError, *BROKEN) as problem:
        raise KitError(
            f"the Docker engine does not answer: {problem}", "make `docker version` work, then try again"
        ) from None


@contextlib.contextmanager
def _holder(api: Any, volume: str, stack: str, *, read_only: bool) -> Iterator[str]:  # noqa: ANN401
    """Yield the id of a container that has a volume and does not run."""
    name = f"{IMAGE}:{TAG}"
    try:
        api.inspect_image(name)
    except docker.errors.ImageNotFound:
        empty = io.BytesIO()
        with tarfile.open(fileobj=empty, mode="w"):
            pass
        api.import_image_from_data(empty.getvalue(), repository=IMAGE, tag=TAG)
    mode = "ro" if read_only else "rw"
    config = api.create_host_config(
        binds={volume: {"bind": f"{ABOVE}/{ROOT}", "mode": mode}}, network_mode="none"
    )
    made = api.create_container(
        name,
        command=["none"],
        name=f"dify-{stack}-{HOLDER}{secrets.token_hex(3)}",
        # Found and removed with the stack's own containers, where it is left by a run that was killed.
        labels={STACK_LABEL: stack},
        host_config=config,
    )
    try:
        yield str(made["Id"])
    finally:
        with contextlib.suppress(docker.errors.NotFound):
            api.remove_container(made["Id"], force=True)


class EngineVolumes(Volumes):
    """The volumes of a stack on a Docker engine."""

    def __init__(self, client: Any, stack: str) -> None:  # noqa: ANN401  # docker's client has no types
        self._api = client.api
        self._stack = stack

    @contextlib.contextmanager
    def reading(self, volume: str) -> Iterator[Iterator[bytes]]:
        """See Volumes."""
        with _told(), _holder(self._api, volume, self._stack, read_only=True) as holder:
            blocks, _ = self._api.get_archive(holder, f"{ABOVE}/{ROOT}")
            yield _read(blocks)

    def fill(self, volume: str, labels: Mapping[str, str], content: Iterator[bytes], size: int) -> Census:
        """See Volumes."""
        del size  # the engine finds the end by itself
        with _told():
            self._api.create_volume(volume, labels=dict(labels))
            with _holder(self._api, volume, self._stack, read_only=False) as holder:
                self._api.put_archive(holder, ABOVE, content)
        with self.reading(volume) as blocks:
            return counted(blocks)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Turn what docker's SDK raises into VolumeError. An error of this machine's disk stays what it is."""
    try:
        yield
    except BROKEN as problem:
        if isinstance(problem, OSError) and problem.errno is not None:
            raise
        raise VolumeError(str(getattr(problem, "explanation", None) or problem)) from None


def _read(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield blocks of the engine; what breaks off is a VolumeError."""
    with _told():
        yield from gathered(blocks)


def read_file(client: Any, volume: str, stack: str, name: str) -> bytes | None:  # noqa: ANN401
    """Return a small file of a volume, by its path in it; None where there is none. Raises KitError."""
    try:
        # A container would make the volume that it names.
        client.api.inspect_volume(volume)
        with _holder(client.api, volume, stack, read_only=True) as holder:
            blocks, _ = client.api.get_archive(holder, f"{ABOVE}/{ROOT}/{name}")
            with tarfile.open(fileobj=io.BytesIO(b"".join(blocks))) as tar:
                file = tar.extractfile(tar.getmembers()[0])
                return file.read() if file else None
    except docker.errors.NotFound:
        return None
    except (*BROKEN, tarfile.TarError) as problem:
        raise KitError(f"volume {volume} cannot be read: {problem}", "run the same command again") from None
