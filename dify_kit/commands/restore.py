"""`dify-kit restore`: a stack from an archive of `backup`."""

import time
from typing import Annotated

import typer

from dify_kit.app import Verbose, app
from dify_kit.backup import buckets, passphrases, reading
from dify_kit.backup.restoring import Wish, examine, platform_of, release_of
from dify_kit.backup.restoring import restore as restore_stack
from dify_kit.commands.backup import ArchiveName, PassphraseFile
from dify_kit.commands.selected import Minutes, locked
from dify_kit.containers.docker_host import DockerEngine
from dify_kit.deploying import summarise
from dify_kit.engine.cli import Pulumi
from dify_kit.errors import UsageError
from dify_kit.stack import callers
from dify_kit.stack.assignments import assigned
from dify_kit.talk import say, step
from dify_kit.workspace.files import check_stack_name
from infra.catalogue.releases import RELEASES
from infra.settings.kubernetes import KUBERNETES


@app.command()
def restore(  # noqa: PLR0917  # Typer calls it by name
    context: typer.Context,
    archive: ArchiveName,
    stack: Annotated[
        str,
        typer.Option(
            "--stack", "-s", metavar="NAME", help="Name of the stack to make. [default: the archive's]"
        ),
    ] = "",
    passphrase_file: PassphraseFile = None,
    replace: Annotated[
        str,
        typer.Option(
            "--replace", metavar="NAME", help="Delete the stack of this name, with its data, first."
        ),
    ] = "",
    release: Annotated[
        str, typer.Option("--release", help="A newer Dify release. [default: the archive's]")
    ] = "",
    http_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port to publish. [default: the archive's]")
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Another value of a plain setting, or of a part: platform=kubernetes; repeatable.",
        ),
    ] = None,
    skip_setup: Annotated[
        bool, typer.Option("--skip-setup", help="Trust that the engines are installed and running.")
    ] = False,
    verbose: Verbose = False,
    timeout: Minutes = 90,
) -> None:
    """Make a stack from an archive, on this machine, another one or a cluster, and deploy it.

    Compares every hash before it changes anything. Begun again after an interruption, it starts over.
    """
    began = time.monotonic()
    if release and release not in RELEASES:
        raise UsageError(f"--release {release}: unknown", f"one of {', '.join(RELEASES)}")
    passphrase = passphrases.known(passphrase_file)
    path = context.with_resource(reading.local(archive))
    checked = examine(path, passphrase)
    name = check_stack_name(stack or checked.about.stack)
    if replace and replace != name:
        raise UsageError(
            f"--replace {replace} does not name the stack that is made ({name})",
            "name the same stack twice, or leave the option out",
        )
    release_of(checked.about, release)
    parts = assigned(setting or (), name)
    if not skip_setup:
        from dify_kit.setup import run_setup  # noqa: PLC0415  # probes the machine when imported

        images = next((str(value) for path, value in reversed(parts) if path == ("images",)), "")
        cluster = platform_of(checked, parts) == KUBERNETES
        run_setup(images or checked.about.images, kubernetes=cluster)
    wish = Wish(
        archive=path,
        source=archive if buckets.is_place(archive) else str(path),
        passphrase=passphrase,
        stack=name,
        release=release,
        settings={"httpPort": http_port} if http_port else {},
        parts=parts,
        replace=bool(replace),
    )
    step(f"restoring stack {name}")
    with locked(name) as files:
        outcome = restore_stack(wish, checked, DockerEngine, deadline=timeout * 60, verbose=verbose)
        summarise(
            Pulumi(files=files).state(),
            outcome,
            name,
            time.monotonic() - began,
            issued=callers.have_keys(files),
        )
    say(f"restored from {wish.source}: rows and files are those of the archive")
