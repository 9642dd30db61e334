"""bench/up: how long a second `make up` takes that has nothing to do, beside plain `pulumi up`."""

import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench import machine
from bench.report import Report, Table
from bench.rounds import interleaved, median
from dify_kit.errors import KitError
from dify_kit.talk import say
from support.stacks import CHECKOUT, KIT, UP_SECONDS, Stack

PROMISE_SECONDS = 15
SAME = "the same"
MAKE, PULUMI = "make up", "pulumi up"
COMMANDS: Mapping[str, str] = {
    MAKE: "make up STACK=...: packages, set-up checks, clean-up, `pulumi up --refresh`",
    PULUMI: "pulumi up --yes --skip-preview: the same program and state, without refresh",
}


def changes(history: str) -> dict[str, int]:
    """Return what the newest update of `pulumi stack history --json` did, without what stayed the same."""
    newest = json.loads(history)[0]
    if newest["result"] != "succeeded":
        raise KitError(f"the newest update ended as {newest['result']}", "see the lines above")
    counts: dict[str, int] = newest.get("resourceChanges") or {}
    return {operation: count for operation, count in counts.items() if operation not in {"same", "read"}}


def _timed(command: list[str], environment: Mapping[str, str]) -> float:
    """Run a command in the checkout and return its seconds. Raises KitError with its last words."""
    started = time.monotonic()
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        timeout=UP_SECONDS,
        cwd=CHECKOUT,
        env=dict(environment),
    )
    if done.returncode != 0:
        raise KitError(f"`{' '.join(command)}` failed:\n{(done.stderr + done.stdout)[-3000:]}")
    return time.monotonic() - started


def _make(stack: Stack) -> float:
    return _timed(["make", "up", f"STACK={stack.name}"], stack.environment)


def _pulumi(stack: Stack) -> float:
    # Prepared before the clock runs, as in an operator's shell.
    prepared = subprocess.run(
        ["bash", "-c", f'eval "$({KIT} env --stack {stack.name})" && env -0'],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=CHECKOUT,
        env=stack.environment,
    ).stdout
    environment = dict(line.split("=", 1) for line in prepared.split("\0") if line)
    return _timed(["pulumi", "up", "--yes", "--skip-preview", "--stack", stack.name], environment)


def run(command: str, *, rounds: int) -> Report:
    """Deploy a stack of its own, measure its no-change runs, remove it, and return the report."""
    facts = machine.facts()
    measures: Mapping[str, Callable[[Stack], float]] = {MAKE: _make, PULUMI: _pulumi}
    raw: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="dify-kit-bench-") as home:
        stack = Stack(home=Path(home))
        try:
            say(f"deploying stack {stack.name} on port {stack.port}; it is removed at the end")
            created = stack.init()
            if created.code != 0:
                raise KitError(f"`dify-kit init` failed:\n{created.output[-3000:]}")
            first = _make(stack)
            say(f"  first `make up`: {first:.1f} s")
            containers = stack.containers()
            for turn in interleaved(list(measures), rounds):
                seconds = measures[turn.name](stack)
                done = changes(stack.pulumi("stack", "history", "--json", "--page-size", "1").stdout)
                same = stack.containers() == containers
                say(
                    f"  round {turn.round} of {rounds}: {turn.name:<10} {seconds:5.1f} s, changes: {done or 'none'}"
                )
                raw.append(
                    {
                        "round": turn.round,
                        "command": turn.name,
                        "seconds": seconds,
                        "changes": sum(done.values()),
                        "containers": SAME if same else "others",
                    }
                )
        finally:
            stack.remove()
    return report_of(command, raw, first=first, rounds=rounds, facts=facts)


def report_of(
    command: str, raw: list[dict[str, Any]], *, first: float, rounds: int, facts: Mapping[str, str]
) -> Report:
    """Return the report of rounds that were measured; `first` is the seconds of the first `make up`."""
    found = {
        name: median([one for one in raw if one["command"] == name], lambda one: float(one["seconds"]))
        for name in (MAKE, PULUMI)
    }
    replaced = [one["round"] for one in raw if one["containers"] != SAME]
    changed = {name: sum(one["changes"] for one in raw if one["command"] == name) for name in found}
    return Report(
        name="up",
        title="A second `make up` that has nothing to do",
        command=command,
        machine=facts,
        parameters={"rounds": rounds, "first `make up` in seconds": round(first, 1)},
        tables=(
            Table(
                title="Medians",
                columns=("command", "seconds", "ratio to plain pulumi up", "creates, updates, replaces"),
                rows=tuple(
                    (name, seconds, seconds / found[PULUMI], changed[name]) for name, seconds in found.items()
                ),
            ),
        ),
        notes=(f"promised: under {PROMISE_SECONDS} s, and no change", *COMMANDS.values()),
        raw=raw,
        problem="a run that had nothing to do changed something" if replaced or any(changed.values()) else "",
        summary={"seconds": found, "changes": changed, "ratio": found[MAKE] / found[PULUMI], "first": first},
    )
