"""The command line: ``dify-kit``. Importing a module below registers its commands."""

from dify_kit import deploy, env, machine
from dify_kit.app import app

__all__ = ["app", "deploy", "env", "machine", "main"]


def main() -> None:
    """Run the command that the arguments name."""
    app()


if __name__ == "__main__":
    main()
