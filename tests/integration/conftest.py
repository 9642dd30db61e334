"""One deployed stack for all tests of this folder, removed at the end however they went."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.stacks import Stack

HERE = Path(__file__).parent


def pytest_configure() -> None:
    """Let a run that is asked to end (as by a CI system) clean up as one that is interrupted by hand does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything in this folder, so that `-m "not integration"` leaves it out."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("integration")


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
