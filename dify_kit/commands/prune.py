"""`dify-kit prune`: what no stack of this machine needs any more, and its removal."""

import json
import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from dify_kit.app import app
from dify_kit.errors import KitError, UsageError
from dify_kit.images.ticks import size_text
from dify_kit.pruning import archives, caches, images
from dify_kit.pruning.leftover import Leftover
from dify_kit.talk import say, warn
from dify_kit.workspace.files import DataDir
from infra import hints


@app.command()
def prune(
    yes: Annotated[bool, typer.Option("--yes", help="Remove without a question what is listed.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the list as JSON on stdout, and remove nothing.")
    ] = False,
) -> None:
    """Remove images, archives and caches that no stack of this machine needs.

    Lists them with their sizes first, and asks. Data of a stack, volumes, images of containers and images that are
    not of Dify or of the kit stay. Without a terminal nothing is removed unless --yes is given.
    """
    if yes and as_json:
        raise UsageError("--json removes nothing, so --yes has no effect", "leave one of them out")
    found = list(_found(DataDir.locate()))
    if as_json:
        document = {"bytes": sum(one.size for one in found), "leftovers": [one.document() for one in found]}
        typer.echo(json.dumps(document, indent=2))
        return
    if not found:
        say("nothing is left over")
        return
    for one in found:
        typer.echo(f"{one.kind:<8}{size_text(one.size):>10}  {one.name}  ({one.why})")
    total = size_text(sum(one.size for one in found))
    say(f"{len(found)} thing(s), {total}; images share layers, so less may become free")
    if not yes and not (sys.stdin.isatty() and typer.confirm("Remove them?", err=True)):
        say(f"nothing was removed; `{hints.kit('prune', '--yes')}` removes them without a question")
        return
    _remove(found)


def _found(data: DataDir) -> Iterator[Leftover]:
    # Before anything is listed, what stacks need has to be known.
    kept = images.needed(data)
    yield from images.leftovers(images.DockerStore(), kept)
    yield from archives.leftovers(data)
    yield from caches.leftovers()


def _remove(found: list[Leftover]) -> None:
    """Remove each thing; one that cannot be removed keeps none of the others. Raises KitError when one stayed."""
    stayed = []
    for one in found:
        try:
            one.remove()
        except KitError as problem:
            warn(problem.message)
            stayed.append(one)
    gone = [one for one in found if one not in stayed]
    say(f"removed {len(gone)} thing(s), {size_text(sum(one.size for one in gone))}")
    if stayed:
        raise KitError(
            f"{len(stayed)} thing(s) could not be removed: {', '.join(one.name for one in stayed)}",
            "the lines above have the reasons",
        )
