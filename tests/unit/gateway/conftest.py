"""Fixtures: a gateway that is set up anew for each test."""

from pathlib import Path

import pytest

from dify_gateway import workers
from tests.unit.gateway.world import World, make_world


@pytest.fixture(autouse=True)
def run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the workers' reports of a test to itself."""
    monkeypatch.setattr(workers, "DIRECTORY", tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A gateway with two tenants and a few clients."""
    return make_world(tmp_path / "config")
