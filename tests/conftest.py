"""The stack that tests share, and which tests run side by side.

`make integration` runs the tests twice: all that need no browser on several workers, then those with one, alone,
because Chromium gives up its requests (ERR_NETWORK_CHANGED) whenever a network of Docker comes or goes.
"""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.stacks import Stack

HERE = Path(__file__).parent
DEPLOYING = (HERE / "contract", HERE / "integration")
# What shares the main stack goes to one worker: each worker has a main stack of its own. These leave it to
# themselves, as they take it down, break it and mend it for several minutes.
ALONE = HERE / "integration" / "test_stack.py"


def pytest_configure() -> None:
    """Let a run that is asked to end (as by a CI system) clean up as one that is interrupted by hand does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def worker_group(item: pytest.Item) -> str:
    """Return the name of the tests that a worker takes together: those of a stack, or those of a file."""
    shares = "stack" in getattr(item, "fixturenames", ())
    return "stack" if shares and item.path != ALONE else str(item.path.relative_to(HERE))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that deploy, and put the longest of them first, so that no worker is left alone with one."""
    for item in items:
        if any(folder in item.path.parents for folder in DEPLOYING):
            item.add_marker("integration")
            item.add_marker(pytest.mark.xdist_group(worker_group(item)))
    items.sort(key=lambda item: (item.path != ALONE, "stack" not in getattr(item, "fixturenames", ())))


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The main stack: newest release, local images, an allowed origin on /v1."""
    stack = Stack(home=tmp_path_factory.mktemp("home"))
    try:
        created = stack.init(**{"cors-origin": "https://app.example.com"})
        assert created.code == 0, created.told
        stack.first = stack.up()
        yield stack
    finally:
        stack.remove()
