"""The logs of a stack's services, interleaved by time: what was logged, and what is logged from now on.

What the platform itself reports about a service, as a cluster does by Events, is a line among the others.
"""

import contextlib
import queue
import re
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

from dify_kit.containers.docker_host import BROKEN, Container, Engine
from dify_kit.containers.seen import Notice
from dify_kit.errors import KitError, UsageError
from infra import hints
from infra.catalogue.names import service_name
from infra.catalogue.services import SERVICES
from infra.engine import runtime
from infra.engine.runtime import WorkloadMissingError

ENGINE_SECONDS = 60
TOGETHER = 8
# Lines of several services come this much apart at most, and are shown in their order.
GATHER_SECONDS = 0.3
# A container that `up` replaces is found again within this time.
LOOK_SECONDS = 2.0
# A platform that does not answer for as long is gone.
SILENT_SECONDS = 60.0
MOST_DAYS = 3650
_SINCE = re.compile(r"(\d{1,9})([smhd])", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# A time as the engine writes it, in front of each line.
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)")


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of a service's log. `time` is RFC 3339 in UTC, as the engine writes it.

    `pod` is empty on an engine, where a service is one container. `container` is the reference of what logged it.
    `event`: the platform reports it about the service.
    """

    time: str
    service: str
    text: str
    pod: str = ""
    container: str = ""
    event: bool = False


def since_of(text: str, now: float) -> float:
    """Return a moment in seconds of the epoch of `90s`, `10m`, `2h`, `3d` or a time of ISO 8601.

    Raises UsageError.
    """
    if (found := _SINCE.fullmatch(text)) and int(found[1]) * _SECONDS[found[2]] <= MOST_DAYS * _SECONDS["d"]:
        return now - int(found[1]) * _SECONDS[found[2]]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"--since {text}: neither a time nor a length of time",
            "use 90s, 10m, 2h, 3d, or a time as 2026-11-29T20:15:00 (UTC)",
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def chosen(names: Sequence[str], containers: Sequence[Container], stack: str) -> list[Container]:
    """Return the containers of the named services, of all without a name. Compose's spelling names a service, too.

    Raises UsageError for a name that no service of the stack has.
    """
    there = {one.service for one in containers}
    wanted = [service_name(name) for name in names]
    for name, given in zip(wanted, names, strict=True):
        if name not in there:
            kind = "is not part of" if name in SERVICES else "is no service of"
            raise UsageError(f"{given} {kind} stack {stack}", hints.nearest(name, there))
    return [one for one in containers if not wanted or one.service in wanted]


def past(
    containers: Iterable[Container], *, lines: int | None = None, since: float | None = None
) -> list[Line]:
    """Return what was logged, by time: the last `lines` of each container, and nothing before `since`.

    Raises KitError when the engine does not answer. A container that was removed meanwhile has no lines.
    """
    listed = list(containers)
    if lines == 0 or not listed:
        return []
    with ThreadPoolExecutor(TOGETHER) as pool:
        found = list(pool.map(lambda one: _logged(one, lines, since), listed))
    return sorted((line for one in found for line in one), key=lambda line: line.time)


def _logged(container: Container, lines: int | None, since: float | None) -> list[Line]:
    try:
        with runtime.runtime(container.id, ENGINE_SECONDS) as workload:
            raw = workload.logs(lines=lines, since=since, times=True)
    except WorkloadMissingError:
        return []
    except BROKEN as problem:
        if "No such container" in str(problem) or "dead or marked for removal" in str(problem):
            return []
        raise KitError(
            f"the log of {container.name} cannot be read: {problem}",
            "see `docker ps -a`, or `kubectl get pods`, then try again",
        ) from None
    return list(parsed(container.service, raw, pod=container.pod, container=container.id))


def noticed(
    notices: Iterable[Notice], services: Collection[str], *, since: float | None = None
) -> list[Line]:
    """Return what the platform reports about services, as lines; nothing before `since` (seconds of the epoch)."""
    return [
        Line(time=one.time, service=one.service, text=one.text, pod=one.pod, event=True)
        for one in notices
        if one.service in services and (since is None or _seconds(one.time) >= since)
    ]


def _seconds(time_of_line: str) -> float:
    return datetime.fromisoformat(time_of_line[:19]).replace(tzinfo=UTC).timestamp()


def _in_utc(head: str) -> str:
    """Return a time in UTC: a node of a cluster writes its own zone."""
    if head.endswith("Z"):
        return head
    return datetime.fromisoformat(head).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")


def parsed(service: str, raw: bytes, *, pod: str = "", container: str = "") -> Iterator[Line]:
    """Yield the lines of a log with times; one that the engine gave no time continues the line before."""
    last = ""
    # Not splitlines: a log has other separators within a line.
    for line in raw.decode(errors="replace").split("\n"):
        row = line
        head, _, rest = row.partition(" ")
        if _TIME.fullmatch(head):
            last, row = _in_utc(head), rest
        elif not row:
            continue
        yield Line(time=last, service=service, text=row.rstrip("\r"), pod=pod, container=container)


class Follower:
    """Follows the containers of the chosen services, and those that take their places."""

    def __init__(self, engine: Engine, stack: str, services: Iterable[str], since: float) -> None:
        self._engine = engine
        self._stack = stack
        self._services = set(services)
        self._since = since
        self._lines: queue.SimpleQueue[Line] = queue.SimpleQueue()
        self._readers: dict[str, threading.Thread] = {}
        # The newest time that was shown, by container.
        self._last: dict[str, str] = {}
        # Containers that there were at the start: of others, everything is new.
        self._first: set[str] | None = None
        # The newest time of a notice.
        self._noticed: str | None = None
        # Since when the platform does not answer.
        self._silent: float | None = None

    def seen(self, lines: Iterable[Line]) -> None:
        """Note what was shown already."""
        for line in lines:
            if not line.event:
                self._last[line.container] = max(self._last.get(line.container, ""), line.time)

    def run(
        self, show: Callable[[Sequence[Line]], None], *, until: Callable[[], bool] = lambda: False
    ) -> None:
        """Show lines as they come, in the order of their times, until `until`, or the caller is interrupted."""
        looked = float("-inf")
        while not until():
            if time.monotonic() - looked >= LOOK_SECONDS:
                self._look_patiently()
                looked = time.monotonic()
            if gathered := self._gather():
                show(gathered)

    def _gather(self) -> list[Line]:
        found: list[Line] = []
        deadline = time.monotonic() + GATHER_SECONDS
        while (left := deadline - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                line = self._lines.get(timeout=left)
                if line.event:
                    found.append(line)
                elif line.time > self._last.get(line.container, ""):
                    self._last[line.container] = line.time
                    found.append(line)
        return sorted(found, key=lambda line: line.time)

    def _look_patiently(self) -> None:
        """Look; a platform that was reached before may miss a request now and then. Raises KitError after a minute."""
        try:
            self._look()
            self._silent = None
        except KitError:
            if self._first is None or time.monotonic() - (self._silent or time.monotonic()) >= SILENT_SECONDS:
                raise
            self._silent = self._silent or time.monotonic()

    def _notice(self) -> None:
        """Pass on what the platform reports since the first look: what it reported before was shown, or not wanted."""
        notices = self._engine.notices(self._stack)
        newest = max((one.time for one in notices), default="")
        if self._noticed is not None:
            last = self._noticed
            for line in noticed((one for one in notices if one.time > last), self._services):
                self._lines.put(line)
        self._noticed = max(newest, self._noticed or "")

    def _look(self) -> None:
        """Start a reader for each running container that has none."""
        there = [one for one in self._engine.workloads(self._stack) if one.service in self._services]
        self._notice()
        if self._first is None:
            self._first = {one.id for one in there}
        for one in there:
            reader = self._readers.get(one.id)
            ended = reader is None or not reader.is_alive()
            if not ended or (reader is not None and one.state != "running"):
                continue
            since = self._moment(one.id) if one.id in self._first or one.id in self._last else 0.0
            self._readers[one.id] = threading.Thread(target=self._read, args=(one, since), daemon=True)
            self._readers[one.id].start()

    def _moment(self, container: str) -> float:
        """Return the second of the newest line that was shown of a container."""
        last = self._last.get(container, "")
        return _seconds(last) if last else self._since

    def _read(self, container: Container, since: float) -> None:
        rest = b""
        # A container that is removed, or an engine that ends: the next look starts another reader.
        with contextlib.suppress(*BROKEN), runtime.runtime(container.id, ENGINE_SECONDS) as workload:
            for piece in workload.follow(since=since):
                complete, newline, rest = (rest + piece).rpartition(b"\n")
                own = {"pod": container.pod, "container": container.id}
                for line in parsed(container.service, complete + newline, **own):
                    self._lines.put(line)
