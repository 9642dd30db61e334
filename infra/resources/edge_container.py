"""What a change of nginx's configuration asks of the edge's container, through the Docker API alone.

Nothing here needs a path of the engine's machine, so a remote engine (`DOCKER_HOST`) works as a local one does.
"""

import io
import json
import posixpath
import tarfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infra import ports
from infra.edge_paths import (
    AFTER_RELOAD_SECONDS,
    CURRENT,
    DRAIN_MARK,
    DRAIN_SECONDS,
    EDGE_DIRECTORY,
    NGINX_CONFIG,
    RELEASES_DIRECTORY,
    RUN_DIRECTORY,
)
from infra.resources.own_directory import directory_archive

ENGINE_TIMEOUT_SECONDS = 60
# `nginx -t` and every other command in the container end by themselves.
COMMAND_SECONDS = 20
LOG_LINES = 20
PUBLIC_MODE, PRIVATE_MODE = 0o444, 0o400
ROOT = 0


class EdgeContainerError(Exception):
    """The container did not do what was asked. The message says what it said."""


@dataclass(frozen=True, kw_only=True)
class Ran:
    """A command that ended in the container: exit code, and both of its streams as text."""

    code: int
    output: str


def archive(revision: str, files: Mapping[str, str], private: Mapping[str, str], owner: int) -> bytes:
    """Return a tar of `releases/<revision>/`; private files belong to `owner` (a uid), all others to root."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        directories: set[str] = {"releases", f"releases/{revision}"}
        for path in (*files, *private):
            parts = path.split("/")[:-1]
            directories |= {
                f"releases/{revision}/{'/'.join(parts[:depth])}" for depth in range(1, len(parts) + 1)
            }
        for directory in sorted(directories):
            tar.addfile(_entry(directory, mode=0o755, owner=ROOT, kind=tarfile.DIRTYPE))
        for chosen, mode, uid in ((files, PUBLIC_MODE, ROOT), (private, PRIVATE_MODE, owner)):
            for path, text in sorted(chosen.items()):
                data = text.encode()
                entry = _entry(f"releases/{revision}/{path}", mode=mode, owner=uid, kind=tarfile.REGTYPE)
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def _entry(name: str, *, mode: int, owner: int, kind: bytes) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.uid, entry.gid, entry.type = mode, owner, owner, kind
    entry.mtime = int(time.time())
    return entry


class EdgeContainer:
    """The edge's container, by its id."""

    def __init__(self, container: str) -> None:
        import docker  # noqa: PLC0415  # kept out of the pickled provider

        self._api = docker.from_env(timeout=ENGINE_TIMEOUT_SECONDS).api
        self._id = container

    def address_of(self, container: str, network: str) -> str:
        """Return the address that another container has in a network, empty when it does not run there."""
        import docker  # noqa: PLC0415

        try:
            found = self._api.inspect_container(container)
        except docker.errors.NotFound:
            return ""
        place = found["NetworkSettings"]["Networks"].get(network) or {}
        return str(place.get("IPAddress") or "")

    def status(self) -> str:
        """Return the engine's word for the container's state, empty when there is no such container."""
        import docker  # noqa: PLC0415

        try:
            return str(self._api.inspect_container(self._id)["State"]["Status"])
        except docker.errors.NotFound:
            return ""

    def write(self, revision: str, files: Mapping[str, str], private: Mapping[str, str], owner: int) -> None:
        """Write a configuration beside the running one."""
        # A leftover of a run that was cut off may be half of it.
        self._must("clearing an old draft", ["rm", "-rf", f"{RELEASES_DIRECTORY}/{revision}"], root=True)
        self._api.put_archive(self._id, EDGE_DIRECTORY, archive(revision, files, private, owner))

    def own(self, directory: str, owner: int) -> None:
        """Let `owner` (a uid) alone write to a directory; what is in it stays. It lies on a volume."""
        parent, name = posixpath.split(directory)
        self._api.put_archive(self._id, parent, directory_archive(name, owner))

    def accepts(self, revision: str) -> Ran:
        """Let nginx itself judge a configuration, in the container that will run it."""
        config = f"{RELEASES_DIRECTORY}/{revision}/nginx.conf"
        return self._run(["nginx", "-e", "stderr", "-t", "-c", config])

    def current(self) -> str:
        """Return the revision that `current` points to, empty before the first one."""
        told = self._run(["readlink", CURRENT])
        return told.output.strip().rsplit("/", 1)[-1] if told.code == 0 else ""

    def switch(self, revision: str) -> None:
        """Let `current` point to a revision, in one step."""
        draft = f"{EDGE_DIRECTORY}/.current"
        script = f"ln -sfn releases/{revision} {draft} && mv -T {draft} {CURRENT}"
        self._must("switching the configuration", ["sh", "-c", script], root=True)

    def reload(self) -> Ran:
        """Drain, then let nginx take what `current` points to."""
        script = (
            f"trap 'rm -f {DRAIN_MARK}' EXIT; touch {DRAIN_MARK}; sleep {DRAIN_SECONDS}; "
            f"nginx -e stderr -s reload -c {NGINX_CONFIG}; code=$?; sleep {AFTER_RELOAD_SECONDS}; exit $code"
        )
        return self._run(["sh", "-c", script])

    def started(self) -> bool:
        """Tell whether nginx runs at all, be it too busy to answer; else the container waits for something to run."""
        pid = f"{RUN_DIRECTORY}/nginx.pid"
        return self._run(["sh", "-c", f"kill -0 $(cat {pid})"]).code == 0

    def running(self) -> str:
        """Return the revision that nginx answers with, empty when it does not answer."""
        address = f"http://127.0.0.1:{ports.EDGE_STATUS}/revision"
        told = self._run(["curl", "-fsS", "--max-time", "3", address])
        try:
            return str(json.loads(told.output)["revision"])
        except (ValueError, KeyError, TypeError):
            return ""

    def wait_for(self, revision: str, seconds: float) -> bool:
        """Wait until nginx answers with a revision."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.running() == revision:
                return True
            time.sleep(0.1)
        return False

    def keep(self, revisions: Sequence[str]) -> None:
        """Delete every revision but these."""
        kept = " ".join(f"! -name {revision}" for revision in revisions)
        script = f"find {RELEASES_DIRECTORY} -mindepth 1 -maxdepth 1 {kept} -exec rm -rf {{}} +"
        self._must("removing old configurations", ["sh", "-c", script], root=True)

    def complaints(self, since: float) -> str:
        """Return what nginx complained about in its log since a moment (seconds of the epoch)."""
        logged: bytes = self._api.logs(self._id, stdout=False, since=int(since))
        lines = logged.decode(errors="replace").splitlines()
        return "\n".join([line for line in lines if "[emerg]" in line or "[alert]" in line][-LOG_LINES:])

    def last_logs(self) -> str:
        """Return the last log lines."""
        logged: bytes = self._api.logs(self._id, tail=LOG_LINES)
        return logged.decode(errors="replace").rstrip() or "(the container logged nothing)"

    def _must(self, what: str, command: list[str], *, root: bool) -> None:
        ran = self._run(command, root=root)
        if ran.code != 0:
            raise EdgeContainerError(f"{what} failed with exit code {ran.code}: {ran.output.strip()[-500:]}")

    def _run(self, command: list[str], *, root: bool = False) -> Ran:
        import docker  # noqa: PLC0415

        limited = ["timeout", str(COMMAND_SECONDS), *command]
        try:
            run: dict[str, Any] = self._api.exec_create(self._id, limited, user="0" if root else "")
            output: bytes = self._api.exec_start(run["Id"])
            code = int(self._api.exec_inspect(run["Id"])["ExitCode"])
        except docker.errors.APIError as problem:
            raise EdgeContainerError(
                f"nothing can be run in the edge's container ({self.status() or 'gone'}): {problem.explanation}; "
                f"last log lines:\n{self.last_logs() if self.status() else ''}"
            ) from None
        return Ran(code=code, output=output.decode(errors="replace"))
