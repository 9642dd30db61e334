"""The edge's container as a change of nginx's configuration needs it."""

import json
import posixpath
import time

from infra.catalogue import ports
from infra.edge.paths import (
    AFTER_RELOAD_SECONDS,
    DRAIN,
    DRAIN_MARK,
    EDGE_DIRECTORY,
    NGINX_CONFIG,
    RELEASES_DIRECTORY,
    RUN_DIRECTORY,
)
from infra.engine.runtime import Ran, runtime
from infra.resources.own_directory import directory_archive
from infra.resources.revision_container import ENGINE_TIMEOUT_SECONDS, LOG_LINES, RevisionContainer


class EdgeContainer(RevisionContainer):
    """The edge's container, by its reference."""

    def __init__(self, container: str) -> None:
        super().__init__(container, EDGE_DIRECTORY)

    def address_of(self, container: str, network: str) -> str:
        """Return the address of another container in a network, empty when it is not running there."""
        with runtime(container, ENGINE_TIMEOUT_SECONDS) as other:
            return other.address_in(network)

    def own(self, directory: str, owner: int) -> None:
        """Make a directory on a volume writable for `owner` (a uid) alone; its content stays."""
        parent, name = posixpath.split(directory)
        self._runtime.unpack(parent, directory_archive(name, owner))

    def accepts(self, revision: str) -> Ran:
        """Let nginx check a configuration, in the container that will run it."""
        config = f"{RELEASES_DIRECTORY}/{revision}/nginx.conf"
        return self._run(["nginx", "-e", "stderr", "-t", "-c", config])

    def reload(self) -> Ran:
        """Drain, then let nginx take what `current` points to."""
        script = (
            f"trap 'rm -f {DRAIN_MARK}' EXIT; {DRAIN}; "
            f"nginx -e stderr -s reload -c {NGINX_CONFIG}; code=$?; sleep {AFTER_RELOAD_SECONDS}; exit $code"
        )
        return self._run(["sh", "-c", script])

    def started(self) -> bool:
        """Tell whether nginx runs, even if it is too busy to answer; else the container awaits a configuration."""
        pid = f"{RUN_DIRECTORY}/nginx.pid"
        return self._run(["sh", "-c", f"kill -0 $(cat {pid})"]).code == 0

    def running(self) -> str:
        """Return the revision that nginx answers with, empty when it does not answer."""
        address = f"http://127.0.0.1:{ports.EDGE_STATUS}/revision"
        ran = self._run(["curl", "-fsS", "--max-time", "3", address])
        try:
            return str(json.loads(ran.output)["revision"])
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

    def complaints(self, since: float) -> str:
        """Return the errors that nginx logged since a moment (seconds of the epoch)."""
        logged = self._runtime.logs(since=since, errors=True)
        lines = logged.decode(errors="replace").splitlines()
        return "\n".join([line for line in lines if "[emerg]" in line or "[alert]" in line][-LOG_LINES:])
