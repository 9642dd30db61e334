"""Every unit test has its own event loop and its own Pulumi configuration."""

import asyncio
import functools
from collections.abc import Iterator

import hypothesis
import pulumi
import pytest
from typer.main import get_command

from infra import hints
from smoke_tests.conftest import MARKERS
from support import event_loops


def pytest_configure(config: pytest.Config) -> None:
    """Know the markers of the smoke tests: some of their modules are tested here. Examples have no limit of time."""
    hypothesis.settings.register_profile("busy-machine", deadline=None)
    hypothesis.settings.load_profile("busy-machine")
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)


@pytest.fixture(autouse=True, scope="session")
def _commands_built_once() -> Iterator[None]:
    """Build the commands of the program once: in each call, as in Typer, it is a third of the time of `cli/`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.testing._get_command", functools.cache(get_command))
        yield


@pytest.fixture(autouse=True)
def _program_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let messages name the program as on a machine that has it on PATH."""
    monkeypatch.setenv(hints.VARIABLE, hints.PROGRAM.name)


@pytest.fixture(autouse=True)
def _fresh_pulumi() -> Iterator[None]:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    pulumi.runtime.set_all_config({}, [])
    event_loops.close(loop)
    asyncio.set_event_loop(None)
