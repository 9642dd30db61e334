"""`dify-kit render`: write every rendered file of a stack, and check them."""

from pathlib import Path
from typing import Annotated

import typer

from dify_kit.app import DEFAULT_STACK, Stack, app
from dify_kit.commands.selected import require_configured
from dify_kit.talk import say
from dify_kit.workspace.files import StackFiles


@app.command()
def render(
    stack: Stack = DEFAULT_STACK,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Where to write.")] = Path(
        "rendered"
    ),
) -> None:
    """Write every rendered file of the stack, and check nginx's: crossplane, gixy, `nginx -t` in its image.

    Secrets are not written. stdout lists the files.
    """
    from dify_kit.stack import rendering, settings  # noqa: PLC0415  # imports Pulumi

    files = StackFiles.open(stack)
    require_configured(files)
    chosen = settings.decrypted(files)
    for path in rendering.write(chosen, out):
        typer.echo(path)
    rendering.check(chosen, out)
    say(f"rendered for Dify {chosen.release} into {out}")
