"""The command line: ``dify-kit``. Importing a module registers its commands."""

import importlib
import sys

from dify_kit.app import COMMANDS, app

__all__ = ["COMMANDS", "app", "main", "register"]


def register(command: str = "") -> None:
    """Import the module of a command, or of every command when there is no such command.

    Some modules import Pulumi, which takes longer than most commands do.
    """
    for name in [command] if command in COMMANDS else COMMANDS:
        importlib.import_module(f"dify_kit.commands.{name}")


def main() -> None:
    """Run the command that the arguments name."""
    register(sys.argv[1] if len(sys.argv) > 1 else "")
    app()


if __name__ == "__main__":
    main()
