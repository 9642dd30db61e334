"""CPU time of a process and all its descendants, from /proc."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
# Fields of /proc/PID/stat, counted from the one after the command's name, which may hold spaces and brackets.
_PARENT = 1
_TIMES = slice(11, 15)  # utime, stime, and those of children that ended


class NoProcessError(Exception):
    """The process is not in /proc: it ended, or it runs on another machine."""


@dataclass(frozen=True, kw_only=True)
class Process:
    """One line of /proc/PID/stat, as far as it counts here. `ticks` of its threads and its ended children."""

    pid: int
    parent: int
    ticks: int


def parse_stat(pid: int, line: str) -> Process:
    """Read /proc/PID/stat."""
    fields = line.rpartition(")")[2].split()
    return Process(pid=pid, parent=int(fields[_PARENT]), ticks=sum(int(field) for field in fields[_TIMES]))


def _processes(proc: Path) -> Iterator[Process]:
    for directory in proc.iterdir():
        if directory.name.isdigit():
            try:
                line = (directory / "stat").read_text(encoding="utf-8", errors="replace")
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended meanwhile
            yield parse_stat(int(directory.name), line)


def tree(root: int, *, proc: Path = PROC) -> dict[int, Process]:
    """Return a process and its descendants by their ids. Raises NoProcessError."""
    known = {process.pid: process for process in _processes(proc)}
    if root not in known:
        raise NoProcessError(f"process {root} is not in {proc}: does the Docker engine run on this machine?")
    children: dict[int, list[int]] = {}
    for process in known.values():
        children.setdefault(process.parent, []).append(process.pid)
    found, waiting = dict[int, Process](), [root]
    while waiting:
        pid = waiting.pop()
        found[pid] = known[pid]
        waiting += children.get(pid, [])
    return found


def tree_seconds(root: int, *, proc: Path = PROC, ticks_per_second: int | None = None) -> float:
    """Return the CPU seconds that a process and its descendants have used so far. Raises NoProcessError."""
    ticks = sum(process.ticks for process in tree(root, proc=proc).values())
    return ticks / (ticks_per_second or os.sysconf("SC_CLK_TCK"))
