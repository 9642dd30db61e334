"""Each command lies in the module of its name, which alone is imported to run it; `--help` imports none."""

import subprocess
import sys

import pytest
from typer.models import CommandInfo, TyperInfo
from typer.testing import CliRunner

from dify_kit.app import COMMANDS, app

# What takes seconds to import.
HEAVY = ("pulumi", "docker", "pytest", "libcst", "httpx", "rich.console")


def _module(command: CommandInfo) -> str:
    assert command.callback
    return command.callback.__module__


def _first_line(command: CommandInfo | TyperInfo) -> str:
    if isinstance(command, TyperInfo):
        assert command.typer_instance
        return str(command.typer_instance.info.help).partition("\n")[0]
    assert command.callback
    return str(command.callback.__doc__)


def _registered() -> dict[str, CommandInfo | TyperInfo]:
    commands: dict[str, CommandInfo | TyperInfo] = {}
    for command in app.registered_commands:
        assert command.callback
        commands[command.name or command.callback.__name__] = command
    for group in app.registered_groups:
        assert group.typer_instance
        commands[str(group.typer_instance.info.name)] = group
    return commands


def test_every_command_is_in_the_module_of_its_name() -> None:
    for name, command in _registered().items():
        group = command.typer_instance if isinstance(command, TyperInfo) else None
        parts = group.registered_commands if group else [command]
        assert {_module(part) for part in parts if isinstance(part, CommandInfo)} == {
            f"dify_kit.commands.{name.replace('-', '_')}"
        }


def test_the_table_lists_every_command_with_its_summary() -> None:
    registered = _registered()

    assert set(registered) == set(COMMANDS)
    for name, summary in COMMANDS.items():
        assert _first_line(registered[name]).startswith(summary.removesuffix(".")), name


def test_help_lists_the_commands_in_the_order_of_the_table() -> None:
    shown = CliRunner().invoke(app, ["--help"]).output

    places = [shown.index(f"\n  {name} ") for name in COMMANDS]
    assert places == sorted(places)


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["no-such-command"]])
def test_help_imports_no_command(arguments: list[str]) -> None:
    script = (
        f"import sys; sys.argv = ['dify-kit', *{arguments!r}]\n"
        "from dify_kit.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"print([name for name in {HEAVY[:-1]!r} if name in sys.modules], file=sys.stderr)\n"
        "print([name for name in sys.modules if name.startswith('dify_kit.commands')], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stderr.splitlines()[-2:] == ["[]", "[]"]
