"""Ports for what tests and benches start, which nothing else takes before it listens."""

import os
import random
import socket

# Below those that the kernel gives to outgoing connections, and below the NodePorts of a cluster.
FIRST, LAST = 12_000, 29_999
_TRIES = 1000
_given: set[int] = set()


def free_port(address: str = "127.0.0.1") -> int:
    """Return a port of an address that nothing has, TCP or UDP. No call returns it again.

    Workers of one run of pytest have different ports.
    """
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    for _ in range(_TRIES):
        port = random.randrange(FIRST + number, LAST + 1, workers)  # noqa: S311  # not for cryptography
        if port not in _given and _free(address, port):
            _given.add(port)
            return port
    raise OSError(f"{address} has no free port from {FIRST} to {LAST}: {_TRIES} were tried")


def _free(address: str, port: int) -> bool:
    try:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with socket.socket(type=kind) as probe:
                probe.bind((address, port))
    except OSError:
        return False
    return True
