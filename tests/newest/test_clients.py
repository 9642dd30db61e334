"""The Python programs of docs/guides/clients.md with the newest packages, where those decide: a pin may be raised."""

from pathlib import Path

import pytest

from tests.clients_guide import Program, programs, save
from tests.unit.test_clients_guide import (
    BY_NAME,
    OAUTH,
    WITH_OAUTH,
    Client,
    check_answer,
    check_early_renewal,
    check_renewal,
    check_waits,
    ways,
)

PYTHON = [program for program in programs() if program.language == "python"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The programs, saved."""
    save(tmp_path)
    return tmp_path


@pytest.fixture(params=["sync", "async"])
def client(request: pytest.FixtureRequest, folder: Path) -> Client:
    return Client(kind=request.param, folder=folder, versions="newest")


@pytest.mark.parametrize(
    ("program", "way"),
    [(program, way) for program in PYTHON for way in ways(program)],
    ids=lambda value: value.name if isinstance(value, Program) else "-".join(value),
)
def test_every_python_program_of_the_page_answers(
    program: Program, way: dict[str, str], folder: Path
) -> None:
    check_answer(program, way, folder, "newest")


@pytest.mark.parametrize("name", [name for name in OAUTH if BY_NAME[name] in PYTHON])
def test_revoked_token_is_renewed_once(name: str, folder: Path) -> None:
    check_renewal(name, folder, "newest")


def test_token_is_renewed_300_seconds_early(client: Client) -> None:
    check_early_renewal(client, life=301, tokens=2)


def test_client_waits_as_long_as_it_is_told(client: Client) -> None:
    check_waits(client, WITH_OAUTH)
