"""Edges for the tests of this folder: one shared, and others with settings of their own."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from smoke_tests.conftest import MARKERS
from tests.integration.containers import readable
from tests.integration.edge.container import PLAIN, Edge
from tests.integration.edge.oauth import OAuthEdge, start


def pytest_configure(config: pytest.Config) -> None:
    """Know the markers of the smoke tests, which are tried out here."""
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)


@pytest.fixture(scope="package")
def open_directory(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Make directories that containers with other users can read; pytest closes its own to others."""

    def make() -> Path:
        return readable(tmp_path_factory.mktemp("edge"))

    return make


@pytest.fixture(scope="package")
def edge(open_directory: Callable[[], Path]) -> Iterator[Edge]:
    """The edge with an allowed origin on every group, for all tests of this folder."""
    one = Edge(open_directory())
    try:
        yield one
    finally:
        one.remove()


@pytest.fixture(scope="package")
def oauth(open_directory: Callable[[], Path]) -> Iterator[OAuthEdge]:
    """One edge with OAuth and a gate, and the gateway behind it, for test_oauth.py and test_gate.py."""
    one = start(open_directory)
    try:
        yield one
    finally:
        one.remove()


@pytest.fixture(scope="module")
def start_edge(open_directory: Callable[[], Path]) -> Iterator[Callable[..., Edge]]:
    """Start edges with further settings and `Edge`'s own options; all are removed after the module."""
    with ExitStack() as opened:

        def start(**options: Any) -> Edge:
            plain = {**PLAIN, **options.pop("plain", {})}
            one = Edge(open_directory(), plain, **options)
            opened.callback(one.remove)
            return one

        yield start
