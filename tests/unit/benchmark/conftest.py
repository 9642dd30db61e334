"""The server that is measured."""

import threading
from collections.abc import Iterator

import pytest

from tests.unit.benchmark.server import KEY, Server


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Run the server, with the key in the environment."""
    monkeypatch.setenv("BENCH_KEY", KEY)
    with Server() as one:
        threading.Thread(target=one.serve_forever, args=(0.01,), daemon=True).start()
        yield one
        one.released.set()
        one.shutdown()
