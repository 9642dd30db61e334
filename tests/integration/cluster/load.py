"""Steady load on a stack: a fixed number of requests a second, each with its moment, its time and its outcome."""

import ssl
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise

import httpx

from dify_kit.errors import KitError

RATE, WORKERS = 50, 25
# A bound for what hangs.
MOST_SECONDS = 600
# A client that waits for longer counts its request as failed.
ANSWER_SECONDS = 15
OK = "200"


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A request: when it was sent (s of the monotonic clock), how long it took (s), and its status or its error."""

    at: float
    seconds: float
    outcome: str


@dataclass
class Counted:
    """What became of the requests; complete when the load has ended."""

    requests: list[Sent] = field(default_factory=list)

    def between(self, begin: float, end: float = float("inf")) -> "Counted":
        """Return the requests that were sent in a span of time."""
        return Counted([one for one in self.requests if begin <= one.at < end])

    @property
    def failed(self) -> list[Sent]:
        """The requests that were not answered with success."""
        return [one for one in self.requests if one.outcome != OK]

    @property
    def summary(self) -> str:
        """Counts, the rate, times and the failures in a line."""
        if not self.requests:
            return "no requests"
        times = sorted(one.seconds for one in self.requests)
        span = max(one.at for one in self.requests) - min(one.at for one in self.requests)
        causes = dict(Counter(one.outcome for one in self.failed))
        return (
            f"{len(self.failed)} of {len(self.requests)} failed {causes or ''}in {span:.0f} s "
            f"({len(self.requests) / max(span, 1):.0f}/s); p50 {statistics.median(times) * 1000:.0f} ms, "
            f"p99 {times[int(len(times) * 0.99)] * 1000:.0f} ms, longest {times[-1]:.1f} s"
        )

    def failures(self, begin: float) -> str:
        """Tell of each failed request how many seconds after a moment it was sent, its time and its outcome."""
        return "; ".join(
            f"{one.at - begin:+.1f} s: {one.outcome} after {one.seconds:.1f} s" for one in self.failed
        )


@dataclass(frozen=True, kw_only=True)
class _Load:
    """What the workers share."""

    url: str
    credentials: Sequence[str]
    trust: ssl.SSLContext
    began: float
    counted: Counted = field(default_factory=Counted)
    ended: threading.Event = field(default_factory=threading.Event)

    def work(self, number: int) -> None:
        """Send the requests of one worker."""
        keeps, turn = number % 5 != 0, number
        due = self.began + number / RATE
        with httpx.Client(verify=self.trust, timeout=ANSWER_SECONDS) as client:
            while not self._over(due):
                headers = {"Authorization": f"Bearer {self.credentials[turn % len(self.credentials)]}"}
                if not keeps:
                    headers["Connection"] = "close"
                at = time.monotonic()
                try:
                    outcome = str(client.get(self.url, headers=headers).status_code)
                except httpx.HTTPError as problem:
                    outcome = type(problem).__name__
                now = time.monotonic()
                self.counted.requests.append(Sent(at=at, seconds=now - at, outcome=outcome))
                turn += 1
                # Where the machine was too busy, what is late is not made up for.
                due = max(due + WORKERS / RATE, now)

    def _over(self, due: float) -> bool:
        """Wait until the next request is due; tell whether it is not to be sent."""
        ended = self.ended.wait(max(0.0, due - time.monotonic()))
        return ended or time.monotonic() - self.began > MOST_SECONDS


@contextmanager
def steady_load(url: str, credentials: Sequence[str], trust: ssl.SSLContext) -> Iterator[Counted]:
    """Send requests while the block runs. Each worker keeps its connection, as a client's library does.

    One worker in five opens a new connection for each request, as a command line does. Credentials take turns. A block
    that takes longer than `MOST_SECONDS` fails.
    """
    load = _Load(url=url, credentials=credentials, trust=trust, began=time.monotonic())
    workers = [threading.Thread(target=load.work, args=(number,)) for number in range(WORKERS)]
    for worker in workers:
        worker.start()
    try:
        yield load.counted
    finally:
        load.ended.set()
        for worker in workers:
            worker.join(timeout=2 * ANSWER_SECONDS)
    assert time.monotonic() - load.began < MOST_SECONDS, f"the block took more than {MOST_SECONDS} s"
    load.counted.requests.sort(key=lambda one: one.at)


@contextmanager
def watched(look: Callable[[], set[str]]) -> Iterator[list[tuple[float, set[str]]]]:
    """Look once a second while the block runs; yields the moments (s of the monotonic clock) with what was seen.

    A look that the cluster does not answer shows nothing, and is none of a moment.
    """
    found: list[tuple[float, set[str]]] = []
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(1):
            with suppress(KitError):
                found.append((time.monotonic(), look()))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


def longest_gap(seen: Sequence[tuple[float, set[str]]], name: str) -> float:
    """Return the longest time (s) between two moments with a name, or between the ends of the watch and those."""
    assert seen, "nothing was seen"
    moments = [seen[0][0], *(at for at, names in seen if name in names), seen[-1][0]]
    return max(after - before for before, after in pairwise(moments))
