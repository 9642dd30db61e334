"""The command that shows what callers of the LLM proxy used."""

import json
from typing import Annotated, Any

import docker
import typer
from docker.models.containers import Container, ExecResult
from rich.console import Console
from rich.table import Column, Table

from dify_kit.app import DEFAULT_STACK, Stack, app
from dify_kit.errors import KitError
from dify_kit.pulumi_cli import Pulumi
from dify_kit.stack_files import StackFiles
from dify_kit.talk import say
from infra import engine, ports

URL = f"http://127.0.0.1:{ports.EDGE_STATUS}/usage"
SECONDS = 10
ENGINE_SECONDS = 30
ASK_TIMES = 5
HEADINGS = ("requests", "failed", "estimated", "in", "out", "cost")
FIELDS = ("requests", "failed", "estimated", "tokens_in", "tokens_out", "cost")


@app.command()
def usage(
    stack: Stack = DEFAULT_STACK,
    month: Annotated[
        str, typer.Option(metavar="YYYY-MM", help="One month (UTC). [default: the newest one]")
    ] = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON on stdout: every month, or the chosen one.")
    ] = False,
) -> None:
    """Show tokens and cost of the LLM proxy by caller and model."""
    months = read(StackFiles.open(stack))
    chosen = month or max(months, default="")
    if as_json:
        typer.echo(json.dumps({month: months.get(month, {})} if month else months, indent=2, sort_keys=True))
        return
    rows = rows_of(months.get(chosen, {}))
    if not rows:
        say(f"nothing was used{' in ' + chosen if chosen else ''}")
        return
    table = Table(*(Column(name, overflow="fold") for name in ("caller", "model", *HEADINGS)), title=chosen)
    for caller, model, numbers in rows:
        table.add_row(caller, model, *(_text(name, numbers[name]) for name in FIELDS))
    table.add_section()
    table.add_row("all", "", *(_text(name, sum(row[2][name] for row in rows)) for name in FIELDS))
    Console(width=None).print(table)


def rows_of(callers: dict[str, Any]) -> list[tuple[str, str, dict[str, float]]]:
    """Return caller, model and numbers, every number named."""
    return [
        (caller, model, {name: float(numbers.get(name) or 0) for name in FIELDS})
        for caller, models in sorted(callers.items())
        for model, numbers in sorted(models.items())
    ]


def _text(name: str, value: float) -> str:
    return f"${value:,.4f}" if name == "cost" else f"{value:,.0f}"


def _asked(nginx: Container) -> ExecResult:
    # An engine under load now and then loses what a command printed, and tells its exit code all the same.
    for _ in range(ASK_TIMES):
        ran = nginx.exec_run(["curl", "-fsS", "--max-time", str(SECONDS), URL])
        if ran.exit_code != 0 or ran.output:
            break
    return ran


def read(files: StackFiles) -> dict[str, Any]:
    """Ask the running nginx: month -> caller -> model -> numbers. Raises KitError."""
    container = (Pulumi(files=files).state().outputs.get("containers") or {}).get("nginx")
    if not container:
        raise KitError(f"stack {files.stack} is not deployed", "`make up` deploys it")
    try:
        found = engine.client(ENGINE_SECONDS).containers.get(container)
        ran = _asked(found)
    except docker.errors.DockerException as problem:
        raise KitError(f"{container} cannot be asked: {problem}", "`make doctor` has a look") from None
    output = bytes(ran.output)  # type: ignore[arg-type]  # an iterator only when asked for one
    if ran.exit_code != 0:
        raise KitError(
            f"{container} counts nothing: {output.decode(errors='replace').strip()[-200:]}",
            "is dify:llm.enabled true, and deployed by `make up`?",
        )
    return dict(json.loads(output)["months"])
