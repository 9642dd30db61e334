"""/console/api/workspaces/current: models of a provider with their credentials, models by type, and default models."""

from typing import Any

from flask import Response, jsonify, request

from dify_standin import credentials, model_forms, model_records, models, plugins
from dify_standin.console_api import blueprint
from dify_standin.console_forms import (
    ParserCreateCredential,
    ParserDeleteCredential,
    ParserDeleteModels,
    ParserGetCredentials,
    ParserGetDefault,
    ParserPostDefault,
    ParserPostModels,
    ParserSwitch,
    ParserUpdateCredential,
    ParserValidate,
    validated,
)
from dify_standin.console_providers import (
    NOT_FOUND,
    ONE,
    next_name,
    no_content,
    one_provider,
    refused,
    success,
    validation,
)
from dify_standin.dialect import dialect
from dify_standin.errors import ApiError
from dify_standin.provider_catalogue import Provider, providers

Json = dict[str, Any]

CREDENTIALS = f"{ONE}/models/credentials"


def _key(one: Provider, model: str, model_type: str) -> model_records.Key:
    return plugins.tenant_id(), one.name, model, model_type


def _deleted() -> Json:
    """Return what names the thing to delete: the query on 1.17, the body before."""
    if dialect().deletes_by_query:
        return dict(request.args)
    body: Json = request.get_json()
    return body


@blueprint.get(CREDENTIALS)
def read_model_credential(author: str, plugin: str, name: str) -> Response:
    """Show a model's credential, with its secrets masked; of a model never added all is empty."""
    query = validated(ParserGetCredentials, dict(request.args))
    one = one_provider(author, plugin, name)
    key = _key(one, query.model, query.model_type)
    kept = model_records.model_credentials(key)
    if query.credential_id:
        shown = next((row for row in kept if str(row["id"]) == query.credential_id), None)
        if shown is None:
            raise ApiError(400, "invalid_param", NOT_FOUND)
    else:
        shown = model_records.current_model_credential(key)
    form = model_forms.model_form(one)
    return jsonify(
        {
            "credentials": credentials.masked(form, shown["secrets"], query.model_type) if shown else {},
            "current_credential_id": str(shown["id"]) if shown else None,
            "current_credential_name": shown["name"] if shown else None,
            "load_balancing": {"enabled": False, "configs": []},
            "available_credentials": [
                {"credential_id": str(row["id"]), "credential_name": row["name"]} for row in kept
            ],
        }
    )


@blueprint.post(CREDENTIALS)
def create_model_credential(author: str, plugin: str, name: str) -> tuple[Response, int]:
    """Keep a model's credential once its endpoint has accepted it."""
    body = validated(ParserCreateCredential, request.get_json())
    one = one_provider(author, plugin, name)
    key = _key(one, body.model, body.model_type)
    kept = model_records.model_credentials(key)
    _check_name(kept, body.name, body.model)
    values = _accepted(one, body, {})
    model_records.add_model_credential(key, body.name or next_name(kept), values)
    return success(201)


@blueprint.put(CREDENTIALS)
def update_model_credential(author: str, plugin: str, name: str) -> tuple[Response, int]:
    """Replace a model's credential once its endpoint has accepted the new one."""
    body = validated(ParserUpdateCredential, request.get_json())
    one = one_provider(author, plugin, name)
    kept = model_records.model_credentials(_key(one, body.model, body.model_type))
    _check_name([row for row in kept if str(row["id"]) != body.credential_id], body.name, body.model)
    record = next((row for row in kept if str(row["id"]) == body.credential_id), None)
    if record is None:
        raise ApiError(400, "invalid_param", NOT_FOUND)
    values = _accepted(one, body, record["secrets"])
    model_records.change_model_credential(body.credential_id, body.name or record["name"], values)
    return success()


def _check_name(kept: list[Json], name: str | None, model: str) -> None:
    if name and name in {row["name"] for row in kept}:
        raise ApiError(
            400, "invalid_param", f"Model credential with name '{name}' already exists for {model}."
        )


def _accepted(one: Provider, body: ParserCreateCredential | ParserUpdateCredential, stored: Json) -> Json:
    try:
        return model_forms.model_values(one, body.model, body.model_type, body.credentials, stored)
    except model_forms.RefusedError as problem:
        raise refused(problem) from None


@blueprint.delete(CREDENTIALS)
def delete_model_credential(author: str, plugin: str, name: str) -> Response:
    """Delete a model's credential."""
    named = validated(ParserDeleteCredential, _deleted())
    one = one_provider(author, plugin, name)
    key = _key(one, named.model, named.model_type)
    if model_records.model_credential(key, named.credential_id) is None:
        raise ApiError(400, "invalid_param", NOT_FOUND)
    model_records.delete_model_credential(key, named.credential_id)
    return no_content()


@blueprint.post(f"{CREDENTIALS}/validate")
def validate_model_credential(author: str, plugin: str, name: str) -> Response:
    """Validate a model's credential and keep nothing."""
    body = validated(ParserValidate, request.get_json())
    one = one_provider(author, plugin, name)
    return validation(
        lambda: model_forms.model_values(one, body.model, body.model_type, body.credentials, {})
    )


@blueprint.post(f"{CREDENTIALS}/switch")
def switch_model_credential(author: str, plugin: str, name: str) -> tuple[Response, int]:
    """Put a kept credential of a model in force, and list the model. The one in force already is refused."""
    body = validated(ParserSwitch, request.get_json())
    one = one_provider(author, plugin, name)
    current = model_records.current_model_credential(_key(one, body.model, body.model_type))
    if current and str(current["id"]) == body.credential_id:
        raise ApiError(400, "invalid_param", "Can't add same credential")
    return _list(one, body, body.credential_id)


@blueprint.post(f"{ONE}/models")
def add_model(author: str, plugin: str, name: str) -> tuple[Response, int]:
    """List a model with a kept credential."""
    body = validated(ParserPostModels, request.get_json())
    one = one_provider(author, plugin, name)
    if body.config_from != "custom-model":
        return success()
    if not body.credential_id:
        raise ApiError(400, "invalid_param", "credential_id is required when configuring a custom-model")
    return _list(one, body, body.credential_id)


def _list(one: Provider, body: ParserPostModels | ParserSwitch, credential_id: str) -> tuple[Response, int]:
    key = _key(one, body.model, body.model_type)
    if model_records.model_credential(key, credential_id) is None:
        raise ApiError(400, "invalid_param", NOT_FOUND)
    model_records.list_model(key, credential_id)
    return success()


@blueprint.delete(f"{ONE}/models")
def delete_model(author: str, plugin: str, name: str) -> Response:
    """Take a model out of the list; its credentials stay. An unknown one is no error."""
    named = validated(ParserDeleteModels, _deleted())
    model_records.unlist_model(_key(one_provider(author, plugin, name), named.model, named.model_type))
    return no_content()


@blueprint.patch(f"{ONE}/models/<any(enable, disable):change>")
def enable_model(author: str, plugin: str, name: str, change: str) -> tuple[Response, int]:
    """Enable or disable a model."""
    body = validated(ParserDeleteModels, request.get_json())
    key = _key(one_provider(author, plugin, name), body.model, body.model_type)
    model_records.enable_model(key, enabled=change == "enable")
    return success()


@blueprint.get(f"{ONE}/models/parameter-rules")
def parameter_rules(author: str, plugin: str, name: str) -> Response:
    """List the parameters that a model takes: those of the provider's file, else the usual ones."""
    one, model = one_provider(author, plugin, name), request.args.get("model", "")
    declared = next((m["parameter_rules"] for m in one.predefined() if m["model"] == model), None)
    return jsonify(
        {"data": [_rule(rule) for rule in declared] if declared else list(_usual_rules(one, model))}
    )


def _rule(given: Json) -> Json:
    rule = {"name": given["name"], "use_template": given.get("use_template"), "label": given.get("label")}
    kinds = ("type", "help", "required", "default", "min", "max", "precision", "options")
    return {**rule, **{kind: given.get(kind) for kind in kinds}}


def _usual_rules(one: Provider, model: str) -> list[Json]:
    kept = model_records.current_model_credential(_key(one, model, "llm"))
    most = float((kept["secrets"] if kept else {}).get("max_tokens_to_sample") or 4096)
    usual = (
        ("temperature", "温度", "float", 0.7, 0.0, 2.0, 2),
        ("top_p", "Top P", "float", 1, 0.0, 1.0, 2),
        ("frequency_penalty", "频率惩罚", "float", 0, -2.0, 2.0, None),
        ("presence_penalty", "存在惩罚", "float", 0, -2.0, 2.0, None),
        ("max_tokens", "最大标记", "int", 512, 1.0, most, None),
    )
    return [
        {
            "name": name,
            "use_template": None,
            "label": {"zh_Hans": chinese, "en_US": name.replace("_", " ").title()},
            "type": kind,
            "help": dict.fromkeys(("zh_Hans", "en_US"), f"The parameter {name} of the endpoint."),
            "required": False,
            "default": default,
            "min": least,
            "max": greatest,
            "precision": precision,
            "options": [],
        }
        for name, chinese, kind, default, least, greatest, precision in usual
    ]


@blueprint.get("/workspaces/current/models/model-types/<model_type>")
def models_of_type(model_type: str) -> Response:
    """List the active models of a type, by provider."""
    kind = validated(ParserGetDefault, {"model_type": model_type}).model_type
    data = []
    for one in providers():
        found = [e for e in models.entries(one) if e["model_type"] == kind and e["status"] == models.ACTIVE]
        if found:
            short = {
                n: v
                for n, v in one.short().items()
                if n in {"provider", "label", "icon_small", "icon_small_dark"}
            }
            data.append({"tenant_id": plugins.tenant_id(), **short, "status": models.ACTIVE, "models": found})
    return jsonify({"data": data})


@blueprint.get("/workspaces/current/default-model")
def read_default_model() -> Response:
    """Show the default of a type. Where none is set, the first active model becomes it."""
    kind = validated(ParserGetDefault, dict(request.args)).model_type
    found = models.default(kind)
    if found is None:
        return jsonify({"data": None})
    return jsonify({"data": {"model": found[1], "model_type": kind, "provider": found[0].short()}})


@blueprint.post("/workspaces/current/default-model")
def set_default_model() -> tuple[Response, int]:
    """Set defaults, one after the other: those before a wrong one are kept. An entry without a provider is skipped."""
    body = validated(ParserPostDefault, request.get_json())
    for one in body.model_settings:
        if not one.provider:
            continue
        models.set_default(one.model_type, one.provider, one.model or "")
    return success()
