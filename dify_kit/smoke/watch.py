"""Runs the smoke tests at an interval, and serves the results of the last run to Prometheus."""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from dify_kit.smoke.metrics import SmokeMetrics
from dify_kit.smoke.run import Ended, run
from dify_kit.smoke.termination import terminable
from dify_kit.talk import say, warn
from dify_kit.watch.serving import ADDRESS, serving


def watch(  # noqa: PLR0917  # each is one option
    stack: str, options: Sequence[str], interval: float, deadline: float, port: int, runs: int = 0
) -> None:
    """Run every `interval` seconds and serve the results on 127.0.0.1, for ever or for a number of `runs`."""
    metrics = SmokeMetrics(target_of(stack, options))
    with serving(metrics, port), terminable():
        say(f"metrics: http://{ADDRESS}:{port}/metrics, a run every {interval:.0f} s, Ctrl-C ends")
        done = 0
        while True:
            began = time.monotonic()
            ended = run(stack, options, deadline=deadline, quiet=True)
            metrics.update(ended)
            report(ended)
            done += 1
            if done == runs:
                return
            time.sleep(max(0.0, interval - (time.monotonic() - began)))


def target_of(stack: str, options: Sequence[str]) -> str:
    """Return the address or the stack that the runs test."""
    words = [word for option in options for word in option.split("=", 1)]
    for name in ("--url", "--stack"):
        if name in words[:-1]:
            return words[words.index(name) + 1]
    return stack


def report(ended: Ended, tell: Callable[[str], None] = say) -> None:
    """Print a line for a run, and one for each failure."""
    at = datetime.fromtimestamp(ended.started, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    line = f"{at}, {ended.seconds:.1f} s: {ended.summary}"
    if ended.outcome == "passed":
        tell(line)
        return
    warn(line)
    for group in ended.results.get("groups", ()):
        for one in group["tests"]:
            if one["outcome"] == "failed":
                tell(f"  {group['name']}: {one['name']}: {one['wrong']}; fix: {one['fix']}")
