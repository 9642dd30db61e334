"""/console/api: apps, their DSL, and API keys."""

import json
import secrets
import time
import uuid
from typing import Any

import yaml
from flask import Response, jsonify, request

from dify_standin import console_dependencies, datasets, facts, store
from dify_standin.console_api import IMPORT_SECONDS, MAX_KEYS, blueprint
from dify_standin.dialect import dialect, number
from dify_standin.errors import ApiError


def _app(app_id: uuid.UUID) -> store.Row:
    found = store.row("select * from apps where id = %s", str(app_id))
    if found is None:
        raise ApiError(404, "app_not_found", "App not found.")
    return found


def _app_json(app: store.Row) -> dict[str, Any]:
    return {
        "id": str(app["id"]),
        "name": app["name"],
        "description": app["description"],
        "mode": app["mode"],
        "enable_site": True,
        "enable_api": app["enable_api"],
        "max_active_requests": app["max_active_requests"],
        "icon_type": "emoji",
        "icon": "\U0001f916",
        "icon_background": "#FFEAD5",
        "created_at": store.timestamp(app["created_at"]),
        "updated_at": store.timestamp(app["updated_at"]),
    }


@blueprint.get("/apps")
def apps() -> Response:
    """List apps, newest first."""
    page = max(1, request.args.get("page", 1, type=int))
    limit = min(100, max(1, request.args.get("limit", 20, type=int)))
    pattern = f"%{request.args.get('name', '')}%"
    total = store.row("select count(*) as n from apps where name ilike %s", pattern)
    found = store.rows(
        "select * from apps where name ilike %s order by created_at desc limit %s offset %s",
        pattern,
        limit,
        (page - 1) * limit,
    )
    count = total["n"] if total else 0
    return jsonify(
        {
            "page": page,
            "limit": limit,
            "total": count,
            "has_more": page * limit < count,
            "data": [_app_json(one) for one in found],
        }
    )


def _dsl_status(imported: str) -> str:
    """Return what Dify makes of a DSL's version: older is fine with a warning, newer has to be confirmed."""
    current = number(facts.current().dsl)
    try:
        given = number(imported)
    except ValueError:
        return "failed"
    if given > current or given[0] < current[0]:
        return "pending"
    return "completed-with-warnings" if given[:2] < current[:2] else "completed"


def _import_result(import_id: str, status: str, imported: str = "", error: str = "") -> dict[str, Any]:
    return {
        "id": import_id,
        "status": status,
        "app_id": None,
        "app_mode": None,
        "current_dsl_version": facts.current().dsl,
        "imported_dsl_version": imported,
        "error": error,
        **({"permission_keys": [], "warnings": []} if dialect().import_warnings else {}),
    }


@blueprint.post("/apps/imports")
def import_app() -> tuple[Response, int]:
    """Create an app from its DSL, or overwrite the one that `app_id` names."""
    body = request.get_json()
    if body.get("mode") != "yaml-content":
        raise ApiError(400, "invalid_param", "the stand-in imports yaml-content only")
    import_id = str(uuid.uuid4())
    try:
        dsl = yaml.safe_load(str(body.get("yaml_content", "")))
        mode, version = str(dsl["app"]["mode"]), str(dsl.get("version", "0.1.0"))
        if mode in {"advanced-chat", "workflow"}:
            _ = dsl["workflow"]["graph"]["nodes"]
        elif mode == "chat":
            _ = dsl["model_config"]["model"]["provider"]
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as problem:
        return jsonify(_import_result(import_id, "failed", error=f"Invalid YAML format: {problem}")), 400
    if wrong := console_dependencies.problem_of(dsl):
        return jsonify(_import_result(import_id, "failed", error=wrong)), 400
    status = _dsl_status(version)
    result = _import_result(import_id, status, version)
    if status == "failed":
        return jsonify(result | {"error": f"Invalid DSL version: {version}"}), 400
    if status == "pending":
        store.cache().set(f"standin:import:{import_id}", json.dumps(body), ex=IMPORT_SECONDS)
        return jsonify(result), 202
    return _store_app(result, dsl, body)


@blueprint.post("/apps/imports/<uuid:import_id>/confirm")
def confirm_import(import_id: uuid.UUID) -> tuple[Response, int]:
    """Import a confirmed DSL that is newer than this release, as far as the stand-in supports it."""
    cache, key = store.cache(), f"standin:import:{import_id}"
    kept = cache.get(key)
    if kept is None:
        error = "Import information expired or does not exist"
        return jsonify(_import_result(str(import_id), "failed", error=error)), 400
    cache.delete(key)
    body = json.loads(kept)
    dsl = yaml.safe_load(str(body["yaml_content"]))
    return _store_app(_import_result(str(import_id), "completed", str(dsl["version"])), dsl, body)


def _store_app(result: dict[str, Any], dsl: dict[str, Any], body: dict[str, Any]) -> tuple[Response, int]:
    described, mode = dsl["app"], str(dsl["app"]["mode"])
    name, description = str(body.get("name") or described["name"]), str(described.get("description", ""))
    text_of_dsl = yaml.safe_dump(dsl, allow_unicode=True)
    if body.get("app_id"):
        app = _app(uuid.UUID(str(body["app_id"])))
        if app["mode"] != mode:
            result |= {"status": "failed", "error": "Only workflow or advanced chat apps can be overwritten"}
            return jsonify(result), 400
        store.rows(
            "update apps set name = %s, description = %s, dsl = %s, updated_at = now() where id = %s",
            name,
            description,
            text_of_dsl,
            app["id"],
        )
        app_id = str(app["id"])
    else:
        created = store.row(
            "insert into apps (name, description, mode, dsl) values (%s, %s, %s, %s) returning id",
            name,
            description,
            mode,
            text_of_dsl,
        )
        app_id = str(created["id"]) if created else ""
    return jsonify(result | {"app_id": app_id, "app_mode": mode}), 200


@blueprint.get("/apps/<uuid:app_id>")
def get_app(app_id: uuid.UUID) -> Response:
    """Show an app."""
    return jsonify(_app_json(_app(app_id)))


@blueprint.put("/apps/<uuid:app_id>")
def update_app(app_id: uuid.UUID) -> Response:
    """Change an app's name, description and limit."""
    app, body = _app(app_id), request.get_json()
    changed = store.row(
        "update apps set name = %s, description = %s, max_active_requests = %s, updated_at = now() "
        "where id = %s returning *",
        body.get("name", app["name"]),
        body.get("description", app["description"]),
        body.get("max_active_requests") or app["max_active_requests"],
        app["id"],
    )
    return jsonify(_app_json(changed or app))


@blueprint.delete("/apps/<uuid:app_id>")
def delete_app(app_id: uuid.UUID) -> tuple[Response, int]:
    """Delete an app with its keys and conversations."""
    store.rows("delete from apps where id = %s", _app(app_id)["id"])
    return jsonify({"result": "success"}), 204


@blueprint.post("/apps/<uuid:app_id>/api-enable")
def enable_api(app_id: uuid.UUID) -> Response:
    """Open or close an app's service API."""
    enabled = bool(request.get_json().get("enable_api"))
    changed = store.row(
        "update apps set enable_api = %s where id = %s returning *", enabled, _app(app_id)["id"]
    )
    return jsonify(_app_json(changed) if changed else {})


@blueprint.get("/apps/<uuid:app_id>/export")
def export_app(app_id: uuid.UUID) -> Response:
    """Return an app's DSL."""
    described = console_dependencies.exported(yaml.safe_load(_app(app_id)["dsl"]))
    return jsonify({"data": yaml.safe_dump(described, allow_unicode=True)})


@blueprint.post("/apps/<uuid:app_id>/workflows/publish")
def publish(app_id: uuid.UUID) -> Response:
    """Publish the draft."""
    app = _app(app_id)
    if app["mode"] not in {"advanced-chat", "workflow"}:
        raise ApiError(404, "app_not_found", "App not found.")
    store.rows("update apps set published = dsl, updated_at = now() where id = %s", app["id"])
    return jsonify({"result": "success", "created_at": int(time.time())})


def _key_json(token: store.Row) -> dict[str, Any]:
    used = token["last_used_at"]
    return {
        "id": str(token["id"]),
        "type": token["type"],
        "token": token["token"],
        "last_used_at": store.timestamp(used) if used else None,
        "created_at": store.timestamp(token["created_at"]),
    }


@blueprint.get("/apps/<uuid:app_id>/api-keys")
def keys(app_id: uuid.UUID) -> Response:
    """List an app's keys."""
    found = store.rows("select * from api_tokens where app_id = %s order by created_at", _app(app_id)["id"])
    return jsonify({"data": [_key_json(one) for one in found]})


@blueprint.post("/apps/<uuid:app_id>/api-keys")
def create_key(app_id: uuid.UUID) -> tuple[Response, int]:
    """Make a key; ten are the most."""
    app = _app(app_id)
    count = store.row("select count(*) as n from api_tokens where app_id = %s", app["id"])
    if count and count["n"] >= MAX_KEYS:
        raise ApiError(
            400, "max_keys_exceeded", f"Cannot create more than {MAX_KEYS} API keys for this resource type."
        )
    token = "app-" + "".join(
        secrets.choice("ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnpqrstuvwxyz23456789") for _ in range(24)
    )
    made = store.row("insert into api_tokens (app_id, token) values (%s, %s) returning *", app["id"], token)
    return jsonify(_key_json(made) if made else {}), 201


@blueprint.delete("/apps/<uuid:app_id>/api-keys/<uuid:key_id>")
def delete_key(app_id: uuid.UUID, key_id: uuid.UUID) -> tuple[Response, int]:
    """Delete a key; it is refused from now on."""
    gone = store.rows(
        "delete from api_tokens where id = %s and app_id = %s returning id", str(key_id), _app(app_id)["id"]
    )
    if not gone:
        raise ApiError(404, "not_found", "API key not found")
    return jsonify({"result": "success"}), 204


@blueprint.get("/datasets/api-keys")
def dataset_keys() -> Response:
    """List the workspace's keys of the knowledge API."""
    found = store.rows("select * from api_tokens where type = 'dataset' order by created_at")
    return jsonify({"data": [_key_json(one) for one in found]})


@blueprint.post("/datasets/api-keys")
def create_dataset_key() -> tuple[Response, int]:
    """Make a key of the knowledge API; ten are the most."""
    count = store.row("select count(*) as n from api_tokens where type = 'dataset'")
    if count and count["n"] >= MAX_KEYS:
        raise ApiError(
            400, "max_keys_exceeded", f"Cannot create more than {MAX_KEYS} API keys for this resource type."
        )
    made = store.row(
        "insert into api_tokens (type, token) values ('dataset', %s) returning *", datasets.new_key()
    )
    return jsonify(_key_json(made) if made else {}), 200


@blueprint.delete("/datasets/api-keys/<uuid:key_id>")
def delete_dataset_key(key_id: uuid.UUID) -> tuple[Response, int]:
    """Delete a key of the knowledge API."""
    gone = store.rows("delete from api_tokens where id = %s and type = 'dataset' returning id", str(key_id))
    if not gone:
        raise ApiError(404, "not_found", "API key not found")
    return jsonify({"result": "success"}), 204


@blueprint.get("/workspaces/current")
def workspace() -> Response:
    """Show the workspace."""
    found = store.row("select * from tenants limit 1")
    return jsonify(json.loads(json.dumps(found, default=str)))
