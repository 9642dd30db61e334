"""`dify-kit scale`: what other numbers of pods cost, and the settings for them."""

import json
import re
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from dify_kit.app import DEFAULT_STACK, Stack, app
from dify_kit.commands.selected import locked, require_configured
from dify_kit.engine.cli import Pulumi
from dify_kit.errors import KitError, UsageError
from dify_kit.stack import changing, settings
from dify_kit.stack.changing import Change
from dify_kit.stack.cluster_objects import explained
from dify_kit.talk import say, warn
from dify_kit.workspace.files import StackFiles
from infra import hints
from infra.settings.kubernetes import SCALED

_WORD = re.compile(r"([a-z]+)=([0-9]{1,4})")


@app.command()
def scale(
    words: Annotated[
        list[str],
        typer.Argument(metavar="SERVICE=N...", help=f"How many pods of {', '.join(SCALED)}: api=3 web=2."),
    ],
    stack: Stack = DEFAULT_STACK,
    apply: Annotated[
        bool, typer.Option("--apply", help="Set it without a question. `up` puts it into effect.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON on stdout.")] = False,
) -> None:
    """Show what more or fewer pods of a service cost on a cluster, and set their number.

    Nothing is set where `up` would refuse it. On a terminal the command asks before it does.
    """
    changes = [_change(word, stack) for word in words]
    with locked(stack) as files:
        require_configured(files)
        refused = _show(files, changes, as_json=as_json)
        if refused:
            raise KitError(
                f"nothing was changed: `{hints.kit('up', stack=stack)}` would refuse it\n"
                + "\n".join(refused),
                settings.HINT,
            )
        if not (apply or (_at_a_terminal() and typer.confirm("Set it?", err=True))):
            say(
                f"nothing was changed; `{hints.kit('scale', words[0], *words[1:], '--apply', stack=stack)}` sets it"
            )
            return
        changing.apply(Pulumi(files=files), changes)
    say(f"set; `{hints.kit('up', stack=stack)}` puts it into effect")


def _change(word: str, stack: str) -> Change:
    found = _WORD.fullmatch(word)
    part = found[1] if found else word.partition("=")[0]
    if part not in SCALED:
        raise UsageError(
            f"{word}: no service of this name can be scaled; nothing was changed", hints.nearest(part, SCALED)
        )
    if not found:
        raise UsageError(
            f"{word}: not a service with a number of pods; nothing was changed",
            f"for example: {hints.kit('scale', f'{part}=2', stack=stack)}",
        )
    return Change(path=("kubernetes", "replicas", part), value=int(found[2]))


def _show(files: StackFiles, changes: Sequence[Change], *, as_json: bool) -> list[str]:
    """Print the plan. Returns why `up` would refuse it."""
    before = settings.checked(files)
    if before.kubernetes is None:
        raise KitError(
            "dify:platform is docker: one engine runs one container of each service, and more need a cluster",
            f"on one host: more processes by `{hints.assign('apiWorkers', stack=files.stack)}` and "
            f"`{hints.assign('celeryWorkers', stack=files.stack)}`; docs/guides/kubernetes.md has the cluster",
        )
    after = settings.sound(changing.planned(files, changes))
    from dify_kit.stack.scaling import plan  # noqa: PLC0415  # imports Pulumi, which takes a second
    from infra.engine.cluster_view import ClusterView  # noqa: PLC0415
    from infra.guards import cluster  # noqa: PLC0415

    chosen = after.kubernetes
    if chosen is None:
        return []
    with explained():
        view = ClusterView.of(chosen.kubeconfig, chosen.context)
        refused = [one.text(files.stack) for one in cluster.refusals(after, after.dify, chosen, view)]
        found = plan(before, after, view) if not refused else None
    if found is None:
        return refused
    if as_json:
        typer.echo(json.dumps(found.document(), indent=2))
    else:
        from dify_kit.stack.scaling_report import lines, warnings  # noqa: PLC0415

        for line in lines(found):
            typer.echo(line)
        for line in warnings(found):
            warn(line)
    return refused


def _at_a_terminal() -> bool:
    return sys.stdin.isatty()
