"""bench/backup: `dify-kit backup` beside `pg_dump` and `tar` of the same data, under a steady load of clients."""

import contextlib
import os
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import httpx

from bench import machine
from bench.cpu import NoProcessError, tree, tree_seconds
from bench.report import Report, Table
from bench.rounds import interleaved, median, percentile
from dify_kit.errors import KitError
from dify_kit.talk import say
from infra.catalogue.container_paths import POSTGRES_PASSWORD_FILE
from infra.platforms.images import local_name
from support.stacks import CHECKOUT, KIT, SMALLEST, Stack

KIT_WAY, PLAIN_WAY, IDLE = "dify-kit backup", "pg_dump + tar", "no backup"
PROMISED_RATIO, PROMISED_MEBIBYTES, PROMISED_P99 = 0.7, 200, 1.5
MEBIBYTE = 1 << 20
SENDERS, PAUSE_SECONDS = 4, 0.05
IDLE_SECONDS = 20.0
LIMIT_SECONDS = 1800
_POLL = 0.05
# The line after which the key of the archive is derived from the passphrase, which takes memory by design.
_DERIVED = "settings, secrets and keys"
# Half of the rows are a text that repeats, half of them digits that do not; a row has about 1 KiB.
_ROW_BYTES = 1024
_FILL = (
    "CREATE TABLE bench AS SELECT id, CASE WHEN id % 2 = 0 THEN repeat('all work and no play ', 48) ELSE "
    "(SELECT string_agg(md5(part || ' of ' || id), '') FROM generate_series(1, {parts}) part) END AS text "
    "FROM generate_series(1, {rows}) id"
)
# The same of files, of 16 MiB each.
_SAME = "half of the bytes are random, the other half repeat"
_FILE_MEBIBYTES = 16
_FILES = (
    "mkdir -p /app/api/storage/bench && cd /app/api/storage/bench && for n in $(seq 1 {number}); do "
    "if [ $((n % 2)) = 0 ]; then yes 'all work and no play' | head -c {size} > $n; "
    "else head -c {size} /dev/urandom > $n; fi; done"
)
CHAT = {
    "inputs": {},
    "response_mode": "blocking",
    "auto_generate_name": False,
    "query": "steady",
    "user": "bench",
}


@dataclass
class Sent:
    """Chats, one after the other by each sender: when each ended (s, monotonic), its seconds and its status."""

    calls: list[tuple[float, float, int]] = field(default_factory=list)

    def between(self, begins: float, ends: float) -> "Sent":
        """Return those that ended in a time."""
        return Sent(calls=[one for one in self.calls if begins <= one[0] <= ends])

    def p99(self) -> float:
        """Return the p99 of the answers in milliseconds. Raises ValueError without any."""
        return 1000 * percentile([seconds for _, seconds, _ in self.calls], 0.99)

    def failed(self) -> int:
        """Return how many were not answered with 200."""
        return sum(status != httpx.codes.OK for _, _, status in self.calls)


@contextlib.contextmanager
def load(url: str, key: str) -> Iterator[Sent]:
    """Send chats at a steady rate while the block runs."""
    sent, over = Sent(), threading.Event()

    def send() -> None:
        headers = {"Authorization": f"Bearer {key}"}
        with httpx.Client(base_url=url, headers=headers, timeout=60) as http:
            while not over.wait(PAUSE_SECONDS):
                began = time.monotonic()
                try:
                    status = http.post("/v1/chat-messages", json=CHAT).status_code
                except httpx.HTTPError:
                    status = 0
                now = time.monotonic()
                sent.calls.append((now, now - began, status))

    senders = [threading.Thread(target=send, daemon=True) for _ in range(SENDERS)]
    for one in senders:
        one.start()
    try:
        yield sent
    finally:
        over.set()
        for one in senders:
            one.join(timeout=90)


@dataclass(kw_only=True)
class Ran:
    """A command that ended: what it used. Memory is the sum of its processes, in MiB; `early` that of the key."""

    seconds: float
    cpu: float = 0.0
    memory: float = 0.0
    early: float = 0.0


def watched(command: Sequence[str], environment: Mapping[str, str], output: Path) -> Ran:
    """Run a command, and return its time, CPU time and peak memory. Raises KitError when it fails."""
    found = Ran(seconds=0.0)
    with output.open("w") as log:
        began = time.monotonic()
        process = subprocess.Popen(
            list(command), cwd=CHECKOUT, env=dict(environment), stdout=log, stderr=subprocess.STDOUT
        )
        try:
            while process.poll() is None:
                _look(process.pid, found, derived=_DERIVED in output.read_text(errors="replace"))
                if time.monotonic() > began + LIMIT_SECONDS:
                    raise KitError(f"`{' '.join(command[:2])}` did not end within {LIMIT_SECONDS} s")
                time.sleep(_POLL)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(timeout=60)
        found.seconds = time.monotonic() - began
    if process.returncode:
        raise KitError(f"`{' '.join(command[:2])}` failed:\n{output.read_text(errors='replace')[-3000:]}")
    return found


def _look(pid: int, found: Ran, *, derived: bool) -> None:
    with contextlib.suppress(NoProcessError, KeyError, OSError):
        used = sum(_resident(one) for one in tree(pid))
        if derived:
            found.memory = max(found.memory, used)
        else:
            found.early = max(found.early, used)
        found.cpu = max(found.cpu, tree_seconds(pid))


def _resident(pid: int) -> float:
    """Return the resident memory of a process in MiB; 0 for one that has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0.0
    resident = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
    return int(resident[1]) / 1024 if resident else 0.0


def _by_kit(stack: Stack, folder: Path) -> Ran:
    secret = folder / "passphrase"
    secret.write_text("a passphrase of the bench\n")
    target = folder / "archive"
    options = ["--stack", stack.name, "--to", str(target), "--passphrase-file", str(secret)]
    return watched([str(KIT), "backup", *options], stack.environment, folder / "log")


def _by_hand(stack: Stack, folder: Path) -> Ran:
    """Dump each database in its container, and pack the volumes with the tar of another; no compression either."""
    login = f'PGPASSWORD="$(cat {POSTGRES_PASSWORD_FILE})" exec pg_dump -h 127.0.0.1 -U postgres "$@"'
    lines = ["set -e"]
    for service, database in _databases(stack):
        dump = f"docker exec dify-{stack.name}-{service} sh -c '{login}' sh {database}"
        lines.append(f"{dump} > '{folder}/{service}-{database}.sql'")
    named = f"dify-{stack.name}-"
    for volume in stack.volumes():
        # Those that the kit dumps.
        if volume.removeprefix(named) not in {"postgres", "vector"}:
            packed = f"docker run --rm --network none -v {volume}:/volume:ro -v '{folder}:/out' {local_name('busybox')}"
            lines.append(f"{packed} tar -cf /out/{volume}.tar -C / volume")
    lines.append(f"sync '{folder}'/*.sql '{folder}'/*.tar")
    return watched(["bash", "-c", "\n".join(lines)], stack.environment, folder / "log")


def _databases(stack: Stack) -> list[tuple[str, str]]:
    found = []
    for service in ("db-postgres", "pgvector"):
        if f"dify-{stack.name}-{service}" in _names(stack):
            listed = _sql(
                stack, service, "postgres", "SELECT datname FROM pg_database WHERE NOT datistemplate"
            )
            found += [(service, name) for name in listed.split() if name != "postgres"]
    return found


def _names(stack: Stack) -> set[str]:
    return {f"dify-{stack.name}-{service}" for service in stack.containers()}


def _sql(stack: Stack, service: str, database: str, sql: str) -> str:
    login = f'PGPASSWORD="$(cat {POSTGRES_PASSWORD_FILE})" exec psql -h 127.0.0.1 -U postgres "$@"'
    command = ["sh", "-c", login, "sh", "-d", database, "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql]
    return _executed(stack, service, command)


def _executed(stack: Stack, service: str, command: Sequence[str]) -> str:
    # With the timeout of the SDK's default a table of 1 GiB would be given up.
    client: Any = docker.from_env(timeout=LIMIT_SECONDS)
    done = client.containers.get(f"dify-{stack.name}-{service}").exec_run(list(command))
    if done.exit_code:
        raise KitError(f"{service} could not be filled: {done.output.decode()[-1000:]}")
    return str(done.output.decode())


def _fill(stack: Stack, mebibytes: int) -> None:
    say(f"filling the database and the files with {mebibytes} MiB each")
    rows = mebibytes * MEBIBYTE // _ROW_BYTES
    _sql(stack, "db-postgres", "dify", _FILL.format(rows=rows, parts=_ROW_BYTES // 32))
    number = max(2, mebibytes // _FILE_MEBIBYTES)
    script = _FILES.format(number=number, size=mebibytes * MEBIBYTE // number)
    _executed(stack, "api", ["sh", "-c", script])


def run(command: str, *, rounds: int, mebibytes: int) -> Report:
    """Deploy a stack of its own, fill it, back it up in both ways under load, remove it, and return the report."""
    facts = machine.facts()
    raw: list[dict[str, Any]] = []
    ways: Mapping[str, Callable[[Stack, Path], Ran]] = {IDLE: _idle, PLAIN_WAY: _by_hand, KIT_WAY: _by_kit}
    with tempfile.TemporaryDirectory(prefix="dify-kit-bench-") as home:
        stack = Stack(home=Path(home) / "home", release=SMALLEST)
        try:
            say(f"deploying stack {stack.name} on port {stack.port}; it is removed at the end")
            created = stack.init()
            if created.code:
                raise KitError(f"`dify-kit init` failed:\n{created.output[-3000:]}")
            stack.up()
            key = stack.outputs(secrets_too=True)["appKeys"]["echo-chat"]
            _fill(stack, mebibytes)
            with load(stack.url, key) as sent:
                for turn in interleaved(list(ways), rounds):
                    raw.append(_measured(turn.round, turn.name, ways[turn.name], stack, Path(home), sent))
                    say(f"  round {turn.round} of {rounds}: {shown(raw[-1])}")
        finally:
            stack.remove()
    return report_of(command, raw, rounds=rounds, mebibytes=mebibytes, facts=facts)


def _idle(_stack: Stack, _folder: Path) -> Ran:
    time.sleep(IDLE_SECONDS)
    return Ran(seconds=IDLE_SECONDS)


def _measured(  # noqa: PLR0917  # one turn
    number: int, name: str, way: Callable[[Stack, Path], Ran], stack: Stack, home: Path, sent: Sent
) -> dict[str, Any]:
    # What an earlier turn wrote is on the disk by now, and no part of this one.
    os.sync()
    with tempfile.TemporaryDirectory(dir=home) as folder:
        began = time.monotonic()
        ran = way(stack, Path(folder))
        answered = sent.between(began, time.monotonic())
        written = sum(one.stat().st_size for one in Path(folder).iterdir())
    return {
        "round": number,
        "way": name,
        "seconds": ran.seconds,
        "MiB": written / MEBIBYTE,
        "MiB/s": written / MEBIBYTE / ran.seconds,
        "CPU seconds": ran.cpu,
        "peak MiB": ran.memory or ran.early,
        "peak MiB of the key": ran.early if ran.memory else 0.0,
        "chats": len(answered.calls),
        "chats failed": answered.failed(),
        "p99 ms": answered.p99(),
    }


def shown(row: Mapping[str, Any]) -> str:
    """Return a row in words."""
    return (
        f"{row['way']:<16} {row['seconds']:6.1f} s, {row['MiB/s']:6.1f} MiB/s, {row['CPU seconds']:5.1f} s of CPU, "
        f"{row['peak MiB']:4.0f} MiB, p99 {row['p99 ms']:.0f} ms of {row['chats']} chats"
    )


def report_of(
    command: str, raw: list[dict[str, Any]], *, rounds: int, mebibytes: int, facts: Mapping[str, str]
) -> Report:
    """Return the report of rounds that were measured."""
    by_way = {name: [one for one in raw if one["way"] == name] for name in (IDLE, PLAIN_WAY, KIT_WAY)}

    def of(name: str, figure: str) -> float:
        return median(by_way[name], lambda one: float(one[figure]))

    ratio = of(KIT_WAY, "MiB/s") / of(PLAIN_WAY, "MiB/s")
    p99 = {name: of(name, "p99 ms") / of(IDLE, "p99 ms") for name in by_way}
    memory = max(float(one["peak MiB"]) for one in by_way[KIT_WAY])
    key = max(float(one["peak MiB of the key"]) for one in by_way[KIT_WAY])
    failed = sum(int(one["chats failed"]) for one in raw)
    return Report(
        name="backup",
        title="A backup of a large stack",
        command=command,
        machine=facts,
        parameters={
            "rounds": rounds,
            "database in MiB": mebibytes,
            "files in MiB": mebibytes,
            "load": f"{SENDERS} senders of chats, each {PAUSE_SECONDS * 1000:.0f} ms after its last answer",
            "release": f"{SMALLEST}, with stand-ins for Dify's images",
        },
        tables=(
            Table(
                title="Medians",
                columns=(
                    "way",
                    "seconds",
                    "MiB/s",
                    "CPU seconds",
                    "p99 of chats in ms",
                    "p99, ratio to no backup",
                ),
                rows=tuple(
                    (
                        name,
                        of(name, "seconds"),
                        of(name, "MiB/s") if name != IDLE else "",
                        of(name, "CPU seconds") if name != IDLE else "",
                        of(name, "p99 ms"),
                        p99[name],
                    )
                    for name in by_way
                ),
            ),
            Table(
                title="Promises",
                columns=("figure", "promised", "measured"),
                rows=(
                    ("throughput, ratio to pg_dump + tar", f"at least {PROMISED_RATIO}", ratio),
                    ("peak memory in MiB", f"under {PROMISED_MEBIBYTES}", memory),
                    ("p99, ratio to no backup", f"at most {PROMISED_P99}", p99[KIT_WAY]),
                ),
            ),
        ),
        notes=(
            f"{_SAME}; neither way compresses",
            "`dify-kit backup` also encrypts, hashes, and counts rows and files; both sync what they wrote",
            "CPU seconds are those of the command's own processes. PostgreSQL and the engine work for both",
            f"deriving the archive's key from its passphrase takes {key:,.0f} MiB for about a second: age's choice",
        ),
        raw=raw,
        problem=f"{failed} chats failed" if failed else "",
        summary={"ratio": ratio, "peak MiB": memory, "p99": p99},
    )
