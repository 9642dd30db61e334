"""One run of the smoke tests, in a process of its own that is cancelled at its deadline."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from dify_kit.smoke.termination import terminable
from infra.catalogue.project import ROOT

# A cancelled run deletes what it created and writes its reports. Then its processes are killed.
CLEAN_UP_SECONDS = 60.0
TARGETS = ("--url", "--stack")
LAST_LINES = 8


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A run that ended: pytest's exit code, its results (empty when it wrote none), and its time.

    `started` is a Unix time, `seconds` the duration; `printed` is its output where it was captured.
    """

    code: int
    results: Mapping[str, Any] = field(default_factory=dict)
    started: float = 0.0
    seconds: float = 0.0
    cancelled: bool = False
    printed: str = ""

    @property
    def outcome(self) -> str:
        """Passed, failed, cancelled, or error where nothing was tested."""
        if self.cancelled:
            return "cancelled"
        found = str(self.results.get("outcome", ""))
        return found if found in {"passed", "failed"} else "error"

    @property
    def summary(self) -> str:
        """The summary in a line; without results, the last lines that the run printed."""
        if self.results:
            return str(self.results["summary"])
        return (
            " | ".join(self.printed.strip().splitlines()[-LAST_LINES:])
            or f"no results, exit code {self.code}"
        )


def command_of(stack: str, options: Sequence[str], data: Path) -> list[str]:
    """Return the command of a run that writes its results to `data`; the options name the target, else the stack."""
    named = any(option.partition("=")[0] in TARGETS for option in options)
    return [
        *(sys.executable, "-m", "pytest", str(ROOT / "smoke_tests"), "-c", str(ROOT / "pyproject.toml")),
        *("--rootdir", str(ROOT), "--json", str(data)),
        *(() if named else ("--stack", stack)),
        *options,
    ]


def run(stack: str, options: Sequence[str], *, deadline: float, quiet: bool) -> Ended:
    """Run the smoke tests for `deadline` seconds at most. `quiet` captures their output.

    Raises KeyboardInterrupt on Ctrl-C, SIGTERM and SIGHUP, after the run has cleaned up.
    """
    with (
        terminable(),
        tempfile.TemporaryDirectory(prefix="dify-kit-smoke-") as folder,
        tempfile.TemporaryFile() as output,
    ):
        data = Path(folder) / "results.json"
        started, began = time.time(), time.monotonic()
        process = subprocess.Popen(
            command_of(stack, options, data),
            stdout=output if quiet else None,
            stderr=subprocess.STDOUT if quiet else None,
            # Ctrl-C reaches this process alone, which then lets the run clean up.
            start_new_session=True,
        )
        cancelled = _wait(process, deadline)
        return Ended(
            code=process.returncode,
            results=_read(data),
            started=started,
            seconds=time.monotonic() - began,
            cancelled=cancelled,
            printed=_text(output),
        )


def _wait(process: "subprocess.Popen[bytes]", deadline: float) -> bool:
    """Wait for a run, and cancel it at its deadline or when this process is interrupted; return if it was too late."""
    try:
        process.wait(deadline)
    except subprocess.TimeoutExpired:
        _cancel(process)
        return True
    except BaseException:
        _cancel(process)
        raise
    finally:
        # A browser, or what else the run has left; all of it where a second signal ended the wait.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return False


def _cancel(process: "subprocess.Popen[bytes]") -> None:
    """Let a run clean up, for a minute."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(CLEAN_UP_SECONDS)


def _read(data: Path) -> Mapping[str, Any]:
    try:
        found: dict[str, Any] = json.loads(data.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def _text(output: IO[bytes]) -> str:
    output.seek(0)
    return output.read().decode(errors="replace")
