"""Shows a status on a terminal, on one screen, or as lines for a pipe."""

from collections.abc import Iterator
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dify_kit.watch.report import Rates, Service, Status

MEBIBYTE = 1024 * 1024
_UNFOLDED = 400
# Above this part of its limit, the memory of a container is marked.
MUCH = 0.9
READY = "ready"
_HEADINGS = ("service", "ready", "state", "health", "restarts", "memory", "image")
_MINUTE = 60
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"))


def show(status: Status, console: Console | None = None) -> None:
    """Print a status on stdout, or elsewhere."""
    if console is None:
        console = Console(highlight=False)
        if not console.is_terminal:
            # Lines of a file or a pipe are not folded: a folded name cannot be copied.
            console = Console(highlight=False, width=_UNFOLDED)
    facts = Table(box=None, show_header=False, pad_edge=False)
    for label, text in _facts(status, datetime.now(tz=UTC)):
        facts.add_row(Text(label, style="bold"), Text(text))
    console.print(facts)
    if status.services:
        console.print(_table(status.services))
        for line in _ends(status.services):
            console.print(Text(line, style="yellow"), soft_wrap=True)
    for problem in status.problems:
        console.print(Text(f"✗ {problem.what}", style="bold red"))
        if problem.hint:
            console.print(Text(f"  hint: {problem.hint}", style="cyan"), soft_wrap=True)
    if status.ok:
        console.print(Text("✓ no problem found", style="green"))


def _facts(status: Status, now: datetime) -> Iterator[tuple[str, str]]:
    dify = f"Dify {status.release}" if status.release else "Dify's release unknown"
    stand_in = " (stand-ins take the place of Dify's own services)" if status.stand_in else ""
    by = f", deployed by {status.deployed_by}" if status.deployed_by not in {"", status.kit} else ""
    yield f"stack {status.stack}", f"{dify}, images: {status.images}{stand_in}, kit {status.kit}{by}"
    if status.address:
        answers = {None: "", True: " answers", False: " does not answer"}[status.address.answers]
        at = f", {status.address.published}{answers}" if status.address.published else ""
        yield "address", f"{status.address.url}{at}"
    if one := status.certificate:
        yield (
            "certificate",
            f"{one.subject}, {one.days_left} days left ({one.ends:%Y-%m-%d}), {one.source}, issued by {one.issuer}",
        )
    if last := status.last_update:
        when = (
            f"{last.ended:%Y-%m-%d %H:%M} UTC ({_ago(now, last.ended)})"
            if last.ended
            else "at an unknown time"
        )
        yield "last up", f"{last.result or 'unknown'}, {when}"
    if when_backed_up := status.last_backup:
        yield "last backup", f"{when_backed_up:%Y-%m-%d %H:%M} UTC ({_ago(now, when_backed_up)})"
    if status.under_way:
        yield "under way", f"pulumi {status.under_way}"
    if status.revisions:
        yield (
            "revisions",
            ", ".join(f"{name} {one.running or 'unknown'}" for name, one in status.revisions.items()),
        )
    for number, (name, limit) in enumerate(status.limits.items()):
        yield "limits" if number == 0 else "", f"{name}: {limit}"
    if traffic := status.traffic:
        yield (
            "requests",
            f"{_rates(traffic.recent, traffic.seconds)} in the last {_duration(traffic.seconds)}",
        )
        yield "", f"{_rates(traffic.total)} since {traffic.since:%Y-%m-%d %H:%M} UTC"
    if status.upstreams is not None:
        failed = [
            f"{name} {', '.join(f'{code} x {times}' for code, times in found.items())}"
            for name, found in status.upstreams.items()
        ]
        yield "upstreams", f"failed this month: {'; '.join(failed)}" if failed else "no failure this month"


def _table(services: list[Service]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    # Every container of an engine is one of one: its state says the rest.
    several = any(one.pods for one in services)
    for heading in _HEADINGS:
        if heading != READY or several:
            table.add_column(
                heading, justify="right" if heading in {"restarts", "memory"} else "left", no_wrap=True
            )
    for one in services:
        style = "red" if one.problem else "dim" if one.job else ""
        state = f"{one.state} ({one.exit_code})" if one.state == "exited" else one.state
        memory = _memory(one)
        if one.memory_limit and one.memory >= MUCH * one.memory_limit:
            memory.stylize("yellow")
        ready = [f"{one.ready}/{one.wanted}" if not one.job else ""] if several else []
        table.add_row(
            one.service, *ready, state, one.health, str(one.restarts), memory, one.image, style=style
        )
    return table


def _ends(services: list[Service]) -> Iterator[str]:
    """Yield a line for each pod that has restarted or waits, and the newest warning about a service with a problem."""
    for one in services:
        for pod in one.pods:
            if pod.reason:
                again = f", {pod.restarts} restart(s)" if pod.restarts else ""
                yield f"pod {pod.name} {pod.state}{again}: {pod.reason}"
        if one.problem and one.last_warning:
            yield f"{one.service}: last warning: {one.last_warning}"


def _memory(one: Service) -> Text:
    limit = f" of {one.memory_limit // MEBIBYTE}" if one.memory_limit else ""
    return Text(f"{one.memory // MEBIBYTE}{limit} MiB" if one.memory else "")


def _rates(one: Rates, seconds: int = 0) -> str:
    a_second = f" ({one.requests / seconds:,.1f}/s)" if seconds else ""
    closed = f", {one.closed:,} closed by the client" if one.closed else ""
    return (
        f"{one.requests:,}{a_second}, {one.client_errors:,} with 4xx (429: {one.too_many:,}{closed}), "
        f"{one.server_errors:,} with 5xx"
    )


def _duration(seconds: int) -> str:
    return f"{seconds // _MINUTE} min {seconds % _MINUTE} s" if seconds >= _MINUTE else f"{seconds} s"


def _ago(now: datetime, then: datetime) -> str:
    seconds = max(0, int((now - then).total_seconds()))
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"
