"""The commands about what callers of the LLM proxy used: show it, and let a caller begin again."""

import json
from typing import Annotated, Any
from urllib.parse import quote

import docker
import typer
from docker.models.containers import Container, ExecResult
from rich.console import Console
from rich.table import Column, Table

from dify_kit.app import COMMANDS, DEFAULT_STACK, Group, Stack, app
from dify_kit.engine.cli import Pulumi
from dify_kit.errors import KitError
from dify_kit.talk import say
from dify_kit.workspace.files import StackFiles
from infra import engine
from infra.catalogue import ports

URL = f"http://127.0.0.1:{ports.EDGE_STATUS}/usage"
SECONDS = 10
ENGINE_SECONDS = 30
ASK_TIMES = 5
HEADINGS = ("requests", "failed", "estimated", "in", "out", "cost")
FIELDS = ("requests", "failed", "estimated", "tokens_in", "tokens_out", "cost")


commands = typer.Typer(cls=Group, name="usage", help=COMMANDS["usage"], invoke_without_command=True)
app.add_typer(commands)


@commands.callback()
def usage(
    context: typer.Context,
    stack: Stack = DEFAULT_STACK,
    month: Annotated[
        str, typer.Option(metavar="YYYY-MM", help="One month (UTC). [default: the newest one]")
    ] = "",
    upstreams: Annotated[
        bool, typer.Option("--upstreams", help="Failures of each upstream, by status, and nothing else.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON on stdout: every month, or the chosen one.")
    ] = False,
) -> None:
    """Show tokens and cost of the LLM proxy by caller and model, and how often upstreams failed."""
    if context.invoked_subcommand:
        return
    answer = document(StackFiles.open(stack))
    months = answer["upstreams" if upstreams else "months"]
    chosen = month or max((*answer["months"], *answer["upstreams"]), default="")
    if as_json:
        typer.echo(json.dumps({month: months.get(month, {})} if month else months, indent=2, sort_keys=True))
        return
    rows = [] if upstreams else rows_of(answer["months"].get(chosen, {}))
    failures = failures_of(answer["upstreams"].get(chosen, {}))
    if not rows and not failures:
        say(f"nothing was used{' in ' + chosen if chosen else ''}")
        return
    console = Console(width=None)
    if rows:
        table = Table(
            *(Column(name, overflow="fold") for name in ("caller", "model", *HEADINGS)), title=chosen
        )
        for caller, model, numbers in rows:
            table.add_row(caller, model, *(_text(name, numbers[name]) for name in FIELDS))
        table.add_section()
        table.add_row("all", "", *(_text(name, sum(row[2][name] for row in rows)) for name in FIELDS))
        console.print(table)
    if failures:
        table = Table("upstream", "failed with", "times", title=f"{chosen}, failures of upstreams")
        for upstream, status, times in failures:
            table.add_row(upstream, "200, an error or nothing" if status == "200" else status, f"{times:,}")
        console.print(table)


@commands.command()
def reset(
    caller: Annotated[str, typer.Argument(metavar="CALLER", help="As `dify-kit usage` shows it: key:web.")],
    stack: Stack = DEFAULT_STACK,
) -> None:
    """Forget what a caller used this month, so that its budget begins again. Earlier months stay."""
    files = StackFiles.open(stack)
    asked = ["curl", "-fsS", "--max-time", str(SECONDS), "-X", "POST"]
    answer = json.loads(_of_nginx(files, [*asked, f"{URL}/reset?caller={quote(caller, safe='')}"]))
    if not answer["counters"]:
        raise KitError(f"{caller} used nothing in {answer['month']}", "`dify-kit usage` lists the callers")
    say(f"{caller} starts at zero: its use in {answer['month']} is forgotten")


def rows_of(callers: dict[str, Any]) -> list[tuple[str, str, dict[str, float]]]:
    """Return caller, model and numbers, every number named."""
    return [
        (caller, model, {name: float(numbers.get(name) or 0) for name in FIELDS})
        for caller, models in sorted(callers.items())
        for model, numbers in sorted(models.items())
    ]


def failures_of(upstreams: dict[str, Any]) -> list[tuple[str, str, int]]:
    """Return upstream, status and how often."""
    return [
        (upstream, status, int(times))
        for upstream, statuses in sorted(upstreams.items())
        for status, times in sorted(statuses.items())
    ]


def _text(name: str, value: float) -> str:
    return f"${value:,.4f}" if name == "cost" else f"{value:,.0f}"


def _asked(nginx: Container, command: list[str]) -> ExecResult:
    # An engine under load now and then loses what a command printed, and tells its exit code all the same.
    for _ in range(ASK_TIMES):
        ran = nginx.exec_run(command)
        if ran.exit_code != 0 or ran.output:
            break
    return ran


def document(files: StackFiles) -> dict[str, Any]:
    """Ask the running nginx. Raises KitError.

    `months`: month -> caller -> model -> numbers. `upstreams`: month -> upstream -> status -> failures.
    """
    answer = json.loads(_of_nginx(files, ["curl", "-fsS", "--max-time", str(SECONDS), URL]))
    return {"months": dict(answer["months"]), "upstreams": dict(answer.get("upstreams") or {})}


def _of_nginx(files: StackFiles, command: list[str]) -> bytes:
    container = (Pulumi(files=files).state().outputs.get("containers") or {}).get("nginx")
    if not container:
        raise KitError(f"stack {files.stack} is not deployed", "`make up` deploys it")
    try:
        found = engine.client(ENGINE_SECONDS).containers.get(container)
        ran = _asked(found, command)
    except docker.errors.DockerException as problem:
        raise KitError(f"{container} cannot be asked: {problem}", "`make doctor` checks it") from None
    output = bytes(ran.output)  # type: ignore[arg-type]  # an iterator only when asked for one
    if ran.exit_code != 0:
        raise KitError(
            f"{container} counts nothing: {output.decode(errors='replace').strip()[-200:]}",
            "is dify:llm.enabled true, and deployed by `make up`?",
        )
    return output
