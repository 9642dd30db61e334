"""The Typer application, in one place so that several modules can add commands."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from dify_kit.errors import KitError
from dify_kit.talk import fail

# The commands, each in a module of its name below dify_kit.commands, in the order of use.
COMMANDS = (
    "init",
    "up",
    "preview",
    "refresh",
    "down",
    "output",
    "password",
    "env",
    "client",
    "keys",
    "usage",
    "images",
    "render",
    "setup",
    "doctor",
    "release",
    "migrate",
    "costs",
    "bench",
)


class Group(TyperGroup):
    """Lists commands in the order of use, and turns a KitError into message, hint and exit code."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401  # click's own signature
        """Return the command names, the known ones first."""
        names = super().list_commands(ctx)
        return sorted(
            names, key=lambda name: (COMMANDS.index(name) if name in COMMANDS else len(COMMANDS), name)
        )

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401  # click's own signature
        """Run the command."""
        try:
            return super().invoke(ctx)
        except KitError as error:
            fail(error)
            raise typer.Exit(error.exit_code) from None


app = typer.Typer(
    cls=Group,
    name="dify-kit",
    help="Deploy a complete self-hosted Dify with Pulumi, guard its edge, and prove that it works.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _several() -> None:
    # A module with one command is imported alone: Typer would take that for the whole program.
    pass


Stack = Annotated[
    str,
    typer.Option(
        "--stack", "-s", envvar="DIFY_KIT_STACK", metavar="NAME", help="The stack (environment) to work on."
    ),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show Pulumi's own output, unfiltered.")]
DEFAULT_STACK = "dev"
