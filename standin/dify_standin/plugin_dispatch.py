"""The plugin daemon's routes below `dispatch`: calls of a model through an installed plugin, answered as events.

A plugin runs no code here. Those for OpenAI-compatible endpoints are played by the stand-in itself.
"""

import json
import logging
import uuid
from collections.abc import Iterator
from typing import Any

from flask import Blueprint, Response, request, stream_with_context

from dify_standin import customizable_models, openai_calls, plugin_records
from dify_standin.daemon_answers import plugin_problem, problem, problem_body, success
from dify_standin.openai_calls import Endpoint, UpstreamError
from dify_standin.plugin_runtime import RUNTIME

Json = dict[str, Any]

blueprint = Blueprint("dispatch", __name__, url_prefix="/plugin/<uuid:tenant>/dispatch")
LOG = logging.getLogger("dispatch")

REFUSED = "CredentialsValidateFailedError"
# Providers whose errors are those of OpenAI's own client.
OPENAI_CLIENT = "openai"


@blueprint.before_request
def find_plugin() -> Response | None:
    """Refuse a call of a plugin that is not installed or does not run yet."""
    tenant = str((request.view_args or {})["tenant"])
    found = plugin_records.installed(tenant, request.headers.get("X-Plugin-ID", ""))
    if found is None:
        return problem(-404, "NotFound", "plugin not found")
    if not RUNTIME.runs(found["identifier"]):
        return problem(-500, "InternalServer", "no available node, plugin runtime not found")
    return None


def _call() -> Json:
    data: Json = request.get_json()["data"]
    return data


@blueprint.post("/model/schema")
def model_schema(tenant: uuid.UUID) -> Response:  # noqa: ARG001  # part of the path
    """Describe a model that was added."""
    data = _call()
    found = customizable_models.described(data["model"], data["model_type"], data["credentials"])
    return success({"model_schema": found})


@blueprint.post("/model/validate_model_credentials")
def validate_model(tenant: uuid.UUID) -> Response:  # noqa: ARG001  # part of the path
    """Ping the endpoint of a model's credential."""
    data = _call()
    try:
        openai_calls.ping(Endpoint.of(data["credentials"], data["model"]), data["model_type"])
    except UpstreamError as found:
        text = (
            f"An error occurred during credentials validation: {found}"
            if found.status is None
            else f"Credentials validation failed with status code {found.status} and response body {found}"
        )
        return _json_answer(plugin_problem(REFUSED, text))
    return success({"result": True, "credentials": {}})


@blueprint.post("/model/validate_provider_credentials")
def validate_provider(tenant: uuid.UUID) -> Response:  # noqa: ARG001  # part of the path
    """Ping the endpoint of a provider's credential with the model that the credential names."""
    data = _call()
    credentials: Json = data["credentials"]
    endpoint = Endpoint.of(credentials, credentials.get("validate_model") or "gpt-4o-mini")
    try:
        if credentials.get("api_protocol") == "chat":
            openai_calls.ping(endpoint, "llm")
        else:
            endpoint.post(
                "responses", {"model": endpoint.model, "input": "ping", "max_output_tokens": 16}
            ).close()
    except UpstreamError as found:
        return _json_answer(plugin_problem(REFUSED, _as_openai(found)))
    return success({"result": True, "credentials": {}})


def _as_openai(found: UpstreamError) -> str:
    """Return an error in the words of OpenAI's client: the body as Python writes it."""
    if found.status is None:
        return "Connection error."
    try:
        body = json.loads(str(found))
    except ValueError:
        return str(found)
    return f"Error code: {found.status} - {body}"


def _json_answer(body: Json) -> Response:
    return Response(json.dumps(body), content_type="application/json")


@blueprint.post("/llm/invoke")
def invoke_llm(tenant: uuid.UUID) -> Response:  # noqa: ARG001  # part of the path
    """Stream a chat: `data:` lines, each with the form of an answer."""
    data = _call()
    pieces = openai_calls.chat(
        Endpoint.of(data["credentials"], data["model"]),
        data["prompt_messages"],
        data.get("model_parameters") or {},
        data.get("user_id"),
        stream=bool(data.get("stream", True)),
    )
    events = _events(pieces, str(data["provider"]))
    return Response(stream_with_context(events), content_type="text/event-stream")


def _events(pieces: Iterator[Json], provider: str) -> Iterator[str]:
    try:
        for piece in pieces:
            yield _line({"code": 0, "message": "success", "data": piece})
    except UpstreamError as found:
        LOG.warning("a chat failed with status %s", found.status)
        yield _line(plugin_problem(_kind(found.status), _invoke_text(found, provider)))
    except Exception:
        LOG.exception("a chat failed")
        yield _line(problem_body(-500, "PluginDaemonInternalServerError", "internal server error"))


def _invoke_text(found: UpstreamError, provider: str) -> str:
    if provider.rsplit("/", 1)[-1] == OPENAI_CLIENT:
        return _as_openai(found)
    if found.status is None:
        return str(found)
    return f"API request failed with status code {found.status}: {found}"


def _kind(status: int | None) -> str:
    kinds = {401: "InvokeAuthorizationError", 429: "InvokeRateLimitError", 400: "InvokeBadRequestError"}
    if status is None:
        return "InvokeConnectionError"
    return kinds.get(status, "InvokeError")


def _line(body: Json) -> str:
    return f"data: {json.dumps(body, separators=(',', ':'))}\n\n"


@blueprint.post("/text_embedding/invoke")
def invoke_embedding(tenant: uuid.UUID) -> Response:  # noqa: ARG001  # part of the path
    """Return a vector for each text."""
    data = _call()
    endpoint = Endpoint.of(data["credentials"], data["model"])
    try:
        vectors, usage = openai_calls.embed(
            endpoint, data["texts"], data["credentials"].get("encoding_format")
        )
    except UpstreamError as found:
        return _json_answer(plugin_problem(_kind(found.status), _invoke_text(found, str(data["provider"]))))
    return success({"model": data["model"], "embeddings": vectors, "usage": usage})
