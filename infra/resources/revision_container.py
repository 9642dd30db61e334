"""Revisions of a configuration on a container's volume.

::

    <directory>/releases/<revision>/...        directories of root; files as `archive` says
    <directory>/current -> releases/<revision>

The directory is called `releases` on the volumes of stacks that run, and keeps that name.
"""

import io
import tarfile
import time
from collections.abc import Mapping, Sequence

from infra.engine.runtime import Ran, WorkloadError, runtime

ENGINE_TIMEOUT_SECONDS = 60
# Every command in the container ends by itself.
COMMAND_SECONDS = 20
LOG_LINES = 20
# An engine under load now and then loses the output of a command, and returns its exit code all the same.
ASK_TIMES = 5
PUBLIC_MODE, PRIVATE_MODE = 0o444, 0o400
ROOT = 0


class ContainerError(Exception):
    """A command in the container failed. The message holds the output of the command."""


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


class RevisionContainer:
    """A container by its reference; `directory` is where its volume with revisions is mounted."""

    def __init__(self, container: str, directory: str) -> None:
        self._runtime = runtime(container, ENGINE_TIMEOUT_SECONDS)
        self._directory = directory

    def status(self) -> str:
        """Return the status of the container as `State` has it, empty when there is no such container."""
        state = self._runtime.state()
        return state.status if state else ""

    def write(self, revision: str, files: Mapping[str, str], private: Mapping[str, str], owner: int) -> None:
        """Write a revision beside the running one."""
        # A run that was interrupted may have left an incomplete one.
        self.discard(revision)
        self._runtime.unpack(self._directory, archive(revision, files, private, owner))

    def discard(self, revision: str) -> None:
        """Delete a revision that does not run."""
        self._must("clearing a draft", ["rm", "-rf", f"{self._directory}/releases/{revision}"], root=True)

    def current(self) -> str:
        """Return the revision that `current` points to, empty before the first one."""
        for _ in range(ASK_TIMES):
            ran = self._run(["readlink", f"{self._directory}/current"])
            if ran.code != 0:
                return ""
            if ran.output:
                break
        return ran.output.strip().rsplit("/", 1)[-1]

    def switch(self, revision: str) -> None:
        """Let `current` point to a revision, in one step."""
        draft = f"{self._directory}/.current"
        script = f"ln -sfn releases/{revision} {draft} && mv -T {draft} {self._directory}/current"
        self._must("switching the configuration", ["sh", "-c", script], root=True)

    def forget(self) -> None:
        """Remove the link, so that no revision is the current one."""
        self._must(
            "removing the rejected configuration", ["rm", "-f", f"{self._directory}/current"], root=True
        )

    def keep(self, revisions: Sequence[str]) -> None:
        """Delete every revision but these; empty names are none."""
        kept = " ".join(f"! -name {revision}" for revision in revisions if revision)
        script = f"find {self._directory}/releases -mindepth 1 -maxdepth 1 {kept} -exec rm -rf {{}} +"
        self._must("removing old configurations", ["sh", "-c", script], root=True)

    def last_logs(self) -> str:
        """Return the last log lines."""
        logged = self._runtime.logs(lines=LOG_LINES)
        return logged.decode(errors="replace").rstrip() or "(the container logged nothing)"

    def _must(self, what: str, command: list[str], *, root: bool) -> None:
        ran = self._run(command, root=root)
        if ran.code != 0:
            raise ContainerError(f"{what} failed with exit code {ran.code}: {ran.output.strip()[-500:]}")

    def _run(self, command: list[str], *, root: bool = False, seconds: int = COMMAND_SECONDS) -> Ran:
        try:
            return self._runtime.run(["timeout", str(seconds), *command], root=root)
        except WorkloadError as problem:
            raise ContainerError(
                f"no command can run in the container ({self.status() or 'gone'}): {problem}; "
                f"last log lines:\n{self.last_logs() if self.status() else ''}"
            ) from None
