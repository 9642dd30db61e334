"""/v1: messages, feedback and conversations."""

import uuid

from flask import Response, g, jsonify, request

from dify_standin import store
from dify_standin.errors import ApiError
from dify_standin.service_api import (
    MessageListQuery,
    blueprint,
    conversation_of,
    end_user_of,
    user_of,
    uuid_or_none,
)


@blueprint.get("/messages")
def messages() -> Response:
    """List a conversation's messages."""
    user = user_of(dict(request.args))
    query = MessageListQuery.model_validate({"user": user, **request.args})
    conversation = conversation_of(str(uuid_or_none(query.conversation_id)), end_user_of(user))
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
    end_user = end_user_of(user_of(body))
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
    end_user = end_user_of(user_of(dict(request.args)))
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
    conversation = conversation_of(str(conversation_id), end_user_of(user_of(request.get_json())))
    store.rows("delete from conversations where id = %s", conversation["id"])
    return jsonify({"result": "success"}), 204


@blueprint.post("/conversations/<uuid:conversation_id>/name")
def rename_conversation(conversation_id: uuid.UUID) -> Response:
    """Rename a conversation."""
    body = request.get_json()
    conversation = conversation_of(str(conversation_id), end_user_of(user_of(body)))
    store.rows(
        "update conversations set name = %s where id = %s", str(body.get("name", "")), conversation["id"]
    )
    return jsonify({"id": str(conversation["id"]), "name": body.get("name", "")})
