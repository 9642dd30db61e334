"""What a client gets out of a streamed answer, and what is wrong with it, whatever the release's order of events is.

Clients print `message` texts as they come, leave at `message_end`, look for `error`, and keep the ids. Dify 1.14 and
later send `workflow_finished` behind `message_end`, before that in front of it; 1.17 sends text before its node starts;
pings come at any place. Nothing here depends on that.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from smoke_tests import sse

TEXT = ("message", "agent_message")
# The same in every event that has them, so that a client may take them from any.
IDS = ("conversation_id", "message_id", "task_id", "workflow_run_id")


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A streamed answer: its whole text, its conversation, and its faults in words (none: a client is served)."""

    text: str
    conversation: str
    faults: tuple[str, ...]


def read(events: Iterable[sse.Event]) -> Reply:
    """Judge a finished stream."""
    faults: list[str] = []
    told: list[dict[str, Any]] = []
    for event in events:
        # A ping has no data in Dify; a proxy or a later release may give it some.
        if event.name == "ping" or not event.data:
            continue
        try:
            told.append(event.json())
        except ValueError as problem:
            faults.append(f"an event is no JSON object: {problem}")
    told = [one for one in told if one.get("event") != "ping"]
    faults += _ends(told) + _ids(told)
    return Reply(text=_text(told), conversation=_first(told, "conversation_id"), faults=tuple(faults))


def _ends(told: Sequence[dict[str, Any]]) -> list[str]:
    """Return what is wrong with the way the stream ends."""
    names = [str(one.get("event")) for one in told]
    faults = [f"an error event: {one}" for one in told if one.get("event") == "error"]
    if names.count("message_end") != 1:
        faults.append(f"message_end came {names.count('message_end')} times: {names}")
    elif late := [name for name in names[names.index("message_end") :] if name in TEXT]:
        faults.append(f"text after message_end, where clients leave: {late}")
    finished = [one for one in told if one.get("event") == "workflow_finished"]
    if "workflow_started" in names and not finished:
        faults.append(f"workflow_started without workflow_finished: {names}")
    faults += [f"the workflow ended as {found}" for one in finished if (found := _status(one)) != "succeeded"]
    return faults


def _status(finished: dict[str, Any]) -> str:
    return str((finished.get("data") or {}).get("status", "succeeded"))


def _ids(told: Sequence[dict[str, Any]]) -> list[str]:
    """Return what is wrong with the ids: each is the same in all events, and a conversation has to be there."""
    faults = []
    for name in IDS:
        found = {str(one[name]) for one in told if one.get(name)}
        if len(found) > 1:
            faults.append(f"{name} changes within the answer: {sorted(found)}")
    if not _first(told, "conversation_id"):
        faults.append("no event names the conversation")
    return faults


def _text(told: Sequence[dict[str, Any]]) -> str:
    """Return the text that a client ends up with; `message_replace` takes the place of all before it."""
    text = ""
    for one in told:
        if one.get("event") in TEXT:
            text += str(one.get("answer") or "")
        elif one.get("event") == "message_replace":
            text = str(one.get("answer") or "")
    return text


def _first(told: Sequence[dict[str, Any]], name: str) -> str:
    return next((str(one[name]) for one in told if one.get(name)), "")
