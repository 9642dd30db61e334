"""`dify-kit env`: prepare a shell for plain `pulumi`."""

import os
import shlex

import typer

from dify_kit.app import DEFAULT_STACK, Stack, app
from dify_kit.engine.cli import Pulumi
from dify_kit.workspace.files import StackFiles
from infra.engine import VARIABLES

_EXPORTED = (
    "PATH",
    "PULUMI_",
    "DIFY_KIT_HOME",
    "VIRTUAL_ENV",
    "DOCKER_HOST",
    "DOCKER_CERT_PATH",
    "DOCKER_TLS_VERIFY",
)


@app.command()
def env(stack: Stack = DEFAULT_STACK) -> None:
    """Print shell commands that prepare plain `pulumi` for the stack: eval "$(dify-kit env)"."""
    files = StackFiles.open(stack)
    environment = Pulumi(files=files).environment
    # Plain `pulumi` then works on this stack, and the one that `pulumi stack select` chose stays chosen.
    environment["PULUMI_STACK"] = stack
    for name in sorted(environment):
        if not name.startswith(_EXPORTED) or name.startswith("PULUMI_OPTION"):
            continue
        if name == "PULUMI_CONFIG_PASSPHRASE" or "TOKEN" in name:
            continue  # in the caller's environment already, and not to be printed
        if environment[name] != os.environ.get(name):
            typer.echo(f"export {name}={shlex.quote(environment[name])}")
    for name in VARIABLES:
        if name in os.environ and name not in environment:
            # The provider would take it before what is exported here.
            typer.echo(f"unset {name}")
