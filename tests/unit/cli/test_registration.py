"""Each command is found in the module that the table names, which alone is imported to run it."""

from dify_kit.__main__ import MODULES, register
from dify_kit.app import app


def test_every_command_is_in_the_module_that_the_table_names() -> None:
    register()

    found: dict[str, set[str]] = {}
    for command in app.registered_commands:
        assert command.callback
        found.setdefault(command.callback.__module__, set()).add(command.name or command.callback.__name__)
    for group in app.registered_groups:
        assert group.typer_instance
        modules = {
            one.callback.__module__ for one in group.typer_instance.registered_commands if one.callback
        }
        assert len(modules) == 1
        found.setdefault(modules.pop(), set()).add(str(group.typer_instance.info.name))
    assert found == {module: set(commands) for module, commands in MODULES.items()}
