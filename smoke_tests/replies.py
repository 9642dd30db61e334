"""The text, conversation and faults of a streamed answer, independent of a release's order of events.

Clients print `message` texts on arrival, stop at `message_end`, handle `error`, and store the ids. Dify 1.14 and
later send `workflow_finished` after `message_end`, earlier releases before it; 1.17 sends text before its node starts;
pings occur anywhere. Nothing here depends on that.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from smoke_tests import sse

TEXT = ("message", "agent_message")
# The same in every event that has them, so that a client may read them from any.
IDS = ("conversation_id", "message_id", "task_id", "workflow_run_id")


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A streamed answer: its whole text, its conversation id, and a message for each fault."""

    text: str
    conversation: str
    faults: tuple[str, ...]


def read(received: Iterable[sse.Event]) -> Reply:
    """Return the reply of a finished stream, with its faults."""
    faults: list[str] = []
    events: list[dict[str, Any]] = []
    for event in received:
        # A ping of Dify has no data; a proxy or a later release may add some.
        if event.name == "ping" or not event.data:
            continue
        try:
            events.append(event.json())
        except ValueError as problem:
            faults.append(f"an event is not a JSON object: {problem}")
    events = [one for one in events if one.get("event") != "ping"]
    faults += _ends(events) + _ids(events)
    return Reply(text=_text(events), conversation=_first(events, "conversation_id"), faults=tuple(faults))


def _ends(events: Sequence[dict[str, Any]]) -> list[str]:
    """Return what is wrong with the end of the stream."""
    names = [str(one.get("event")) for one in events]
    faults = [f"an error event: {one}" for one in events if one.get("event") == "error"]
    if names.count("message_end") != 1:
        faults.append(f"message_end occurs {names.count('message_end')} times, once expected: {names}")
    elif late := [name for name in names[names.index("message_end") :] if name in TEXT]:
        faults.append(f"text after message_end, where clients stop reading: {late}")
    finished = [one for one in events if one.get("event") == "workflow_finished"]
    if "workflow_started" in names and not finished:
        faults.append(f"workflow_started without workflow_finished: {names}")
    faults += [
        f"the workflow ended with status {found}"
        for one in finished
        if (found := _status(one)) != "succeeded"
    ]
    return faults


def _status(finished: dict[str, Any]) -> str:
    return str((finished.get("data") or {}).get("status", "succeeded"))


def _ids(events: Sequence[dict[str, Any]]) -> list[str]:
    """Return what is wrong with the ids: each must be the same in all events, and a conversation id is required."""
    faults = []
    for name in IDS:
        found = {str(one[name]) for one in events if one.get(name)}
        if len(found) > 1:
            faults.append(f"{name} changes within the answer: {sorted(found)}")
    if not _first(events, "conversation_id"):
        faults.append("no event has a conversation_id")
    return faults


def _text(events: Sequence[dict[str, Any]]) -> str:
    """Return the final text of a client; `message_replace` replaces all text before it."""
    text = ""
    for one in events:
        if one.get("event") in TEXT:
            text += str(one.get("answer") or "")
        elif one.get("event") == "message_replace":
            text = str(one.get("answer") or "")
    return text


def _first(events: Sequence[dict[str, Any]], name: str) -> str:
    return next((str(one[name]) for one in events if one.get(name)), "")
