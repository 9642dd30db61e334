"""Streamed answers of real releases, for tests of what reads them. Each is the same question to the same app.

1.17 was recorded whole. The recording of 1.12.1 is cut in its second node; what follows is 1.17's, in the order in
which 1.12.1 sends it. No stream of 1.14 was kept: it is 1.12.1's with what was seen to differ, a ping in front and
`workflow_finished` at the end.
"""

import json
from pathlib import Path
from typing import Any

FACTS = Path(__file__).resolve().parents[1] / "facts"
PING = "event: ping"
IDS = ("conversation_id", "message_id", "task_id", "workflow_run_id")
ANSWER = "You said: hello"


def recorded(file: str, case: str = "streaming") -> dict[str, Any]:
    """Return one recorded request with its answer."""
    lines = (FACTS / file).read_text(encoding="utf-8").splitlines()
    return next(found for line in lines if (found := json.loads(line))["case"] == case)


def blocks(text: str) -> list[str]:
    """Return the complete events of a stream, as text."""
    return [block for block in text.split("\n\n")[:-1] if block]


def name(block: str) -> str:
    """Return what an event is."""
    return "ping" if block == PING else str(json.loads(block.removeprefix("data: "))["event"])


def newest() -> list[str]:
    """Return the stream of 1.17."""
    return blocks(recorded("answers-1.17-pre.jsonl")["body"])


def oldest() -> list[str]:
    """Return the stream of 1.12.1, completed."""
    first = blocks(recorded("answers-1.12.1.jsonl")["body"])
    ours = json.loads(first[0].removeprefix("data: "))
    tail = newest()[-4:]
    assert [name(block) for block in tail] == [
        "node_started",
        "node_finished",
        "message_end",
        "workflow_finished",
    ]
    started, finished, end, done = (json.loads(block.removeprefix("data: ")) for block in tail)
    rest = []
    for event in (started, finished, done, end):
        same = [key for key in (*IDS, "created_at") if key in event]
        made = event | {key: ours[key] for key in same}
        rest.append(f"data: {json.dumps(made, separators=(',', ':'))}")
    return [*first, *rest]


def middle() -> list[str]:
    """Return the stream of 1.14, as far as it is known."""
    whole = oldest()
    return [PING, *whole[:-2], whole[-1], whole[-2]]


STREAMS = {"1.12.1": oldest, "1.14": middle, "1.17": newest}


def joined(events: list[str]) -> bytes:
    """Return events as they travel."""
    return "".join(f"{event}\n\n" for event in events).encode()
