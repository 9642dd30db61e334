"""What the edge counts of its requests: the log that its timer counts, and the bounds of the labels.

`docs/decisions/0023-traffic-metrics.md` says why requests are counted from a log. Scripts read `Traffic.tables`.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass

from infra.edge.paths import RUN_DIRECTORY

# Each log is written for this many seconds in turn, so the other one can be emptied.
TURN_SECONDS = 5
# A worker writes a part of its lines after this time, or when its buffer is full.
FLUSH_SECONDS = 1
BUFFER = "64k"
# About 700 numbers of at most 150 bytes.
ZONE_SIZE = "512k"
COUNT_MILLISECONDS = 500
# Statuses that have a meaning of their own; all others are counted by their class.
STATUSES = ("401", "429", "499", "502", "503", "504")
CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx", "none")
# The kinds of limits. Those of a dry run refuse nothing.
LIMITS = ("rate", "concurrency")
DRY_RUN = "_dry_run"
# Upper bounds in seconds. Answers of models are streamed for minutes.
BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
# Requests to the gateway: of clients for a token, of nginx about a token and about a session of the gate.
TOKEN, INTROSPECTION, SESSION = "token", "introspection", "session"


@dataclass(frozen=True, kw_only=True)
class TrafficLog:
    """A log of requests in turn; `seconds` are the last digits of the seconds in which it is written."""

    path: str
    condition: str
    seconds: str


LOGS = (
    TrafficLog(path=f"{RUN_DIRECTORY}/traffic_0.log", condition="$traffic_first", seconds="0-4"),
    TrafficLog(path=f"{RUN_DIRECTORY}/traffic_1.log", condition="$traffic_second", seconds="5-9"),
)


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """The counting of requests as the templates read it, as `edge.traffic`."""

    logs: tuple[TrafficLog, ...] = LOGS
    buffer: str = BUFFER
    flush_seconds: int = FLUSH_SECONDS
    zone_size: str = ZONE_SIZE
    milliseconds: int = COUNT_MILLISECONDS
    token: str = TOKEN
    introspection: str = INTROSPECTION
    session: str = SESSION

    def tables(self, groups: Iterable[str], calls: Iterable[str], *, dry_run: bool) -> str:
        """Return what the script reads, as JSON: the logs, and all values of the labels."""
        limits = (f"{one}{DRY_RUN}" if dry_run else one for one in LIMITS)
        return json.dumps(
            {
                # Words in one string: an array that njs preloads has no methods.
                "logs": " ".join(log.path for log in self.logs),
                "pid": f"{RUN_DIRECTORY}/nginx.pid",
                "turn": TURN_SECONDS * 1000,
                "settled": FLUSH_SECONDS * 2000,
                "groups": " ".join(dict.fromkeys(groups)),
                "calls": " ".join(calls),
                "limits": " ".join(limits),
                "statuses": " ".join((*STATUSES, *CLASSES)),
                "buckets": " ".join(f"{one:g}" for one in BUCKETS),
            }
        )
