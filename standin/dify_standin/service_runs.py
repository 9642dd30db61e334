"""Runs of /v1: their events, as a stream or awaited."""

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

from flask import Response, g, stream_with_context

from dify_standin import store, work
from dify_standin.config import integer
from dify_standin.errors import ApiError

PING: work.Event = {"event": "ping"}


PING_SECONDS = 10


def _enter(task_id: str) -> str | None:
    """Count this request as active. Raises ApiError when the app has too many already."""
    limits = [
        value for value in (g.app_row["max_active_requests"], integer("APP_MAX_ACTIVE_REQUESTS", 0)) if value
    ]
    if not limits:
        return None
    key = f"standin:active:{g.app_row['id']}"
    cache = store.cache()
    if cache.zcard(key) >= min(limits):
        raise ApiError(
            400,
            "invalid_param",
            "Too many requests. Please try again later. The current maximum concurrent requests allowed for "
            f"{g.app_row['id']} is {min(limits)}.",
        )
    cache.zadd(key, {task_id: time.time()})
    return key


def start_run(
    inputs: dict[str, Any], system: dict[str, Any], end_user: str, *, streaming: bool
) -> tuple[dict[str, Any], Iterator[work.Event]]:
    """Start a run, and return it and its events. The worker runs what is streamed, api itself what is not."""
    run_id, app_id = str(uuid.uuid4()), str(g.app_row["id"])
    workflow_id = str(uuid.uuid5(uuid.NAMESPACE_URL, app_id))
    run = {
        "task_id": str(uuid.uuid4()),
        "workflow_run_id": run_id,
        "workflow_id": workflow_id,
        "mode": g.app_row["mode"],
        "dsl": g.app_row["published"] or g.app_row["dsl"],
        "inputs": inputs,
        "system": {
            "sys.files": [],
            "sys.app_id": app_id,
            "sys.workflow_id": workflow_id,
            "sys.workflow_run_id": run_id,
            **system,
        },
        "created_by": {"id": end_user, "user": system["sys.user_id"]},
        "created_at": int(time.time()),
    }
    slot = _enter(run["task_id"])
    if not streaming:
        return run, _here(run, slot)
    work.run_app.apply_async(args=[run], retry=False)
    return run, _events(run["task_id"], slot)


def _here(run: dict[str, Any], slot: str | None) -> Iterator[work.Event]:
    try:
        yield from work.events(run)
    finally:
        if slot:
            store.cache().zrem(slot, run["task_id"])


def _events(task_id: str, slot: str | None) -> Iterator[work.Event]:
    cache = store.cache()
    key = work.events_key(task_id)
    deadline = time.monotonic() + integer("APP_MAX_EXECUTION_TIME", 1200)
    try:
        while time.monotonic() < deadline:
            popped = cache.blpop([key], timeout=PING_SECONDS)
            if popped is None:
                yield PING
                continue
            event: work.Event = json.loads(popped[1])
            last = event["event"] == "_end"
            yield event
            if last:
                return
        yield {"event": "_end", "status": "failed", "error": "the worker did not finish in time"}
    finally:
        if slot:
            cache.zrem(slot, task_id)


def event_text(event: work.Event) -> str:
    """Return an event in the form of a server-sent event."""
    if event == PING:
        return "event: ping\n\n"
    return f"data: {json.dumps(event, separators=(',', ':'))}\n\n"


def event_stream(events: Iterator[str]) -> Response:
    """Return the response that streams events."""
    return Response(stream_with_context(events), content_type="text/event-stream; charset=utf-8")
