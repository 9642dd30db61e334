"""`python -m bench [NAME...]`: measure, and write the results."""

import shlex
import signal
import sys
import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from bench import backup, compare, edge, llm, oauth, report, streams, up
from bench.capacity import bench as capacity
from bench.faults import bench as faults
from bench.faults.strikes import CLOCK, FAULTS
from dify_kit.errors import KitError
from dify_kit.talk import fail, say, step

TERMINATED = 143


class Bench(StrEnum):
    """What can be measured, in the order of a full run, which leaves `compare` out."""

    UP = "up"
    EDGE = "edge"
    OAUTH = "oauth"
    LLM = "llm"
    SSE = "sse"
    SOAK = "soak"
    CAPACITY = "capacity"
    FAULTS = "faults"
    BACKUP = "backup"
    COMPARE = "compare"


def _stop(_number: int, _frame: FrameType | None) -> None:
    # As an exception, so that everything that was started is removed.
    raise SystemExit(TERMINATED)


def main(  # noqa: PLR0917  # Typer calls it by name
    names: Annotated[
        list[Bench] | None, typer.Argument(help="What to measure; everything by default.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, max=50, help="Interleaved rounds of each comparison.")] = 5,
    seconds: Annotated[
        int, typer.Option(min=1, max=120, help="Seconds of load for each proxy and round.")
    ] = 10,
    mebibytes: Annotated[
        int, typer.Option(min=2, max=1 << 20, help="What `backup` has in the database, and again in files.")
    ] = 1024,
    base: Annotated[str, typer.Option(metavar="COMMIT", help="What `compare` compares with.")] = "",
    move_clock: Annotated[
        bool, typer.Option("--move-clock", help="`faults` also moves the clock of this machine, and back.")
    ] = False,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the results are written.")] = report.RESULTS,
) -> None:
    """Measure the kit beside its peers and write a table and JSON for each bench."""
    signal.signal(signal.SIGTERM, _stop)
    command = shlex.join(["python", "-m", "bench", *sys.argv[1:]])
    benches: Mapping[Bench, Callable[[], report.Report]] = {
        Bench.UP: lambda: up.run(command, rounds=rounds),
        Bench.EDGE: lambda: edge.run(command, rounds=rounds, seconds=seconds),
        Bench.OAUTH: lambda: oauth.run(command, rounds=rounds, seconds=seconds),
        Bench.LLM: lambda: llm.run(command, rounds=rounds, seconds=seconds),
        Bench.SSE: lambda: streams.lag(command, rounds=rounds),
        Bench.SOAK: lambda: streams.soak(command),
        Bench.CAPACITY: lambda: capacity.run(command, rounds=rounds, seconds=seconds),
        Bench.FAULTS: lambda: faults.run(command, faults=(*FAULTS, *(CLOCK if move_clock else ()))),
        Bench.BACKUP: lambda: backup.run(command, rounds=rounds, mebibytes=mebibytes),
        Bench.COMPARE: lambda: compare.run(command, base=base, rounds=rounds, seconds=seconds),
    }
    failed = 0
    for name in names or [one for one in Bench if one is not Bench.COMPARE]:
        step(f"bench/{name}")
        began = time.monotonic()
        try:
            result = benches[name]()
            typer.echo(report.write(result, out))
            say(f"measured in {time.monotonic() - began:.0f} s")
            if result.problem:
                raise KitError(result.problem, f"see {out / name}.md")  # noqa: TRY301  # told like any other
        except KitError as problem:
            # The others are measured all the same: a full run takes long.
            fail(problem)
            failed = problem.exit_code
    raise typer.Exit(failed)


if __name__ == "__main__":
    typer.run(main)
