"""The command line: ``dify-kit``. Importing a module registers its commands."""

import importlib
import sys

from dify_kit.app import app

__all__ = ["MODULES", "app", "main", "register"]

# Module -> the commands it has. Only the module of the command that is run gets imported: some of them import
# Pulumi, which takes longer than most commands do.
MODULES = {
    "dify_kit.deploy": ("up", "preview", "refresh", "down"),
    "dify_kit.env": ("init", "output", "password", "env"),
    "dify_kit.keys": ("keys",),
    "dify_kit.usage": ("usage",),
    "dify_kit.machine": ("render", "setup", "doctor"),
    "dify_kit.images.command": ("images",),
    "dify_kit.migrate": ("migrate",),
    "dify_kit.costs.command": ("costs",),
    "dify_kit.bench_command": ("bench",),
    "dify_kit.oauth": ("client",),
    "dify_kit.releases.command": ("release",),
}


def register(command: str = "") -> None:
    """Register the commands of a command's module, or of every module when there is no such command."""
    wanted = [module for module, commands in MODULES.items() if command in commands]
    for module in wanted or MODULES:
        importlib.import_module(module)


def main() -> None:
    """Run the command that the arguments name."""
    register(sys.argv[1] if len(sys.argv) > 1 else "")
    app()


if __name__ == "__main__":
    main()
