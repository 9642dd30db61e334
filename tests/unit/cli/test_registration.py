"""Each command is found in the module of its name, which alone is imported to run it."""

from typing import Any

import typer.main
from typer.models import CommandInfo, TyperInfo

from dify_kit.__main__ import COMMANDS, register
from dify_kit.app import app


def test_every_command_is_in_the_module_of_its_name() -> None:
    register()

    found: dict[str, set[str]] = {}
    for command in app.registered_commands:
        found.setdefault(_name(command), set()).add(_module(command.callback))
    for group in app.registered_groups:
        assert group.typer_instance
        commands = group.typer_instance.registered_commands
        found.setdefault(str(group.typer_instance.info.name), set()).update(
            _module(one.callback) for one in commands
        )
    assert found == {name: {f"dify_kit.commands.{name}"} for name in COMMANDS}


def test_help_lists_the_commands_in_the_order_of_the_table() -> None:
    register()

    group: Any = typer.main.get_command(app)
    assert group.list_commands(None) == list(COMMANDS)


def _name(command: CommandInfo | TyperInfo) -> str:
    assert command.callback
    return str(command.name or command.callback.__name__)


def _module(callback: Any) -> str:
    return str(callback.__module__)
