"""`dify-kit metrics`: how a stack is, as metrics of Prometheus."""

import time
from pathlib import Path
from typing import Annotated

import typer
from prometheus_client import CollectorRegistry, generate_latest

from dify_kit.app import DEFAULT_STACK, Stack, app
from dify_kit.commands.selected import require_configured
from dify_kit.containers.docker_host import DockerEngine
from dify_kit.errors import CancelledError, KitError
from dify_kit.smoke.termination import terminable
from dify_kit.stack.cluster_objects import engine_of
from dify_kit.talk import say
from dify_kit.upgrade import incomplete
from dify_kit.watch import status
from dify_kit.watch.metrics import StackMetrics
from dify_kit.watch.serving import ADDRESS, duration, serving
from dify_kit.workspace.files import StackFiles, write_private

PORT = 9470


@app.command()
def metrics(
    stack: Stack = DEFAULT_STACK,
    every: Annotated[
        str,
        typer.Option(
            "--serve", metavar="INTERVAL", help="Look again every 30s, 5m or 1h, and serve the metrics."
        ),
    ] = "",
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="With --serve: the port of the metrics on 127.0.0.1.")
    ] = PORT,
    to: Annotated[
        str,
        typer.Option("--to", metavar="FILE", help="Write them to a file, in one step, instead of stdout."),
    ] = "",
) -> None:
    """Show how a stack is as metrics of Prometheus, once or at an interval.

    Services, restarts, memory, certificate, last backup, last deployment, live configurations, failures of upstreams:
    what `status` shows. Requests, latency and the LLM proxy: what nginx counted. Exits with 0 also when the stack has
    problems: alert rules evaluate them.
    """
    files = StackFiles.look(stack)
    require_configured(files)
    found = StackMetrics(stack)
    if every:
        _serve(files, found, duration("--serve", every), port)
    _look(files, found)
    registry = CollectorRegistry()
    registry.register(found)
    text = generate_latest(registry).decode()
    if to:
        _write(Path(to).expanduser(), text)
    else:
        typer.echo(text, nl=False)


def _serve(files: StackFiles, found: StackMetrics, interval: float, port: int) -> None:
    """Look at the stack at an interval until Ctrl-C. Raises CancelledError."""
    try:
        with serving(found, port), terminable():
            say(f"metrics: http://{ADDRESS}:{port}/metrics, a look every {interval:.0f} s, Ctrl-C ends")
            while True:
                began = time.monotonic()
                _look(files, found)
                time.sleep(max(0.0, interval - (time.monotonic() - began)))
    except KeyboardInterrupt:
        raise CancelledError("serving was ended") from None


def _look(files: StackFiles, found: StackMetrics) -> None:
    began = time.monotonic()
    seen = status.gather(files, connect=lambda: engine_of(files, DockerEngine))
    incomplete.note(files, seen)
    found.update(seen, time.monotonic() - began)


def _write(path: Path, text: str) -> None:
    """Put a complete file in place, which node_exporter's textfile collector may read at any moment."""
    try:
        write_private(path, text)
        path.chmod(0o644)
    except OSError as problem:
        raise KitError(
            f"--to {path}: {problem.strerror}", "name a file in a directory that you may write to"
        ) from None
