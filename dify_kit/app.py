"""The Typer application, in one place so that several modules can add commands."""

import importlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from dify_kit.errors import KitError
from dify_kit.talk import fail

# The commands, each in a module of its name below dify_kit.commands (`_` for `-`), in the order of use, with what
# `--help` says. They stand here because Pulumi and Docker's client take seconds to import: `--help` imports neither.
COMMANDS: Mapping[str, str] = MappingProxyType(
    {
        "init": "Create a stack: write its settings and generate every secret it needs.",
        "up": "Deploy the stack, or repair it.",
        "preview": "Show what `up` would change, and change nothing.",
        "set": "Change settings, all of them or none.",
        "unset": "Remove settings, all of them or none: their defaults count again.",
        "scale": "Show what more or fewer pods of a service cost on a cluster, and set their number.",
        "refresh": "Compare the state with what really runs and write the differences into the state.",
        "down": "Remove containers and networks.",
        "forget": "Remove everything of a stack that is down from this machine.",
        "backup": "Back up a stack while it serves, into one encrypted archive; prove that an archive can be restored.",
        "restore": "Make a stack from an archive, on this machine, another one or a cluster.",
        "upgrade": "Bring a stack to a newer Dify: check, back up, deploy, test.",
        "rollback": "Take the last upgrade of a stack back.",
        "status": "Show how a stack is: services, address, certificate, drift, limits, last deployment.",
        "metrics": "Show how a stack is as metrics of Prometheus, once or at an interval.",
        "logs": "Show the logs of the stack's services, by time; secrets are masked.",
        "support-bundle": "Pack status, settings, logs and configuration into one archive, without secrets.",
        "diff": "Compare two stacks: settings, release, images, secrets by fingerprint, clients by name.",
        "output": "Print the stack's exports as JSON, or one of them as plain text.",
        "state": "Pulumi's state of a stack: make it again after it was lost or damaged.",
        "password": "Print the administrator's password.",
        "env": "Print shell commands that prepare plain `pulumi`.",
        "client": "OAuth clients: who may get access tokens.",
        "keys": "Keys of upstreams, keys issued to callers, and the signing key.",
        "usage": "Tokens and cost of the LLM proxy.",
        "images": "The images of a stack: list, save, load, push, or copy them to a private registry.",
        "prune": "Remove images, archives and caches that no stack of this machine needs.",
        "render": "Write every rendered file of the stack, and check nginx's.",
        "setup": "Install what is missing: Docker engine, Pulumi engine, base image.",
        "smoke": "Run the smoke tests against a stack or an address, once or at an interval.",
        "doctor": "Check this machine, the stack's settings and its published address.",
        "release": "Releases of Dify: what the kit knows, and what it lacks.",
        "migrate": "Move Python clients of Dify's chat API to an OpenAI-compatible one.",
        "costs": "Compare what Dify, HolySheep, OpenAI, Anthropic and OneAPI cost a month.",
        "bench": "Measure latency, time to first token, errors and throughput.",
    }
)


SUGGESTED = 3


def register(command: str) -> None:
    """Import the module of a command, which adds it to the application."""
    importlib.import_module(f"dify_kit.commands.{command.replace('-', '_')}")


class Group(TyperGroup):
    """Turns a KitError into message, hint and exit code."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401  # click's own signature
        """Run the command."""
        try:
            return super().invoke(ctx)
        except KitError as error:
            fail(error)
            raise typer.Exit(error.exit_code) from None


class Kit(Group):
    """Lists every command, in the order of use; only the command that runs is imported."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401  # Typer's own signature
        super().__init__(**options)
        # Plain text: rich takes longer to import than all else that the list of commands needs.
        self.rich_markup_mode = None

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401, ARG002  # click's own signature
        """Return the names of all commands."""
        return list(COMMANDS)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401  # click's own signature
        """Return the command that the arguments name; end with the nearest names for a wrong one."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            from infra.catalogue.checks import nearest  # noqa: PLC0415  # needed for mistakes alone

            *most, last = nearest(args[0], COMMANDS, SUGGESTED)
            ctx.fail(f"No such command '{args[0]}'. Did you mean {', '.join(most)} or {last}?")
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401  # click's own signature
        """Return a command: the registered one, else one that shows its line in `--help` and no more."""
        found = super().get_command(ctx, cmd_name)
        if found is None and cmd_name in COMMANDS:
            return TyperCommand(cmd_name, short_help=COMMANDS[cmd_name])
        return found


app = typer.Typer(
    cls=Kit,
    name="dify-kit",
    help="Deploy a complete self-hosted Dify with Pulumi, guard its edge, and prove that it works.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415  # `--help` needs it not

        typer.echo(f"dify-kit {version(app.info.name or '')}")
        raise typer.Exit


# A module with one command is imported alone: without a callback Typer would take that for the whole program.
@app.callback()
def _several(
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


Stack = Annotated[
    str,
    typer.Option(
        "--stack", "-s", envvar="DIFY_KIT_STACK", metavar="NAME", help="The stack (environment) to work on."
    ),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show Pulumi's own output, unfiltered.")]
DEFAULT_STACK = "dev"
