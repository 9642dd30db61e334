"""/v1: what an app's API key opens."""

import json
import os
import time
import uuid
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import yaml
from flask import Blueprint, Response, g, jsonify, request, stream_with_context
from pydantic import BaseModel, Field, field_validator
from werkzeug.datastructures import FileStorage

from dify_standin import store, work
from dify_standin.config import integer, text
from dify_standin.dialect import dialect
from dify_standin.errors import ApiError, unauthorized

blueprint = Blueprint("service_api", __name__, url_prefix="/v1")

PING: work.Event = {"event": "ping"}
PING_SECONDS = 10
CHAT_MODES = {"chat", "agent-chat", "advanced-chat"}
MEGABYTE = 1024 * 1024
OPEN_ENDPOINTS = {"service_api.index"}
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


def _uuid_or_none(value: str | None) -> str | None:
    if not value:
        return None
    try:
        return str(uuid.UUID(value))
    except ValueError:
        raise ValueError("conversation_id must be a valid UUID") from None


class ChatRequestPayload(BaseModel):
    """The body of POST /v1/chat-messages."""

    inputs: dict[str, Any]
    query: str
    response_mode: Literal["blocking", "streaming"] | None = None
    conversation_id: Annotated[str | None, Field(default=None)]
    auto_generate_name: bool = True

    @field_validator("conversation_id", mode="before")
    @classmethod
    def _valid_id(cls, value: Any) -> str | None:  # noqa: ANN401  # before validation
        return _uuid_or_none(value)


class WorkflowRunPayload(BaseModel):
    """The body of POST /v1/workflows/run."""

    inputs: dict[str, Any]
    response_mode: Literal["blocking", "streaming"] | None = None


class MessageListQuery(BaseModel):
    """The query of GET /v1/messages."""

    conversation_id: str
    limit: int = Field(default=20, ge=1, le=100)


@blueprint.before_request
def authenticate() -> None:
    """Find the app of the key. Raises ApiError with Dify's words."""
    if request.method == "OPTIONS" or request.endpoint in OPEN_ENDPOINTS:
        return
    header = request.headers.get("Authorization", "")
    if " " not in header.strip():
        raise unauthorized("Authorization header must be provided and start with 'Bearer'")
    scheme, _, token = header.strip().partition(" ")
    if scheme.lower() != "bearer":
        raise unauthorized("Authorization scheme must be 'Bearer'")
    found = store.row(
        "update api_tokens t set last_used_at = now() from apps a "
        "where a.id = t.app_id and t.token = %s and t.type = 'app' returning a.*",
        token.strip(),
    )
    if found is None:
        raise unauthorized("Access token is invalid")
    if not found["enable_api"]:
        raise ApiError(403, "forbidden", "The app's API service has been disabled.")
    g.app_row = found


def _user(body: dict[str, Any]) -> str:
    user = body.get("user")
    if not user:
        raise ApiError(400, "invalid_param", "Arg user must be provided.")
    return str(user)


def _end_user(user: str) -> str:
    found = store.row(
        "insert into end_users (app_id, session_id) values (%s, %s) "
        "on conflict (app_id, session_id) do update set session_id = excluded.session_id returning id",
        g.app_row["id"],
        user,
    )
    assert found is not None  # noqa: S101  # an upsert returns its row
    return str(found["id"])


def _conversation_missing() -> ApiError:
    known = {
        "/v1/chat-messages": "/v1/chat-messages or /api/chat-messages or /v1/chat-messages/<string:task_id>/stop ?",
        "/v1/messages": "/v1/messages or /v1/chat-messages or /api/messages ?",
    }
    hint = known.get(request.path)
    asked = f" You have requested this URI [{request.path}] but did you mean {hint}" if hint else ""
    return ApiError(404, "not_found", f"Conversation Not Exists.{asked}")


def _conversation(conversation_id: str, end_user: str) -> store.Row:
    found = store.row(
        "select * from conversations where id = %s and app_id = %s and end_user_id = %s",
        conversation_id,
        g.app_row["id"],
        end_user,
    )
    if found is None:
        raise _conversation_missing()
    return found


def _graph() -> dict[str, Any]:
    if not g.app_row["published"]:
        raise ApiError(400, "app_unavailable", "App unavailable, please check your app configurations.")
    graph: dict[str, Any] = yaml.safe_load(g.app_row["published"])
    return graph


def _check_inputs(inputs: dict[str, Any]) -> None:
    nodes = _graph()["workflow"]["graph"]["nodes"]
    start: dict[str, Any] = next((node for node in nodes if node["data"]["type"] == "start"), {"data": {}})
    for variable in start["data"].get("variables", []):
        if variable.get("required") and variable["variable"] not in inputs:
            raise ApiError(400, "invalid_param", f"{variable['variable']} is required in input form")
        options, given = variable.get("options") or [], inputs.get(variable["variable"])
        if variable.get("type") == "select" and given and given not in options:
            raise ApiError(
                400,
                "invalid_param",
                f"{variable['variable']} in input form must be one of the following: {options}",
            )


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


def _run(
    inputs: dict[str, Any], system: dict[str, Any], end_user: str, *, streaming: bool
) -> tuple[dict[str, Any], Iterator[work.Event]]:
    """Start a run, and return it and its events. The worker runs what is streamed, api itself what is not."""
    run_id, app_id = str(uuid.uuid4()), str(g.app_row["id"])
    workflow_id = str(uuid.uuid5(uuid.NAMESPACE_URL, app_id))
    run = {
        "task_id": str(uuid.uuid4()),
        "workflow_run_id": run_id,
        "workflow_id": workflow_id,
        "dsl": g.app_row["published"],
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


def _sse(event: work.Event) -> str:
    if event == PING:
        return "event: ping\n\n"
    return f"data: {json.dumps(event, separators=(',', ':'))}\n\n"


def _stream(events: Iterator[str]) -> Response:
    return Response(stream_with_context(events), content_type="text/event-stream; charset=utf-8")


@blueprint.get("/", strict_slashes=False)
def index() -> Response:
    """Dify has no page here."""
    from werkzeug.exceptions import NotFound  # noqa: PLC0415

    raise NotFound


@blueprint.post("/chat-messages")
def chat() -> Response:
    """Send a message to a chat app."""
    body = request.get_json()
    user = _user(body)
    if g.app_row["mode"] not in CHAT_MODES:
        raise ApiError(400, "not_chat_app", "Please check if your app mode matches the right API route.")
    payload = ChatRequestPayload.model_validate(body)
    end_user = _end_user(user)
    _check_inputs(payload.inputs)
    if payload.conversation_id:
        conversation = _conversation(payload.conversation_id, end_user)
    else:
        created = store.row(
            "insert into conversations (app_id, end_user_id, name, inputs) values (%s, %s, %s, %s) returning *",
            g.app_row["id"],
            end_user,
            payload.query[:60] if payload.auto_generate_name else "New conversation",
            json.dumps(payload.inputs),
        )
        assert created is not None  # noqa: S101  # an insert returns its row
        conversation = created
    conversation_id = str(conversation["id"])
    counted = store.row("select count(*) as n from messages where conversation_id = %s", conversation_id)
    message = store.row(
        "insert into messages (conversation_id, query, inputs) values (%s, %s, %s) returning id, created_at",
        conversation_id,
        payload.query,
        json.dumps(payload.inputs),
    )
    assert counted is not None  # noqa: S101  # count always has a row
    assert message is not None  # noqa: S101  # an insert returns its row
    run, events = _run(
        payload.inputs,
        {
            "sys.query": payload.query,
            "sys.user_id": user,
            "sys.conversation_id": conversation_id,
            "sys.dialogue_count": counted["n"] + 1,
        },
        end_user,
        streaming=payload.response_mode == "streaming",
    )
    envelope = {
        "conversation_id": conversation_id,
        "message_id": str(message["id"]),
        "created_at": store.timestamp(message["created_at"]),
        "task_id": run["task_id"],
    }
    if payload.response_mode == "streaming":
        return _stream(_chat_stream(envelope, events))
    return _chat_blocking(envelope, events)


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


def _chat_stream(envelope: dict[str, Any], events: Iterator[work.Event]) -> Iterator[str]:
    speech, answer, finished = dialect(), "", None
    if speech.opening_ping:
        yield _sse(PING)
    for event in events:
        if event["event"] == "message":
            answer += event["answer"]
            event["id"] = envelope["message_id"]
        if event["event"] == "workflow_finished" and speech.finishes_last:
            finished = event
            continue
        if event["event"] != "_end":
            yield _sse(_wrapped(event, envelope))
            continue
        failed = event["status"] == "failed"
        _finish(envelope["message_id"], answer, "error" if failed else "normal", event.get("error"))
        if failed:
            error = {"code": "invalid_param", "message": f"Run failed: {event['error']}", "status": 400}
            yield _sse({"event": "error", **envelope, **error})
            return
        end = {"id": envelope["message_id"], "metadata": _metadata(), "files": []}
        yield _sse({"event": "message_end", **envelope, **end})
        if finished:
            yield _sse(_wrapped(finished, envelope))


def _wrapped(event: work.Event, envelope: dict[str, Any]) -> work.Event:
    """Put what all events of an answer share behind the event's name."""
    return event if event == PING else {"event": event.pop("event"), **envelope, **event}


def _metadata() -> dict[str, Any]:
    return {
        "annotation_reply": None,
        "retriever_resources": [],
        "usage": {**USAGE, "time_to_first_token": 0.05, "time_to_generate": 0.0},
        **({"reasoning": {}} if dialect().reasoning else {}),
    }


def _chat_blocking(envelope: dict[str, Any], events: Iterator[work.Event]) -> Response:
    answer = ""
    for event in events:
        if event["event"] == "message":
            answer += event["answer"]
        if event["event"] == "_end" and event["status"] == "failed":
            _finish(envelope["message_id"], answer, "error", event["error"])
            raise ApiError(400, "invalid_param", f"Run failed: {event['error']}")
    _finish(envelope["message_id"], answer, "normal", None)
    response = jsonify(
        {
            "event": "message",
            "task_id": envelope["task_id"],
            "id": envelope["message_id"],
            "message_id": envelope["message_id"],
            "conversation_id": envelope["conversation_id"],
            "mode": g.app_row["mode"],
            "answer": answer,
            "metadata": _metadata(),
            "created_at": envelope["created_at"],
        }
    )
    response.content_type = "application/json; charset=utf-8"
    return response


@blueprint.post("/completion-messages")
def completion() -> Response:
    """Only completion apps answer here, and the stand-in has none."""
    _user(request.get_json())
    raise ApiError(400, "app_unavailable", "App unavailable, please check your app configurations.")


@blueprint.post("/workflows/run")
def run_workflow() -> Response:
    """Run a workflow app."""
    body = request.get_json()
    user = _user(body)
    if g.app_row["mode"] != "workflow":
        raise ApiError(400, "not_workflow_app", "Please check if your app mode matches the right API route.")
    payload = WorkflowRunPayload.model_validate(body)
    end_user = _end_user(user)
    _check_inputs(payload.inputs)
    streaming = payload.response_mode == "streaming"
    run, events = _run(payload.inputs, {"sys.user_id": user}, end_user, streaming=streaming)
    if streaming:
        return _stream(_workflow_stream(run, events))
    started, outputs, steps, error, status = time.monotonic(), None, 0, None, "succeeded"
    for event in events:
        if event["event"] == "workflow_finished":
            outputs, steps = event["data"]["outputs"], event["data"]["total_steps"]
        if event["event"] == "_end":
            status, error = event["status"], event.get("error")
    data = {
        "id": run["workflow_run_id"],
        "workflow_id": run["workflow_id"],
        "status": status,
        "outputs": outputs,
        "error": error,
        "elapsed_time": round(time.monotonic() - started, 6),
        "total_tokens": 0,
        "total_steps": steps,
        "created_at": run["created_at"],
        "finished_at": int(time.time()),
    }
    response = jsonify({"task_id": run["task_id"], "workflow_run_id": run["workflow_run_id"], "data": data})
    response.content_type = "application/json; charset=utf-8"
    return response


def _workflow_stream(run: dict[str, Any], events: Iterator[work.Event]) -> Iterator[str]:
    envelope = {"workflow_run_id": run["workflow_run_id"], "task_id": run["task_id"]}
    if dialect().opening_ping:
        yield _sse(PING)
    for event in events:
        if event["event"] == "_end":
            if event["status"] == "failed":
                error = {"code": "invalid_param", "message": event["error"], "status": 400}
                yield _sse({"event": "error", **envelope, **error})
            return
        yield _sse(_wrapped(event, envelope))


@blueprint.post("/chat-messages/<task_id>/stop")
@blueprint.post("/workflows/tasks/<task_id>/stop")
def stop(task_id: str) -> Response:
    """Stop a run."""
    _user(request.get_json())
    store.cache().set(f"standin:stop:{task_id}", "1", ex=work.EVENTS_TTL)
    return jsonify({"result": "success"})


@blueprint.get("/messages")
def messages() -> Response:
    """List a conversation's messages."""
    user = _user(dict(request.args))
    query = MessageListQuery.model_validate({"user": user, **request.args})
    conversation = _conversation(str(_uuid_or_none(query.conversation_id)), _end_user(user))
    found = store.rows(
        "select * from messages where conversation_id = %s order by created_at limit %s",
        conversation["id"],
        query.limit + 1,
    )
    data = [
        {
            "id": str(one["id"]),
            "conversation_id": str(one["conversation_id"]),
            "parent_message_id": None,
            "inputs": one["inputs"],
            "query": one["query"],
            "answer": one["answer"],
            "message_files": [],
            "feedback": {"rating": one["rating"]} if one["rating"] else None,
            "retriever_resources": [],
            "created_at": store.timestamp(one["created_at"]),
            "agent_thoughts": [],
            "status": one["status"],
            "error": one["error"],
        }
        for one in found[: query.limit]
    ]
    return jsonify({"limit": query.limit, "has_more": len(found) > query.limit, "data": data})


@blueprint.post("/messages/<uuid:message_id>/feedbacks")
def feedback(message_id: uuid.UUID) -> Response:
    """Rate a message."""
    body = request.get_json()
    end_user = _end_user(_user(body))
    changed = store.rows(
        "update messages m set rating = %s from conversations c "
        "where m.id = %s and c.id = m.conversation_id and c.end_user_id = %s returning m.id",
        body.get("rating"),
        str(message_id),
        end_user,
    )
    if not changed:
        raise ApiError(404, "not_found", "Message Not Exists.")
    return jsonify({"result": "success"})


@blueprint.get("/conversations")
def conversations() -> Response:
    """List the conversations of a user."""
    end_user = _end_user(_user(dict(request.args)))
    limit = min(100, max(1, request.args.get("limit", 20, type=int)))
    found = store.rows(
        "select * from conversations where app_id = %s and end_user_id = %s order by updated_at desc limit %s",
        g.app_row["id"],
        end_user,
        limit + 1,
    )
    data = [
        {
            "id": str(one["id"]),
            "name": one["name"],
            "inputs": one["inputs"],
            "status": "normal",
            "introduction": "",
            "created_at": store.timestamp(one["created_at"]),
            "updated_at": store.timestamp(one["updated_at"]),
        }
        for one in found[:limit]
    ]
    return jsonify({"limit": limit, "has_more": len(found) > limit, "data": data})


@blueprint.delete("/conversations/<uuid:conversation_id>")
def delete_conversation(conversation_id: uuid.UUID) -> tuple[Response, int]:
    """Delete a conversation with its messages."""
    conversation = _conversation(str(conversation_id), _end_user(_user(request.get_json())))
    store.rows("delete from conversations where id = %s", conversation["id"])
    return jsonify({"result": "success"}), 204


@blueprint.post("/conversations/<uuid:conversation_id>/name")
def rename_conversation(conversation_id: uuid.UUID) -> Response:
    """Rename a conversation."""
    body = request.get_json()
    conversation = _conversation(str(conversation_id), _end_user(_user(body)))
    store.rows(
        "update conversations set name = %s where id = %s", str(body.get("name", "")), conversation["id"]
    )
    return jsonify({"id": str(conversation["id"]), "name": body.get("name", "")})


def _features() -> dict[str, Any]:
    features: dict[str, Any] = _graph()["workflow"].get("features", {})
    return features


@blueprint.get("/parameters")
def parameters() -> Response:
    """Describe what the app takes."""
    features = _features()
    off = {"enabled": False}
    return jsonify(
        {
            "opening_statement": features.get("opening_statement", ""),
            "suggested_questions": features.get("suggested_questions", []),
            "suggested_questions_after_answer": off,
            "speech_to_text": off,
            "text_to_speech": {"enabled": False, "language": "", "voice": ""},
            "retriever_resource": {"enabled": True},
            "annotation_reply": off,
            "more_like_this": off,
            "user_input_form": [],
            "sensitive_word_avoidance": off,
            "file_upload": features.get("file_upload", off),
            "system_parameters": {
                "image_file_size_limit": integer("UPLOAD_IMAGE_FILE_SIZE_LIMIT", 10),
                "video_file_size_limit": integer("UPLOAD_VIDEO_FILE_SIZE_LIMIT", 100),
                "audio_file_size_limit": integer("UPLOAD_AUDIO_FILE_SIZE_LIMIT", 50),
                "file_size_limit": integer("UPLOAD_FILE_SIZE_LIMIT", 15),
                "workflow_file_upload_limit": 10,
            },
        }
    )


@blueprint.get("/info")
def info() -> Response:
    """Name the app."""
    row = g.app_row
    return jsonify(
        {
            "name": row["name"],
            "description": row["description"],
            "tags": [],
            "mode": row["mode"],
            "author_name": "admin",
        }
    )


@blueprint.get("/meta")
def meta() -> Response:
    """List tool icons; there are none."""
    return jsonify({"tool_icons": {}})


@blueprint.get("/site")
def site() -> Response:
    """Describe the app's page."""
    described = yaml.safe_load(g.app_row["dsl"])["app"]
    return jsonify(
        {
            "title": g.app_row["name"],
            "chat_color_theme": None,
            "chat_color_theme_inverted": False,
            "icon_type": "emoji",
            "icon": described.get("icon", "\U0001f916"),
            "icon_background": described.get("icon_background", "#FFEAD5"),
            "description": None,
            "copyright": None,
            "privacy_policy": None,
            **({"input_placeholder": None} if dialect().input_placeholder else {}),
            "custom_disclaimer": "",
            "default_language": "en-US",
            "show_workflow_steps": True,
            "use_icon_as_answer_icon": False,
            "icon_url": None,
        }
    )


@blueprint.get("/apps/annotations")
def annotations() -> Response:
    """List annotations; there are none."""
    page = request.args.get("page", 1, type=int)
    return jsonify({"data": [], "has_more": False, "limit": 20, "total": 0, "page": page})


@blueprint.post("/files/upload")
def upload() -> tuple[Response, int]:
    """Keep an uploaded file on the storage volume."""
    file = request.files.get("file")
    if file is None:
        raise ApiError(400, "no_file_uploaded", "Please upload your file.")
    created_by = _end_user(request.form.get("user") or "DEFAULT-USER")
    saved = _save(file, created_by)
    sign = uuid.uuid4().hex
    # As Dify, which takes the console's address where no other is set; an empty one is set.
    origin = text("FILES_URL", text("CONSOLE_API_URL")).rstrip("/")
    path = f"/files/{saved['id']}/file-preview"
    saved["source_url"] = (
        f"{origin}{path}?timestamp={saved['created_at']}&nonce={uuid.uuid4().hex}&sign={sign}"
    )
    return jsonify(saved), 201


def _save(file: FileStorage, created_by: str) -> dict[str, Any]:
    name = os.path.basename(file.filename or "file")
    extension = name.rsplit(".", 1)[-1].lower() if "." in name else ""
    content = file.read()
    if len(content) > integer("UPLOAD_FILE_SIZE_LIMIT", 15) * MEGABYTE:
        raise ApiError(413, "file_too_large", dialect().too_large_message)
    key = uuid.uuid4().hex
    path = store.storage_path(key)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as stream:
        stream.write(content)
    row = store.row(
        "insert into upload_files (name, size, extension, mime_type, key, created_by) "
        "values (%s, %s, %s, %s, %s, %s) returning id, created_at",
        name,
        len(content),
        extension,
        file.mimetype,
        key,
        created_by,
    )
    assert row is not None  # noqa: S101  # an insert returns its row
    return {
        "id": str(row["id"]),
        **({"reference": None} if dialect().upload_reference else {}),
        "name": name,
        "size": len(content),
        "extension": extension,
        "mime_type": file.mimetype,
        "created_by": created_by,
        "created_at": store.timestamp(row["created_at"]),
        "preview_url": None,
        "source_url": None,
        "original_url": None,
        "user_id": None,
        "tenant_id": str(uuid.uuid5(uuid.NAMESPACE_DNS, "tenant")),
        "conversation_id": None,
        "file_key": None,
    }
