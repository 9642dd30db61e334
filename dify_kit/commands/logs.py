"""`dify-kit logs`: what the services of a stack log, together and by time, without secrets."""

import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Annotated

import typer

from dify_kit.app import DEFAULT_STACK, Stack, app
from dify_kit.commands.selected import require_configured
from dify_kit.containers.docker_host import Container, DockerEngine
from dify_kit.errors import KitError
from dify_kit.stack.cluster_objects import engine_of
from dify_kit.talk import warn
from dify_kit.watch import logs as watch
from dify_kit.watch.known_secrets import known
from dify_kit.watch.logs import Follower, Line, noticed
from dify_kit.workspace.files import StackFiles
from infra import hints
from infra.masking import Redactor

# Of each service, where nothing else is said.
LINES = 100
INTERRUPTED = 130
# Lines that are masked together.
CHUNK = 500
# Marks what the platform reports among the lines of a service.
EVENT = "[event]"
_COLOURS = ("36", "33", "32", "35", "34", "31")


@app.command()
def logs(
    services: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SERVICE]...", help="Services and jobs; all of them when left out."),
    ] = None,
    *,
    stack: Stack = DEFAULT_STACK,
    since: Annotated[
        str, typer.Option(metavar="TIME", help="Only newer lines: 90s, 10m, 2h, 3d, or a time (UTC).")
    ] = "",
    tail: Annotated[
        int | None,
        typer.Option(
            min=0, metavar="N", help=f"The last N lines of each. [default: {LINES}; all with --since]"
        ),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show new lines until Ctrl-C.")] = False,
    times: Annotated[bool, typer.Option("--times", "-t", help="Show the time of each line.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print each line as a JSON object.")] = False,
) -> None:
    """Show the logs of the stack's services, by time; secrets are masked.

    Jobs, such as the migration, are services too. On a cluster, lines of a service with several pods begin with the
    pod, and its warnings (Events) are lines as well.
    """
    moment = watch.since_of(since, time.time()) if since else None
    files = StackFiles.look(stack)
    require_configured(files)
    engine = engine_of(files, DockerEngine)
    containers = engine.workloads(stack)
    if not containers:
        raise KitError(f"stack {stack} is not deployed", f"{hints.kit('up', stack=stack)} deploys it")
    found = watch.chosen(services or [], containers, stack)
    masked = known(files, containers)
    for line in masked.missing:
        warn(f"{line}; only what has the form of a secret is masked of them")
    lines = tail if tail is not None or since else LINES
    wanted = {one.service for one in found}
    screen = _Screen(found, masked.redact, times=times, as_json=as_json)
    began = time.time()
    try:
        past = watch.past(found, lines=lines, since=moment)
        if lines != 0:
            past = sorted([*past, *noticed(engine.notices(stack), wanted, since=moment)], key=_time)
        screen.show(past)
        if follow:
            follower = Follower(engine, stack, wanted, began)
            follower.seen(past)
            follower.run(screen.show)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def _time(line: Line) -> str:
    return line.time


class _Screen:
    """Prints lines on stdout, each with the name of its service: in colour on a terminal, or as JSON.

    Where a service has several pods, it is the name of the pod.
    """

    def __init__(
        self, containers: Sequence[Container], redact: Redactor, *, times: bool, as_json: bool
    ) -> None:
        self._redact = redact
        self._times = times
        self._json = as_json
        # The pods of each service that were seen.
        self._pods: dict[str, set[str]] = {}
        for one in containers:
            self._pods.setdefault(one.service, set()).update({one.pod} - {""})
        self._width = max((len(self._label(one.service, one.pod)) for one in containers), default=0)
        coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        names = sorted(self._pods)
        self._colours = (
            {name: _COLOURS[number % len(_COLOURS)] for number, name in enumerate(names)} if coloured else {}
        )

    def show(self, lines: Sequence[Line]) -> None:
        """Print lines, secrets masked."""
        for first in range(0, len(lines), CHUNK):
            some = lines[first : first + CHUNK]
            rows = map(self._row, some, self._masked([line.text for line in some]))
            sys.stdout.write("".join(f"{row}\n" for row in rows))
        sys.stdout.flush()

    def _label(self, service: str, pod: str) -> str:
        """Return what tells a line's origin: the pod, where the service has several."""
        return pod if pod and len(self._pods.get(service, ())) > 1 else service

    def _masked(self, texts: Sequence[str]) -> Sequence[str]:
        """Mask many lines together, which is far faster; one by one where a secret goes over several."""
        found = self._redact("\n".join(texts)).split("\n")
        return found if len(found) == len(texts) else [self._redact(text) for text in texts]

    def _row(self, line: Line, text: str) -> str:
        if self._json:
            more = {**({"pod": line.pod} if line.pod else {}), **({"event": True} if line.event else {})}
            found = {"time": line.time, "service": line.service, **more, "line": text}
            return json.dumps(found, ensure_ascii=False)
        if line.pod and not line.event:
            self._pods.setdefault(line.service, set()).add(line.pod)
        name = f"{self._label(line.service, line.pod):<{self._width}} |"
        text = f"{EVENT} {text}" if line.event else text
        if colour := self._colours.get(line.service):
            name = f"\x1b[{colour}m{name}\x1b[0m"
        return f"{name} {line.time} {text}" if self._times else f"{name} {text}"
