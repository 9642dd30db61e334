"""Call a Python client of docs/guides/clients.md with a clock that moves only when the client sleeps.

It runs in the client's own environment, next to the saved programs: `clients_clock.py sync|async STEPS`. STEPS is
JSON, a list of pairs: `["ask", 3]` sends three messages one after the other, `["together", 3]` at the same time,
`["stream", 1]` reads a stream, and `["later", 2]` moves the clock by two seconds. It prints JSON: the answers, the
seconds of each sleep, and the error.
"""

import asyncio
import importlib
import json
import sys
import threading
import time
from typing import Any

Steps = list[tuple[str, int]]


class Clock:
    """Seconds since the epoch, in one thread."""

    def __init__(self) -> None:
        self.now = self.started = time.time()
        self.slept: list[float] = []
        self.sleeper = threading.get_ident()
        self.really, self.really_async = time.sleep, asyncio.sleep

    def time(self) -> float:
        """Return the time."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Move by these seconds, without a delay."""
        if threading.get_ident() != self.sleeper:
            self.really(seconds)
            return
        self.slept.append(seconds)
        self.now += seconds

    async def sleep_async(self, seconds: float, result: object = None) -> object:
        """Do the same for asyncio, where a sleep of no time lets other tasks run."""
        if seconds:
            self.sleep(seconds)
        else:
            await self.really_async(0)
        return result


def call(steps: Steps, clock: Clock, answers: list[str]) -> None:
    """Take the steps with the client that blocks."""
    dify_client = importlib.import_module("dify_client")

    with dify_client.connect() as client:
        for step, number in steps:
            if step == "later":
                clock.now += number
            elif step == "stream":
                answers += [event["event"] for event in dify_client.stream(client, "Hello", "u-1")]
            else:
                answers += [dify_client.ask(client, f"Number {n}", "u-1")["answer"] for n in range(number)]


async def call_async(steps: Steps, clock: Clock, answers: list[str]) -> None:
    """Take the steps with the client of asyncio."""
    dify_async = importlib.import_module("dify_async")

    async with dify_async.connect() as client:
        for step, number in steps:
            messages = [
                dify_async.ask(client, f"Number {n}", "u-1") for n in range(number) if step != "later"
            ]
            if step == "later":
                clock.now += number
            elif step == "together":
                answers += await asyncio.gather(*messages)
            else:
                answers += [await message for message in messages]


def main(kind: str, steps: Steps) -> dict[str, Any]:
    """Take the steps; return what happened."""
    answers: list[str] = []
    clock, error = Clock(), ""
    time.time, time.sleep, asyncio.sleep = clock.time, clock.sleep, clock.sleep_async  # type: ignore[assignment]
    try:
        if kind == "sync":
            call(steps, clock, answers)
        else:
            asyncio.run(call_async(steps, clock, answers))
    except Exception as problem:  # noqa: BLE001  # any of the client's own
        error = f"{type(problem).__name__}: {problem}"
    return {
        "answers": answers,
        "slept": clock.slept,
        "seconds": clock.now - clock.started,
        "error": error,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1], json.loads(sys.argv[2]))))
