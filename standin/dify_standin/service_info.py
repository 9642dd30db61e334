"""/v1: an app's description, and files."""

import os
import uuid
from typing import Any

import yaml
from flask import Response, g, jsonify, request
from werkzeug.datastructures import FileStorage

from dify_standin import store
from dify_standin.config import integer, text
from dify_standin.dialect import dialect
from dify_standin.errors import ApiError
from dify_standin.service_api import MEGABYTE, blueprint, described_app, end_user_of


def _features() -> dict[str, Any]:
    described = described_app()
    whole = (
        described["workflow"].get("features", {}) if "workflow" in described else described["model_config"]
    )
    features: dict[str, Any] = whole
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
            "user_input_form": features.get("user_input_form") or [],
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
    created_by = end_user_of(request.form.get("user") or "DEFAULT-USER")
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
