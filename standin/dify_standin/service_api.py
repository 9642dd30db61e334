"""/v1: what an app's API key opens."""

import json
import time
import uuid
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import yaml
from flask import Blueprint, Response, g, jsonify, request
from pydantic import BaseModel, Field, field_validator

from dify_standin import chat_app, store, work
from dify_standin.chat_answers import chat_blocking, chat_stream, wrapped
from dify_standin.conversation_title import Title
from dify_standin.dialect import dialect
from dify_standin.errors import ApiError, unauthorized
from dify_standin.service_runs import PING, event_stream, event_text, start_run

blueprint = Blueprint("service_api", __name__, url_prefix="/v1")


CHAT_MODES = {"chat", "agent-chat", "advanced-chat"}


MEGABYTE = 1024 * 1024


OPEN_ENDPOINTS = {"service_api.index"}


def uuid_or_none(value: str | None) -> str | None:
    """Return the canonical text of a UUID, None for nothing. Raises ValueError."""
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
        return uuid_or_none(value)


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


def user_of(body: dict[str, Any]) -> str:
    """Return the `user` of a request. Raises ApiError without one."""
    user = body.get("user")
    if not user:
        raise ApiError(400, "invalid_param", "Arg user must be provided.")
    return str(user)


def end_user_of(user: str) -> str:
    """Return the id of an end user of the app, created at the first request."""
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


def conversation_of(conversation_id: str, end_user: str) -> store.Row:
    """Return a conversation of an end user. Raises ApiError 404."""
    found = store.row(
        "select * from conversations where id = %s and app_id = %s and end_user_id = %s",
        conversation_id,
        g.app_row["id"],
        end_user,
    )
    if found is None:
        raise _conversation_missing()
    return found


def described_app() -> dict[str, Any]:
    """Return the app's DSL: its published workflow, or a chat app as it is. Raises ApiError."""
    text = g.app_row["dsl"] if g.app_row["mode"] in chat_app.MODES else g.app_row["published"]
    if not text:
        raise ApiError(400, "app_unavailable", "App unavailable, please check your app configurations.")
    described: dict[str, Any] = yaml.safe_load(text)
    return described


def _input_form() -> list[dict[str, Any]]:
    described = described_app()
    if "workflow" not in described:
        form = described["model_config"].get("user_input_form") or []
        return [{"type": kind, **field} for one in form for kind, field in one.items()]
    nodes = described["workflow"]["graph"]["nodes"]
    start: dict[str, Any] = next((node for node in nodes if node["data"]["type"] == "start"), {"data": {}})
    variables: list[dict[str, Any]] = start["data"].get("variables", [])
    return variables


def _check_inputs(inputs: dict[str, Any]) -> None:
    for variable in _input_form():
        if variable.get("required") and variable["variable"] not in inputs:
            raise ApiError(400, "invalid_param", f"{variable['variable']} is required in input form")
        options, given = variable.get("options") or [], inputs.get(variable["variable"])
        if variable.get("type") == "select" and given and given not in options:
            raise ApiError(
                400,
                "invalid_param",
                f"{variable['variable']} in input form must be one of the following: {options}",
            )


@blueprint.get("/", strict_slashes=False)
def index() -> Response:
    """Dify has no page here."""
    from werkzeug.exceptions import NotFound  # noqa: PLC0415

    raise NotFound


@blueprint.post("/chat-messages")
def chat() -> Response:
    """Send a message to a chat app."""
    body = request.get_json()
    user = user_of(body)
    if g.app_row["mode"] not in CHAT_MODES:
        raise ApiError(400, "not_chat_app", "Please check if your app mode matches the right API route.")
    payload = ChatRequestPayload.model_validate(body)
    end_user = end_user_of(user)
    _check_inputs(payload.inputs)
    if payload.conversation_id:
        conversation = conversation_of(payload.conversation_id, end_user)
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
    run, events = start_run(
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
    title = Title(conversation_id, payload.query, end_user)
    if not payload.conversation_id and payload.auto_generate_name:
        title.start()
    if payload.response_mode == "streaming":
        return event_stream(chat_stream(envelope, run, events, title))
    return chat_blocking(envelope, run, events, title)


@blueprint.post("/completion-messages")
def completion() -> Response:
    """Only completion apps answer here, and the stand-in has none."""
    user_of(request.get_json())
    raise ApiError(400, "app_unavailable", "App unavailable, please check your app configurations.")


@blueprint.post("/workflows/run")
def run_workflow() -> Response:
    """Run a workflow app."""
    body = request.get_json()
    user = user_of(body)
    if g.app_row["mode"] != "workflow":
        raise ApiError(400, "not_workflow_app", "Please check if your app mode matches the right API route.")
    payload = WorkflowRunPayload.model_validate(body)
    end_user = end_user_of(user)
    _check_inputs(payload.inputs)
    streaming = payload.response_mode == "streaming"
    run, events = start_run(payload.inputs, {"sys.user_id": user}, end_user, streaming=streaming)
    if streaming:
        return event_stream(_workflow_stream(run, events))
    started, outputs, steps, error, status, tokens = time.monotonic(), None, 0, None, "succeeded", 0
    for event in events:
        if event["event"] == "workflow_finished":
            outputs, steps = event["data"]["outputs"], event["data"]["total_steps"]
            tokens = event["data"]["total_tokens"]
        if event["event"] == "_end":
            status, error = event["status"], event.get("error")
            if event.get("unbegun"):
                raise ApiError(400, "invalid_param", str(error))
    data = {
        "id": run["workflow_run_id"],
        "workflow_id": run["workflow_id"],
        "status": status,
        "outputs": outputs,
        "error": error,
        "elapsed_time": round(time.monotonic() - started, 6),
        "total_tokens": tokens,
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
        yield event_text(PING)
    for event in events:
        if event["event"] == "_end":
            if event["status"] == "failed":
                error = {"code": "invalid_param", "message": event["error"], "status": 400}
                yield event_text({"event": "error", **envelope, **error})
            return
        yield event_text(wrapped(event, envelope))


@blueprint.post("/chat-messages/<task_id>/stop")
@blueprint.post("/workflows/tasks/<task_id>/stop")
def stop(task_id: str) -> Response:
    """Stop a run."""
    user_of(request.get_json())
    store.cache().set(f"standin:stop:{task_id}", "1", ex=work.EVENTS_TTL)
    return jsonify({"result": "success"})
