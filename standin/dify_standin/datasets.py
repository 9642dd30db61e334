"""Knowledge bases of /v1/datasets: keywords in PostgreSQL, and with an embedding model vectors next to them.

A document's text is put on the storage volume by api, and indexed by the worker, in its queue for that.
"""

import os
import secrets
import time
import uuid
from typing import Any

from flask import Blueprint, Response, g, jsonify, request
from pydantic import BaseModel, Field
from werkzeug.exceptions import NotFound

from dify_standin import indexing, knowledge, models, store
from dify_standin.dataset_answers import dataset_json, document_json, record_json
from dify_standin.errors import ApiError, unauthorized
from dify_standin.model_calls import CallError

blueprint = Blueprint("datasets", __name__, url_prefix="/v1/datasets")

LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnpqrstuvwxyz23456789"


class DatasetPayload(BaseModel):
    """The body of POST /v1/datasets."""

    name: str = Field(min_length=1, max_length=40)
    description: str = Field(default="", max_length=400)
    indexing_technique: str | None = None
    embedding_model: str | None = None
    embedding_model_provider: str | None = None
    permission: str | None = "only_me"


class TextPayload(BaseModel):
    """The body of POST /v1/datasets/<id>/document/create-by-text."""

    name: str
    text: str
    indexing_technique: str | None = None


class RetrievePayload(BaseModel):
    """The body of POST /v1/datasets/<id>/retrieve."""

    query: str = Field(max_length=250)
    retrieval_model: dict[str, Any] | None = None


@blueprint.before_request
def authenticate() -> None:
    """Demand a key of the knowledge API. Raises ApiError with Dify's words."""
    if request.method == "OPTIONS":
        return
    header = request.headers.get("Authorization", "").strip()
    if " " not in header:
        raise unauthorized("Authorization header must be provided and start with 'Bearer'")
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer":
        raise unauthorized("Authorization scheme must be 'Bearer'")
    found = store.row(
        "update api_tokens set last_used_at = now() where token = %s and type = 'dataset' returning id",
        token.strip(),
    )
    if found is None:
        raise unauthorized("Access token is invalid")
    g.dataset_token = found


def new_key() -> str:
    """Return a new key of the knowledge API."""
    return "dataset-" + "".join(secrets.choice(LETTERS) for _ in range(24))


def _dataset(dataset_id: uuid.UUID) -> store.Row:
    found = store.row("select * from datasets where id = %s", str(dataset_id))
    if found is None:
        raise ApiError(404, "not_found", "Dataset not found.")
    return found


def _technique(given: str | None) -> str | None:
    if given not in {None, "economy", "high_quality"}:
        raise ApiError(400, "invalid_param", f"{given} is not a valid choice")
    return given


def _embedding_model(payload: DatasetPayload) -> tuple[str | None, str | None]:
    """Return provider and model that a knowledge base is indexed with: the given ones, else the default."""
    if payload.indexing_technique != "high_quality":
        return None, None
    if payload.embedding_model and payload.embedding_model_provider:
        found = models.callable_model(
            payload.embedding_model_provider, payload.embedding_model, "text-embedding"
        )
        return found.provider.name, found.name
    default = models.default("text-embedding")
    if default is None:
        raise ApiError(
            400,
            "provider_not_initialize",
            "No Embedding Model available. Please configure a valid provider in the Settings -> Model Provider.",
        )
    return default[0].name, default[1]


@blueprint.get("")
def datasets() -> Response:
    """List knowledge bases, newest first."""
    page = max(1, request.args.get("page", 1, type=int))
    limit = min(100, max(1, request.args.get("limit", 20, type=int)))
    pattern = f"%{request.args.get('keyword', '')}%"
    total = store.row("select count(*) as n from datasets where name ilike %s", pattern)
    found = store.rows(
        "select * from datasets where name ilike %s order by created_at desc limit %s offset %s",
        pattern,
        limit,
        (page - 1) * limit,
    )
    return jsonify(
        {
            "data": [dataset_json(one) for one in found],
            "has_more": len(found) == limit,
            "limit": limit,
            "total": total["n"] if total else 0,
            "page": page,
        }
    )


@blueprint.post("")
def create() -> Response:
    """Make a knowledge base."""
    payload = DatasetPayload.model_validate(request.get_json())
    technique = _technique(payload.indexing_technique)
    if store.row("select 1 from datasets where name = %s", payload.name):
        raise ApiError(
            409, "dataset_name_duplicate", "The dataset name already exists. Please modify your dataset name."
        )
    provider, model = _embedding_model(payload)
    made = store.row(
        "insert into datasets (name, description, indexing_technique, permission, embedding_model_provider, "
        "embedding_model) values (%s, %s, %s, %s, %s, %s) returning *",
        payload.name,
        payload.description,
        technique,
        payload.permission or "only_me",
        provider,
        model,
    )
    assert made is not None  # noqa: S101  # an insert returns its row
    return jsonify(dataset_json(made))


@blueprint.get("/<uuid:dataset_id>")
def show(dataset_id: uuid.UUID) -> Response:
    """Show a knowledge base."""
    return jsonify(dataset_json(_dataset(dataset_id)))


@blueprint.delete("/<uuid:dataset_id>")
def delete(dataset_id: uuid.UUID) -> tuple[str, int]:
    """Delete a knowledge base with its documents."""
    dataset = _dataset(dataset_id)
    for document in store.rows("select key from documents where dataset_id = %s", dataset["id"]):
        path = store.storage_path(document["key"])
        if os.path.exists(path):
            os.unlink(path)
    store.rows("delete from datasets where id = %s", dataset["id"])
    return "", 204


@blueprint.post("/<uuid:dataset_id>/document/create-by-text")
@blueprint.post("/<uuid:dataset_id>/document/create_by_text")
def create_by_text(dataset_id: uuid.UUID) -> Response:
    """Store a text on the storage volume, and queue the task to index it."""
    payload = TextPayload.model_validate(request.get_json())
    dataset = _dataset(dataset_id)
    technique = _technique(payload.indexing_technique) or dataset["indexing_technique"]
    if not technique:
        raise ApiError(400, "invalid_param", "indexing_technique is required.")
    if technique == "high_quality" and not dataset["embedding_model"]:
        asked = DatasetPayload(name=dataset["name"], indexing_technique=technique)
        provider, model = _embedding_model(asked)
        store.rows(
            "update datasets set embedding_model_provider = %s, embedding_model = %s where id = %s",
            provider,
            model,
            dataset["id"],
        )
    store.rows("update datasets set indexing_technique = %s where id = %s", technique, dataset["id"])
    key, batch = uuid.uuid4().hex, time.strftime("%Y%m%d%H%M%S") + str(secrets.randbelow(900000) + 100000)
    path = store.storage_path(key)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(payload.text)
    document = store.row(
        "insert into documents (dataset_id, name, batch, key, size) values (%s, %s, %s, %s, %s) returning *",
        dataset["id"],
        payload.name,
        batch,
        key,
        len(payload.text),
    )
    assert document is not None  # noqa: S101  # an insert returns its row
    indexing.index_document.apply_async(args=[str(document["id"])], queue=indexing.QUEUE, retry=False)
    return jsonify({"document": document_json(document), "batch": batch})


@blueprint.get("/<uuid:dataset_id>/documents")
def documents(dataset_id: uuid.UUID) -> Response:
    """List the documents of a knowledge base."""
    found = store.rows(
        "select * from documents where dataset_id = %s order by created_at desc", _dataset(dataset_id)["id"]
    )
    data = [document_json(one) for one in found]
    return jsonify({"data": data, "has_more": False, "limit": 20, "total": len(data), "page": 1})


@blueprint.get("/<uuid:dataset_id>/documents/<batch>/indexing-status")
def indexing_status(dataset_id: uuid.UUID, batch: str) -> Response:
    """Return the progress of indexing."""
    found = store.rows(
        "select * from documents where dataset_id = %s and batch = %s", _dataset(dataset_id)["id"], batch
    )
    if not found:
        raise ApiError(404, "not_found", "Documents not found.")
    return jsonify({"data": [_status(one) for one in found]})


def _status(document: store.Row) -> dict[str, Any]:
    counted = store.row("select count(*) as n from segments where document_id = %s", document["id"])
    segments = counted["n"] if counted else 0
    done = document["completed_at"]
    return {
        "id": str(document["id"]),
        "indexing_status": document["indexing_status"],
        "processing_started_at": store.timestamp(document["created_at"]),
        "completed_at": store.timestamp(done) if done else None,
        "paused_at": None,
        "error": document["error"],
        "stopped_at": None,
        "completed_segments": segments if done else 0,
        "total_segments": segments,
    }


@blueprint.post("/<uuid:dataset_id>/retrieve")
@blueprint.post("/<uuid:dataset_id>/hit-testing")
def retrieve(dataset_id: uuid.UUID) -> Response:
    """Find the segments nearest to the query."""
    payload = RetrievePayload.model_validate(request.get_json())
    dataset, model = _dataset(dataset_id), payload.retrieval_model or {}
    top_k = int(model.get("top_k") or knowledge.TOP_K)
    # Dify then searches vectors, and an economy knowledge base has none.
    economy = dataset["indexing_technique"] != "high_quality"
    searched = not economy or model.get("search_method") == "keyword_search"
    try:
        found = knowledge.search(dataset, payload.query, top_k) if searched else []
    except CallError as problem:
        raise ApiError(400, "completion_request_error", str(problem)) from None
    records = [record_json(segment, score) for segment, score in found]
    return jsonify({"query": {"content": payload.query}, "records": records})


@blueprint.route("/<path:anything>", methods=["GET", "POST", "PATCH", "PUT", "DELETE"])
def nothing(anything: str) -> Response:  # noqa: ARG001  # every path
    """There is no more."""
    raise NotFound
