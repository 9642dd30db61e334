"""Processes of a Pulumi run, also after Pulumi itself was killed.

Pulumi gives every plugin a process group of its own, so neither the terminal's SIGINT nor killing Pulumi's
group reaches them: after a SIGKILL the language host and the providers live on. Each run therefore carries a
token in its environment, which all of its processes inherit and which finds them again (Linux, /proc).
"""

import contextlib
import json
import os
import secrets
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from dify_kit.workspace.files import write_private

VARIABLE = "DIFY_KIT_RUN"
_PROC = Path("/proc")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One Pulumi command: its token, and the process that leads it."""

    token: str
    verb: str
    pid: int = 0

    @classmethod
    def new(cls, verb: str) -> "Run":
        """Return a run with a fresh token."""
        return cls(token=secrets.token_hex(12), verb=verb)

    def record(self, path: Path, pid: int) -> None:
        """Write down that this run is under way."""
        write_private(path, json.dumps(asdict(self) | {"pid": pid}))

    @classmethod
    def recall(cls, path: Path) -> "Run | None":
        """Read the run that ``path`` tells about; None when there was none or its record is damaged."""
        try:
            content = json.loads(path.read_bytes())
            return cls(token=str(content["token"]), verb=str(content["verb"]), pid=int(content["pid"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def processes(self) -> list[int]:
        """Return the ids of the run's living processes, the leader first."""
        if not _PROC.is_dir():
            return [self.pid] if self.pid and _exists(self.pid) else []
        wanted = f"{VARIABLE}={self.token}".encode()
        found = []
        for entry in _PROC.iterdir():
            if not entry.name.isdigit():
                continue
            try:
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue  # gone meanwhile, or another user's
            if wanted in environment.split(b"\0") and int(entry.name) != os.getpid():
                found.append(int(entry.name))
        return sorted(found, key=lambda pid: (pid != self.pid, pid))

    def stop(self, *, grace: float) -> int:
        """End what is left of the run; return how many processes that were.

        A leader that still lives is asked first (SIGTERM lets Pulumi finish the operation in flight and
        release its lock) and has ``grace`` seconds; the rest is killed.
        """
        alive = self.processes()
        if self.pid in alive:
            _signal(self.pid, signal.SIGTERM)
            deadline = time.monotonic() + grace
            while time.monotonic() < deadline and self.pid in self.processes():
                time.sleep(0.2)
        for pid in self.processes():
            _signal(pid, signal.SIGKILL)
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline and self.processes():
            time.sleep(0.05)
        return len(alive)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
