"""Facts about the machine that a figure means nothing without."""

import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path

import docker


def processor(cpuinfo: str) -> str:
    """Return the CPU's model from /proc/cpuinfo."""
    found = re.search(r"^(?:model name|Processor)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return found[1].strip() if found else "unknown"


def facts(versions: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return what this machine is, and the versions of what was measured."""
    load = os.getloadavg()[0]
    return {
        "cores": str(len(os.sched_getaffinity(0))),
        "cpu": processor(Path("/proc/cpuinfo").read_text(encoding="utf-8")),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1024**3:.1f} GiB",
        "kernel": platform.release(),
        "load before": f"{load:.1f}",
        "docker": str(docker.from_env().version()["Version"]),
        "python": platform.python_version(),
        **(versions or {}),
    }
