"""`dify:protect`: what `down` and `forget` refuse, ask for, and do."""

from typing import Any

import pytest
from typer.testing import Result

from support.ports import free_port
from tests.unit.cli.conftest import Machine
from tests.unit.cli.test_cli import STACK, URN, run

VOLUME = {"urn": f"{URN}volume-postgres", "type": "t", "id": "dify-dev-postgres"}


@pytest.fixture(params=[True, "true"])
def stack(machine: Machine, request: pytest.FixtureRequest) -> Machine:
    """Make a protected stack that is deployed; `pulumi config set` writes a text."""
    machine.configure(httpPort=free_port(), protect=request.param)
    machine.state(resources=[STACK, {**VOLUME, "protect": True}])
    machine.engine.existing_volumes = {"dify-dev-postgres"}
    return machine


def refused(done: Result, machine: Machine) -> str:
    """Return why nothing happened."""
    assert done.exit_code != 0
    assert machine.calls() == []
    assert machine.engine.existing_volumes == {"dify-dev-postgres"}
    return " ".join(done.stderr.split())


@pytest.mark.parametrize(
    "command",
    [
        ("down", "--yes-delete-data-of", "dev"),
        ("down", "--delete-data"),
        ("down", "--yes-delete-data-of", "dev", "--yes-take-down", "dev"),
        ("forget", "dev", "--yes", "dev"),
        ("forget", "dev", "--yes", "dev", "--delete-data"),
    ],
)
def test_no_option_deletes_its_data(stack: Machine, command: tuple[str, ...]) -> None:
    told = refused(run(*command, stdin="dev\n"), stack)

    assert "stack dev is protected (dify:protect is true)" in told
    assert "dify-kit set protect false" in told


def test_without_a_terminal_it_is_taken_down_by_name_only(stack: Machine) -> None:
    assert "--yes-take-down dev" in refused(run("down", stdin="dev\n"), stack)
    assert "does not name the stack" in refused(run("down", "--yes-take-down", "prod"), stack)


@pytest.mark.parametrize("typed", ["Dev\n", "y\n", "\n"])
def test_another_name_leaves_it_running(stack: Machine, monkeypatch: pytest.MonkeyPatch, typed: str) -> None:
    monkeypatch.setattr("dify_kit.commands.down._at_a_terminal", lambda: True)

    assert "the stack runs on" in refused(run("down", stdin=typed), stack)


@pytest.mark.parametrize(("options", "typed"), [((), "dev\n"), (("--yes-take-down", "dev"), "")])
def test_by_its_name_it_goes_and_its_data_stays(
    stack: Machine, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], typed: str
) -> None:
    monkeypatch.setattr("dify_kit.commands.down._at_a_terminal", lambda: True)

    done = run("down", *options, stdin=typed)

    assert done.exit_code == 0, done.output
    first, then = stack.calls("state"), stack.calls("destroy")
    assert [call["args"][:4] for call in first] == [["state", "unprotect", "--all", "--yes"]]
    assert len(then) == 1
    assert stack.calls().index(first[0]) < stack.calls().index(then[0])
    assert stack.engine.existing_volumes == {"dify-dev-postgres"}


@pytest.mark.parametrize("settings", [{}, {"protect": False}, {"protect": "false"}])
def test_without_protection_it_is_not_asked_for(machine: Machine, settings: dict[str, Any]) -> None:
    machine.configure(httpPort=free_port(), **settings)
    machine.state(resources=[STACK, VOLUME])

    assert run("down").exit_code == 0
    assert machine.calls("state") == []


def test_protection_that_was_not_deployed_away_is_released(machine: Machine) -> None:
    machine.configure(httpPort=free_port(), protect=False)
    machine.state(resources=[STACK, {**VOLUME, "protect": True}])

    assert run("down").exit_code == 0
    assert len(machine.calls("state", "unprotect")) == 1
