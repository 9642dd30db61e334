"""Kills a command with every process that it started, at points of its length that a seed draws."""

import contextlib
import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from support.stacks import CHECKOUT, KIT, Stack

VARIABLE = "KILL_DRILL_RUN"
SEED = "KILL_DRILL_SEED"
# For a shorter drill: "KILL_DRILL_POINTS=4 pytest ...".
POINTS = int(os.environ.get("KILL_DRILL_POINTS", "10"))
_END_SECONDS = 60.0
_PROC = Path("/proc")
_HEAD = (
    "| command | killed after | share | processes | last line | left | then | which took |",
    f"|{'---|' * 8}",
)


@dataclass(kw_only=True)
class Kill:
    """One run that was killed: when, in which line of its output, and what was found and done afterwards."""

    command: str
    at: float
    length: float
    last: str
    # How many processes; 0 for a run that had come to its end before.
    processes: int
    found: str = ""
    then: str = ""
    seconds: float = 0.0

    def row(self) -> str:
        """Return a row of the table."""
        share = f"{100 * self.at / self.length:.0f} %"
        cells = [
            self.command,
            f"{self.at:.1f} of {self.length:.1f} s",
            share,
            str(self.processes),
            self.last,
            self.found or "nothing",
            self.then,
            f"{self.seconds:.0f} s",
        ]
        return f"| {' | '.join(cells)} |"


@dataclass(kw_only=True)
class Drill:
    """Runs that are killed, in the order in which they were, of one seed."""

    stack: Stack
    # Where the runs put what they remove at their end.
    scratch: Path
    seed: str = field(default_factory=lambda: os.environ.get(SEED) or secrets.token_hex(4))
    kills: list[Kill] = field(default_factory=list)
    # Of the last run that came to its end, by what it did, in seconds.
    lengths: dict[str, float] = field(default_factory=dict)

    def points(self, command: str) -> list[float]:
        """Return shares of a length, one from each tenth of it, in an order of their own."""
        drawn = random.Random(f"{self.seed} {command}")  # noqa: S311  # to be drawn again by its seed
        found = [(place + drawn.random()) / POINTS for place in range(POINTS)]
        drawn.shuffle(found)
        tell("\n".join(["", f"seed {self.seed}", *_HEAD]))
        return found

    def run(self, *arguments: str) -> float:
        """Run a command to its end, demand success, and return how long that took in seconds."""
        done = self.stack.kit(*arguments)
        assert done.code == 0, done.output[-6000:]
        return done.seconds

    def killed(self, command: str, share: float, *arguments: str, kind: str = "") -> Kill:
        """Run a command, kill all of its processes after a share of its length, and return what that was.

        The length is that in `lengths` of its `kind`, or of the command. A run that ends before its point renews it.
        """
        kind = kind or command
        length = self.lengths[kind]
        at = share * length
        token = secrets.token_hex(8)
        log = self.scratch / "killed.log"
        folder = self.scratch / "tmp"
        folder.mkdir(exist_ok=True)
        with log.open("w") as output:
            process = subprocess.Popen(
                [str(KIT), *arguments],
                cwd=CHECKOUT,
                env=self.stack.environment | {VARIABLE: token, "TMPDIR": str(folder)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            began = time.monotonic()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=at)
                self.lengths[kind] = time.monotonic() - began
            number = kill_all(token)
            process.wait(timeout=_END_SECONDS)
        said = log.read_text(errors="replace")
        assert number or process.returncode == 0, said[-6000:]
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        last = lines[-1][:70].replace("|", "/") if lines else ""
        kill = Kill(command=command, at=at, length=length, last=last, processes=number)
        self.kills.append(kill)
        return kill

    def then(self, kill: Kill, *arguments: str) -> None:
        """Run the command that follows a kill, demand success, and note how long it took."""
        kill.seconds += self.run(*arguments)
        kill.then = f"{kill.then} {arguments[0]}".strip()
        tell(kill.row())

    def report(self, command: str) -> str:
        """Return the table of a command's runs."""
        rows = [one.row() for one in self.kills if one.command == command]
        return "\n".join([f"seed {self.seed}", *_HEAD, *rows])


def tell(line: str) -> None:
    """Print a line: shown of a test that fails, and with `-s`."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def kill_all(token: str) -> int:
    """Send SIGKILL to every process with this token in its environment until none is left; return how many."""
    killed: set[int] = set()
    ends = time.monotonic() + _END_SECONDS
    while found := _processes(token):
        assert time.monotonic() < ends, f"processes {found} do not end"
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        killed.update(found)
    return len(killed)


def _processes(token: str) -> Sequence[int]:
    wanted, found = f"{VARIABLE}={token}".encode(), []
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            # One that ended, and was not waited for, has no environment any more.
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found
