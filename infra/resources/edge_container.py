"""What a change of nginx's configuration asks of the edge's container, through the Docker API alone."""

import json
import posixpath
import time

from infra.catalogue import ports
from infra.edge.paths import (
    AFTER_RELOAD_SECONDS,
    DRAIN_MARK,
    DRAIN_SECONDS,
    EDGE_DIRECTORY,
    NGINX_CONFIG,
    RELEASES_DIRECTORY,
    RUN_DIRECTORY,
)
from infra.resources.own_directory import directory_archive
from infra.resources.release_container import LOG_LINES, Ran, ReleaseContainer


class EdgeContainer(ReleaseContainer):
    """The edge's container, by its id."""

    def __init__(self, container: str) -> None:
        super().__init__(container, EDGE_DIRECTORY)

    def address_of(self, container: str, network: str) -> str:
        """Return the address that another container has in a network, empty when it does not run there."""
        import docker  # noqa: PLC0415

        try:
            found = self._api.inspect_container(container)
        except docker.errors.NotFound:
            return ""
        place = found["NetworkSettings"]["Networks"].get(network) or {}
        return str(place.get("IPAddress") or "")

    def own(self, directory: str, owner: int) -> None:
        """Let `owner` (a uid) alone write to a directory; what is in it stays. It lies on a volume."""
        parent, name = posixpath.split(directory)
        self._api.put_archive(self._id, parent, directory_archive(name, owner))

    def accepts(self, revision: str) -> Ran:
        """Let nginx itself judge a configuration, in the container that will run it."""
        config = f"{RELEASES_DIRECTORY}/{revision}/nginx.conf"
        return self._run(["nginx", "-e", "stderr", "-t", "-c", config])

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

    def complaints(self, since: float) -> str:
        """Return what nginx complained about in its log since a moment (seconds of the epoch)."""
        logged: bytes = self._api.logs(self._id, stdout=False, since=int(since))
        lines = logged.decode(errors="replace").splitlines()
        return "\n".join([line for line in lines if "[emerg]" in line or "[alert]" in line][-LOG_LINES:])
