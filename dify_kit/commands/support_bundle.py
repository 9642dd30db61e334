"""`dify-kit support-bundle`: an archive for a report, without secrets."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from dify_kit.app import DEFAULT_STACK, Stack, app
from dify_kit.commands.selected import require_configured
from dify_kit.containers.docker_host import DockerEngine
from dify_kit.stack.cluster_objects import engine_of
from dify_kit.talk import say, step
from dify_kit.watch import bundle
from dify_kit.workspace.files import StackFiles

KIBIBYTE = 1024


@app.command(name="support-bundle")
def support_bundle(
    stack: Stack = DEFAULT_STACK,
    to: Annotated[
        Path | None,
        typer.Option(
            "--to", metavar="FILE", help="The file to write, or a directory for it. [default: here]"
        ),
    ] = None,
) -> None:
    """Pack status, settings, logs and configuration into one archive, without secrets.

    stdout lists what it holds and what was left out. Only your user can read the file.
    """
    files = StackFiles.look(stack)
    require_configured(files)
    now = datetime.now(tz=UTC)
    name = f"dify-support-{stack}-{now:%Y%m%d-%H%M%S}.tar.gz"
    target = to / name if to and to.is_dir() else to or Path(name)
    step(f"collecting what a report about stack {stack} needs")
    found = bundle.collect(files, lambda: engine_of(files, DockerEngine))
    typer.echo(bundle.write(found, target, now), nl=False)
    say(f"wrote {target} ({target.stat().st_size / KIBIBYTE:.0f} KiB); look through it before you pass it on")
