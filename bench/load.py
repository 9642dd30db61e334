"""wrk: its command, and what it says."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

CONNECTIONS = 16
THREADS = 1
TIMEOUT_SECONDS = 5
_UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}
_LATENCY = re.compile(r"^\s+(\d+)%\s+([\d.]+)(us|ms|s|m)\s*$", re.MULTILINE)
_TOTAL = re.compile(r"^\s+(\d+) requests in ([\d.]+)(us|ms|s|m),", re.MULTILINE)
_RATE = re.compile(r"^Requests/sec:\s+([\d.]+)", re.MULTILINE)
_REFUSED = re.compile(r"^\s+Non-2xx or 3xx responses: (\d+)", re.MULTILINE)
_ERRORS = re.compile(
    r"^\s+Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", re.MULTILINE
)


class LoadError(Exception):
    """wrk did not say what was expected of it."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What wrk measured. Latencies in milliseconds; `refused` are answers other than 2xx and 3xx."""

    requests: int
    seconds: float
    rate: float
    p50: float
    p99: float
    refused: int = 0
    socket_errors: int = 0


def command(url: str, *, seconds: int, headers: Mapping[str, str], script: str = "") -> list[str]:
    """Return the command of a bounded run. `script` is a Lua file in wrk's container, for other requests."""
    given = [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]
    size = [f"-t{THREADS}", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", f"{TIMEOUT_SECONDS}s"]
    return ["wrk", *size, "--latency", *(["-s", script] if script else []), *given, url]


def parse(message: str) -> Load:
    """Read wrk's report (`--latency`). Raises LoadError when something is missing."""
    total, rate = _TOTAL.search(message), _RATE.search(message)
    latencies = {
        int(share): float(number) * _UNITS[unit] for share, number, unit in _LATENCY.findall(message)
    }
    if not (total and rate and {50, 99} <= latencies.keys()):
        raise LoadError(f"wrk's report is not complete:\n{message.strip()[-1500:]}")
    refused, errors = _REFUSED.search(message), _ERRORS.search(message)
    return Load(
        requests=int(total[1]),
        seconds=float(total[2]) * _UNITS[total[3]] / 1000,
        rate=float(rate[1]),
        p50=latencies[50],
        p99=latencies[99],
        refused=int(refused[1]) if refused else 0,
        socket_errors=sum(int(number) for number in errors.groups()) if errors else 0,
    )
