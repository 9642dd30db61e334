"""Proves that the Celery worker, or the beat, of its own container does its work. Runs with any Python 3, no packages.

`worker`: sends Celery's control ping through the broker and waits for the answer of the worker on this host, as
`celery inspect ping` does, which takes more than a second of CPU because it imports the whole application first.
`beat`: the broker lets it in, the beat process is there, and has woken up within the last `BEAT_SECONDS`.

Exits with 0, or with 1 and one line that says why. The broker is the one of `CELERY_BROKER_URL` (redis:// or rediss://).
The messages are those of kombu's Redis transport (kombu.transport.redis, kombu.pidbox), which has kept them since 4.0.
"""

import base64
import json
import os
import socket
import ssl
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

# All of a check, below the engine's own limit for it, so that it can clean up behind itself.
SECONDS = 8.0
# Celery's beat wakes up every 300 s at least (celery.beat.DEFAULT_MAX_INTERVAL).
BEAT_SECONDS = 2 * 300 + 60
BEAT_SEEN = Path("/tmp/dify-kit-beat")  # noqa: S108  # the container's own
CONTROL = "celery.pidbox"
REPLIES = f"reply.{CONTROL}"
BINDINGS = f"_kombu.binding.{REPLIES}"
SEPARATOR = "\x06\x16"
MARK = "dify-kit-health"
# A check that was killed leaves its queue bound. A later one removes that.
STALE_SECONDS = 300.0


class SickError(Exception):
    """The service does not do its work; the message says why, and holds no secret."""


class Broker:
    """One connection to Redis, in RESP2. Every call ends by `deadline` (time.monotonic).

    The certificate of a rediss:// server must be of an authority in the file `ca`, or of a public one without it.
    """

    def __init__(self, url: str, deadline: float, ca: str = "") -> None:
        where = urlsplit(url)
        if where.scheme not in {"redis", "rediss"} or not where.hostname:
            raise SickError("CELERY_BROKER_URL is not a redis:// or rediss:// address")
        self.database = int(where.path.strip("/") or 0)
        self._deadline = deadline
        self._socket = socket.create_connection((where.hostname, where.port or 6379), self._left())
        if where.scheme == "rediss":
            context = ssl.create_default_context(cafile=ca or None)
            self._socket = context.wrap_socket(self._socket, server_hostname=where.hostname)
        self._file = self._socket.makefile("rb")
        if where.password is not None:
            user = [unquote(where.username)] if where.username else []
            self.ask("AUTH", *user, unquote(where.password))
        self.ask("SELECT", str(self.database))

    def _left(self) -> float:
        return max(0.05, self._deadline - time.monotonic())

    def ask(self, *words: str) -> Any:  # noqa: ANN401  # what Redis answers: str, int, None, or a list of them
        """Send one command and return its answer. Raises SickError with Redis's own words, or OSError."""
        parts = [word.encode() for word in words]
        self._socket.settimeout(self._left())
        self._socket.sendall(
            b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(p), p) for p in parts)
        )
        return self._answer()

    def _answer(self) -> Any:  # noqa: ANN401
        line = self._file.readline()
        if not line.endswith(b"\r\n"):
            raise SickError("the broker closed the connection")
        kind, rest = line[:1], line[1:-2].decode(errors="replace")
        if kind == b"-":
            raise SickError(f"the broker says: {rest}")
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == "-1" else self._file.read(int(rest) + 2)[:-2].decode(errors="replace")
        if kind == b"*":
            return None if rest == "-1" else [self._answer() for _ in range(int(rest))]
        return rest


def _packed(body: object) -> str:
    return base64.b64encode(json.dumps(body).encode()).decode()


def _ping(routing_key: str, host: str) -> str:
    """Return the message that asks the worker of `host` for a sign of life; others would answer too late to be read."""
    body = {
        "method": "ping",
        "arguments": {},
        "destination": None,
        "pattern": f"*@{host}",
        "matcher": "glob",
        "ticket": routing_key,
        "reply_to": {"exchange": REPLIES, "routing_key": routing_key},
    }
    return json.dumps(
        {
            "body": _packed(body),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            # One that waits for a hanging worker is of no use to anyone later.
            "headers": {"clock": 0, "expires": time.time() + SECONDS},
            "properties": {
                "delivery_mode": 2,
                "delivery_info": {"exchange": CONTROL, "routing_key": ""},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": routing_key,
            },
        }
    )


def _prefix(broker: Broker, configured: str) -> str:
    """Return what the application puts before all its keys: nothing, unless `REDIS_KEY_PREFIX` is set."""
    candidates = (f"{configured}:", configured, "") if configured else ("",)
    for prefix in candidates:
        if broker.ask("EXISTS", f"{prefix}_kombu.binding.{CONTROL}"):
            return prefix
    raise SickError("no worker has connected to the broker yet")


def _forget_stale(broker: Broker, bindings: str) -> None:
    for member in broker.ask("SMEMBERS", bindings):
        mark, _, made = str(member).partition(SEPARATOR)[0].rpartition("-")[0].rpartition("-")
        if mark == MARK and made.isdigit() and time.time() - int(made) > STALE_SECONDS:
            broker.ask("SREM", bindings, member)
            broker.ask("DEL", bindings.removesuffix(BINDINGS) + str(member).rpartition(SEPARATOR)[2])


def worker(broker: Broker, host: str, deadline: float, configured: str = "") -> str:
    """Return the name of the worker of `host` once it answered. Raises SickError when it does not by `deadline`."""
    prefix = _prefix(broker, configured)
    routing_key = f"{MARK}-{int(time.time())}-{os.urandom(8).hex()}"
    queue = f"{routing_key}.{REPLIES}"
    binding = SEPARATOR.join((routing_key, "", queue))
    bindings = prefix + BINDINGS
    broker.ask("SADD", bindings, binding)
    try:
        if not broker.ask("PUBLISH", f"{prefix}/{broker.database}.{CONTROL}", _ping(routing_key, host)):
            raise SickError("no worker is connected to the broker")
        while (left := int(deadline - time.monotonic())) > 0:
            answer = broker.ask("BRPOP", prefix + queue, str(left))
            if answer is None:
                break
            reply = json.loads(base64.b64decode(json.loads(answer[1])["body"]))
            for name, said in reply.items():
                if name.rpartition("@")[2] == host and "ok" in said:
                    return str(name)
    finally:
        _forget_stale(broker, bindings)
        broker.ask("SREM", bindings, binding)
        broker.ask("DEL", prefix + queue)
    raise SickError(f"the worker of {host} does not answer")


def _beat_process(processes: Path) -> Path:
    for place in sorted(processes.glob("[0-9]*")):
        with suppress(OSError):
            line = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            # By whole words: this script has both in its own. A title is `[celery beat]`, with setproctitle.
            words = [word.strip("[]") for word in line.split()]
            if "beat" in words and any("celery" in word.split("/") for word in words):
                return place
    raise SickError("there is no process of celery beat")


def beat(processes: Path, seen: Path, now: float) -> str:
    """Say that beat is alive. Raises SickError when it is not there, stopped, or slept through `BEAT_SECONDS`.

    `seen` remembers how often beat had gone to sleep, and since when (`now`: monotonic seconds) that has not changed.
    """
    place = _beat_process(processes)
    lines = (place / "status").read_text(encoding="utf-8").splitlines()
    status = {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
    if status["State"][:1] in {"T", "t", "Z", "X"}:
        raise SickError(f"celery beat does not run: {status['State']}")
    mark = f"{place.name} {status['voluntary_ctxt_switches']}"
    known, _, since = (seen.read_text(encoding="utf-8") if seen.is_file() else "").rpartition(" ")
    if known != mark or now < float(since):
        new = seen.with_suffix(f".{os.getpid()}")
        new.write_text(f"{mark} {now:.0f}", encoding="utf-8")
        new.replace(seen)
        return "celery beat has woken up"
    asleep = now - float(since)
    if asleep > BEAT_SECONDS:
        raise SickError(f"celery beat has not woken up for {asleep:.0f} s")
    return f"celery beat sleeps for {asleep:.0f} s"


def main(role: str) -> int:
    """Check one role and print what was found."""
    deadline = time.monotonic() + SECONDS
    try:
        ca = os.environ.get("REDIS_SSL_CA_CERTS", "")
        broker = Broker(os.environ.get("CELERY_BROKER_URL", ""), deadline, ca)
        if role == "worker":
            prefix = os.environ.get("REDIS_KEY_PREFIX", "")
            found = f"{worker(broker, socket.gethostname(), deadline, prefix)} answers"
        else:
            broker.ask("PING")
            found = beat(Path("/proc"), BEAT_SEEN, time.monotonic())
    except (SickError, OSError, ValueError, KeyError) as problem:
        sys.stdout.write(f"{problem}\n")
        return 1
    sys.stdout.write(f"{found}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
