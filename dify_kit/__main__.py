"""The command line: ``dify-kit``. Importing the module of a command registers it."""

import sys

from dify_kit.app import COMMANDS, app, register

__all__ = ["app", "main"]


def main() -> None:
    """Run the command that the arguments name."""
    command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    if command in COMMANDS:
        register(command)
    app()


if __name__ == "__main__":
    main()
