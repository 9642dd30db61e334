"""Metrics served to Prometheus on 127.0.0.1, and the intervals at which they are renewed."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.registry import Collector

from dify_kit.errors import KitError, UsageError

ADDRESS = "127.0.0.1"
UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}
_DURATION = re.compile(r"(\d+)([smh]?)")


def duration(option: str, text: str) -> float:
    """Return the seconds of `90`, `90s`, `5m` or `1h`. Raises UsageError that names the option."""
    found = _DURATION.fullmatch(text.strip())
    seconds = int(found[1]) * UNITS[found[2]] if found else 0
    if seconds <= 0:
        raise UsageError(f"{option} {text!r}: not a duration", "give for example 90s, 5m or 1h")
    return float(seconds)


@contextmanager
def serving(metrics: Collector, port: int) -> Iterator[None]:
    """Serve what a collector has at `/metrics` while the block runs. Raises KitError for a port that is not free."""
    registry = CollectorRegistry()
    registry.register(metrics)
    try:
        server, thread = start_http_server(port, addr=ADDRESS, registry=registry)
    except OSError as problem:
        raise KitError(
            f"--port {port}: {ADDRESS}:{port} cannot be used: {problem.strerror}",
            "name a free port with --port",
        ) from None
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
