"""The answers of chat apps: a stream of events, or one piece."""

from collections.abc import Iterator
from typing import Any

from flask import Response, jsonify

from dify_standin import chat_app, store, work
from dify_standin.conversation_title import Title
from dify_standin.dialect import dialect
from dify_standin.errors import ApiError
from dify_standin.events import unbegun
from dify_standin.service_runs import PING, event_text

# The usage of an app without a model.
USAGE = {
    "prompt_tokens": 0,
    "prompt_unit_price": "0.0",
    "prompt_price_unit": "0.0",
    "prompt_price": "0.0",
    "completion_tokens": 0,
    "completion_unit_price": "0.0",
    "completion_price_unit": "0.0",
    "completion_price": "0.0",
    "total_tokens": 0,
    "total_price": "0.0",
    "currency": "USD",
    "latency": 0.0,
}


def _finish(message_id: str, answer: str, status: str, error: str | None) -> None:
    store.rows(
        "update messages set answer = %s, status = %s, error = %s where id = %s",
        answer,
        status,
        error,
        message_id,
    )
    store.rows(
        "update conversations set updated_at = now() where id = (select conversation_id from messages where id = %s)",
        message_id,
    )


def chat_stream(
    envelope: dict[str, Any], run: dict[str, Any], events: Iterator[work.Event], title: Title
) -> Iterator[str]:
    """Yield the text of a streamed answer."""
    speech, answer, finished = dialect(), "", None
    if speech.opening_ping:
        yield event_text(PING)
    for event in events:
        if event["event"] == "message":
            answer += event["answer"]
            event["id"] = envelope["message_id"]
        if event["event"] == "workflow_finished" and speech.finishes_last:
            finished = event
            continue
        if event["event"] != "_end":
            yield event_text(wrapped(event, envelope))
            continue
        failed = event["status"] == "failed"
        _finish(envelope["message_id"], answer, "error" if failed else "normal", event.get("error"))
        title.wait()
        if failed:
            yield from _failed_stream(envelope, run, event)
            return
        end = {"id": envelope["message_id"], "metadata": _metadata(event), "files": []}
        yield event_text({"event": "message_end", **envelope, **end})
        if finished:
            yield event_text(wrapped(finished, envelope))


def _failed_stream(envelope: dict[str, Any], run: dict[str, Any], end: work.Event) -> Iterator[str]:
    """Yield the events of a failure. A run that did not begin reports so after its error, as Dify does since 1.14."""
    error = {"code": "invalid_param", "message": _failure(end), "status": 400}
    if not end.get("unbegun"):
        yield event_text({"event": "error", **envelope, **error})
        return
    shared = {name: value for name, value in envelope.items() if name != "task_id"}
    yield event_text({"event": "error", **shared, **error})
    if dialect().finishes_last and run["mode"] not in chat_app.MODES:
        for event in unbegun(run, str(end["error"]), dialect()):
            yield event_text({"event": event.pop("event"), "task_id": event["workflow_run_id"], **event})


def _failure(end: work.Event) -> str:
    return str(end["error"]) if end.get("unbegun") else f"Run failed: {end['error']}"


def wrapped(event: work.Event, envelope: dict[str, Any]) -> work.Event:
    """Put what all events of an answer share behind the event's name."""
    return event if event == PING else {"event": event.pop("event"), **envelope, **event}


def _metadata(end: work.Event) -> dict[str, Any]:
    return {
        "annotation_reply": None,
        "retriever_resources": end.get("resources") or [],
        "usage": end.get("usage") or {**USAGE, "time_to_first_token": 0.05, "time_to_generate": 0.0},
        **({"reasoning": {}} if dialect().reasoning else {}),
    }


def chat_blocking(
    envelope: dict[str, Any], run: dict[str, Any], events: Iterator[work.Event], title: Title
) -> Response:
    """Return an answer in one piece. Raises ApiError for a run that fails."""
    answer, end = "", {}
    for event in events:
        if event["event"] == "message":
            answer += event["answer"]
        if event["event"] == "_end":
            end = event
            title.wait()
            if event["status"] == "failed":
                _finish(envelope["message_id"], answer, "error", event["error"])
                raise ApiError(400, "invalid_param", _failure(event))
    _finish(envelope["message_id"], answer, "normal", None)
    response = jsonify(
        {
            "event": "message",
            "task_id": envelope["task_id"],
            "id": envelope["message_id"],
            "message_id": envelope["message_id"],
            "conversation_id": envelope["conversation_id"],
            "mode": run["mode"],
            "answer": answer,
            "metadata": _metadata(end),
            "created_at": envelope["created_at"],
        }
    )
    response.content_type = "application/json; charset=utf-8"
    return response
