"""`dify-kit unset`: remove settings of a stack."""

from typing import Annotated

import typer

from dify_kit.app import DEFAULT_STACK, Stack, app
from dify_kit.commands.selected import locked, require_configured
from dify_kit.commands.set import tell_rest
from dify_kit.engine.cli import Pulumi
from dify_kit.stack import changing, setting_path
from dify_kit.stack.changing import Change
from dify_kit.talk import say
from dify_kit.workspace.files import PROJECT


@app.command()
def unset(
    keys: Annotated[
        list[str], typer.Argument(metavar="KEY...", help="Settings: httpPort, tls.mode, cors.v1[0].")
    ],
    stack: Stack = DEFAULT_STACK,
) -> None:
    """Remove settings, all of them or none: their defaults count again. They are checked first."""
    with locked(stack) as files:
        require_configured(files)
        changes = [
            Change(path=path, secret=changing.is_secret(path)) for path in map(setting_path.read, keys)
        ]
        left = changing.apply(Pulumi(files=files), changes)
    for change in changes:
        say(f"{PROJECT}:{setting_path.text_of(change.path)} is not set any more")
    tell_rest(stack, left)
