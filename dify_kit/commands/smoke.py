"""The command that runs the smoke tests, once or at an interval."""

from typing import Annotated

import typer

from dify_kit.app import DEFAULT_STACK, Stack, app
from dify_kit.errors import CancelledError, KitError, UsageError
from dify_kit.smoke.run import run
from dify_kit.smoke.watch import watch
from dify_kit.watch.serving import duration

PORT = 9469
DEADLINE = "20m"
FROM_STDIN = "-"


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def smoke(
    context: typer.Context,
    stack: Stack = DEFAULT_STACK,
    every: Annotated[
        str,
        typer.Option("--watch", metavar="INTERVAL", help="Run again every 90s, 5m or 1h, and serve metrics."),
    ] = "",
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="With --watch: the port of the metrics on 127.0.0.1.")
    ] = PORT,
    deadline: Annotated[
        str, typer.Option(metavar="TIME", help="Cancel a run after this time; it cleans up and fails.")
    ] = DEADLINE,
) -> None:
    """Run the smoke tests against a stack or an address, once or at an interval.

    All other options go to the tests: --url, -k, --browser. Exits with the code of the run.
    """
    limit = duration("--deadline", deadline)
    if every:
        interval = duration("--watch", every)
        _check_stdin(context.args)
        try:
            watch(stack, context.args, interval, limit, port)
        except KeyboardInterrupt:
            raise CancelledError("the watch was ended") from None
    try:
        ended = run(stack, context.args, deadline=limit, quiet=False)
    except KeyboardInterrupt:
        raise CancelledError("the run was cancelled") from None
    if ended.cancelled:
        raise KitError(
            f"the run was cancelled after {limit:.0f} s",
            "name a longer time with --deadline, or fewer tests with -k",
        )
    raise typer.Exit(ended.code)


def _check_stdin(options: list[str]) -> None:
    if any(option == FROM_STDIN or option.endswith(f"={FROM_STDIN}") for option in options):
        raise UsageError(
            "--watch: standard input can be read for one run only", "give the key in a file or a variable"
        )
