"""/console/api/workspaces/current/model-providers: providers, and the credentials of a provider as a whole."""

from collections.abc import Callable
from typing import Any

from flask import Response, jsonify, request
from werkzeug.exceptions import NotFound

from dify_standin import credentials, model_forms, model_records, models, plugins
from dify_standin.console_api import blueprint
from dify_standin.console_forms import (
    ParserCredentialCreate,
    ParserCredentialId,
    ParserCredentialQuery,
    ParserCredentialUpdate,
    ParserCredentialValidate,
    validated,
)
from dify_standin.dialect import dialect
from dify_standin.errors import ApiError
from dify_standin.provider_catalogue import Provider, provider, providers

Json = dict[str, Any]

ROOT = "/workspaces/current/model-providers"
ONE = f"{ROOT}/<author>/<plugin>/<name>"
NOT_FOUND = "Credential record not found."


def one_provider(author: str, plugin: str, name: str) -> Provider:
    """Return the provider of a path. Raises ApiError."""
    return provider(f"{author}/{plugin}/{name}")


def next_name(kept: list[Json]) -> str:
    """Return the name of a credential that was given none."""
    numbers = [
        int(one["name"][8:])
        for one in kept
        if one["name"][8:].isdigit() and one["name"].startswith("API KEY ")
    ]
    return f"API KEY {max(numbers, default=0) + 1}"


def success(status: int = 200) -> tuple[Response, int]:
    """Return the answer of a change."""
    return jsonify({"result": "success"}), status


def no_content() -> Response:
    """Return the answer of a deletion."""
    return Response("", 204, content_type="application/json")


def refused(problem: model_forms.RefusedError) -> ApiError:
    """Return the error of a credential that the endpoint refuses."""
    return ApiError(400, "invalid_param", str(problem))


def validation(check: Callable[[], object]) -> Response:
    """Return the answer of a validation, which is 200 also where `check` raises a form's error."""
    try:
        check()
    except model_forms.RefusedError as problem:
        return jsonify({"result": "error", "error": str(problem)})
    except ApiError as problem:
        if problem.status != 400:  # noqa: PLR2004  # the form's own errors
            raise
        return jsonify({"result": "error", "error": problem.message})
    return jsonify({"result": "success", "error": None})


def _names(kept: list[Json]) -> list[Json]:
    return [{"credential_id": str(one["id"]), "credential_name": one["name"]} for one in kept]


@blueprint.get(ROOT)
def provider_list() -> Response:
    """List the providers of the installed plugins."""
    kind = request.args.get("model_type")
    found = [one for one in providers() if not kind or kind in one.declared["supported_model_types"]]
    return jsonify({"data": [_provider(one) for one in found]})


def _provider(one: Provider) -> Json:
    declared = one.declared
    return {
        "tenant_id": plugins.tenant_id(),
        "provider": one.name,
        "label": declared["label"],
        "description": declared["description"],
        "icon_small": one.icons("icon_small"),
        "icon_small_dark": one.icons("icon_small_dark"),
        "background": declared["background"],
        "help": declared["help"],
        "supported_model_types": declared["supported_model_types"],
        "configurate_methods": declared["configurate_methods"],
        "provider_credential_schema": declared["provider_credential_schema"],
        "model_credential_schema": declared["model_credential_schema"],
        "preferred_provider_type": "custom",
        "custom_configuration": _custom(one),
        "system_configuration": {"enabled": False, "current_quota_type": None, "quota_configurations": []},
    }


def _custom(one: Provider) -> Json:
    tenant = plugins.tenant_id()
    kept = model_records.provider_credentials(tenant, one.name)
    current = model_records.current_provider_credential(tenant, one.name)
    listed = [_custom_model(row) for row in model_records.listed_models(tenant, one.name)]
    return {
        "status": "active" if current or listed else "no-configure",
        "current_credential_id": str(current["id"]) if current else None,
        "current_credential_name": current["name"] if current else None,
        "available_credentials": _names(kept),
        "custom_models": listed,
        "can_added_models": [],
    }


def _custom_model(row: Json) -> Json:
    key = (str(row["tenant_id"]), row["provider"], row["model"], row["model_type"])
    kept = model_records.model_credentials(key)
    current = next((one for one in kept if str(one["id"]) == str(row["credential_id"])), None)
    return {
        "model": row["model"],
        "model_type": row["model_type"],
        "current_credential_id": str(row["credential_id"]),
        "current_credential_name": current["name"] if current else None,
        "available_model_credentials": _names(kept),
    }


@blueprint.get(f"{ROOT}/summary")
def summary() -> Response:
    """List providers in short, with the plugins that they come from."""
    if not dialect().model_summary:
        raise NotFound
    found = providers()
    installed = plugins.call("management/list", page=1, page_size=plugins.MOST)["list"] if found else []
    names = ("plugin_id", "plugin_unique_identifier", "runtime_type", "source", "version")
    described = {
        one["plugin_id"]: {"installation_id": one["id"], **{name: one[name] for name in names}}
        for one in installed
    }
    wanted = {one.plugin for one in found}
    return jsonify(
        {
            "data": [_summary(one) for one in found],
            "plugins": {plugin: one for plugin, one in described.items() if plugin in wanted},
        }
    )


def _summary(one: Provider) -> Json:
    custom = _custom(one)
    names = ("provider", "label", "description", "icon_small", "icon_small_dark", "supported_model_types")
    whole = _provider(one)
    return {
        **{name: whole[name] for name in names},
        "plugin_id": one.plugin,
        "configurate_methods": whole["configurate_methods"],
        "preferred_provider_type": "custom",
        "is_configured": custom["status"] == "active",
        "custom_configuration": {
            "status": custom["status"],
            "has_custom_models": bool(custom["custom_models"]),
            "available_credentials": custom["available_credentials"],
            "current_credential_id": custom["current_credential_id"],
            "current_credential_name": custom["current_credential_name"],
            "current_credential_usable": custom["current_credential_id"] is not None,
        },
        "system_configuration": {"enabled": False},
    }


@blueprint.get(f"{ONE}/credentials")
def read_credential(author: str, plugin: str, name: str) -> Response:
    """Show a provider's credential, with its secrets masked."""
    query = validated(ParserCredentialQuery, dict(request.args))
    one, tenant = one_provider(author, plugin, name), plugins.tenant_id()
    form = model_forms.provider_form(one)
    if query.credential_id:
        kept = model_records.provider_credential(tenant, one.name, query.credential_id)
        if kept is None:
            raise ApiError(400, "invalid_param", NOT_FOUND)
    else:
        kept = model_records.current_provider_credential(tenant, one.name)
    return jsonify({"credentials": credentials.masked(form, kept["secrets"]) if kept else None})


@blueprint.post(f"{ONE}/credentials")
def create_credential(author: str, plugin: str, name: str) -> tuple[Response, int]:
    """Keep a provider's credential once its endpoint has accepted it."""
    body = validated(ParserCredentialCreate, request.get_json())
    one, tenant = one_provider(author, plugin, name), plugins.tenant_id()
    model_forms.provider_form(one)
    kept = model_records.provider_credentials(tenant, one.name)
    _check_name(kept, body.name)
    try:
        values = model_forms.provider_values(one, body.credentials, {})
    except model_forms.RefusedError as problem:
        raise refused(problem) from None
    model_records.add_provider_credential(tenant, one.name, body.name or next_name(kept), values)
    return success(201)


@blueprint.put(f"{ONE}/credentials")
def update_credential(author: str, plugin: str, name: str) -> tuple[Response, int]:
    """Replace a provider's credential once its endpoint has accepted the new one."""
    body = validated(ParserCredentialUpdate, request.get_json())
    one, tenant = one_provider(author, plugin, name), plugins.tenant_id()
    kept = model_records.provider_credentials(tenant, one.name)
    _check_name([row for row in kept if str(row["id"]) != body.credential_id], body.name)
    record = next((row for row in kept if str(row["id"]) == body.credential_id), None)
    if record is None:
        raise ApiError(400, "invalid_param", NOT_FOUND)
    try:
        values = model_forms.provider_values(one, body.credentials, record["secrets"])
    except model_forms.RefusedError as problem:
        raise refused(problem) from None
    model_records.change_provider_credential(body.credential_id, body.name or record["name"], values)
    return success()


def _check_name(kept: list[Json], name: str | None) -> None:
    if name and name in {row["name"] for row in kept}:
        raise ApiError(400, "invalid_param", f"Credential with name '{name}' already exists.")


def _require_kept(tenant: str, one: Provider, credential: str) -> None:
    if model_records.provider_credential(tenant, one.name, credential) is None:
        raise ApiError(400, "invalid_param", NOT_FOUND)


@blueprint.delete(f"{ONE}/credentials")
def delete_credential(author: str, plugin: str, name: str) -> Response:
    """Delete a provider's credential; the body names it on every release."""
    body = validated(ParserCredentialId, request.get_json())
    one, tenant = one_provider(author, plugin, name), plugins.tenant_id()
    _require_kept(tenant, one, body.credential_id)
    model_records.delete_provider_credential(tenant, one.name, body.credential_id)
    return no_content()


@blueprint.post(f"{ONE}/credentials/switch")
def switch_credential(author: str, plugin: str, name: str) -> tuple[Response, int]:
    """Put another credential of a provider in force."""
    body = validated(ParserCredentialId, request.get_json())
    one, tenant = one_provider(author, plugin, name), plugins.tenant_id()
    _require_kept(tenant, one, body.credential_id)
    model_records.use_provider_credential(tenant, one.name, body.credential_id)
    return success()


@blueprint.post(f"{ONE}/credentials/validate")
def validate_credential(author: str, plugin: str, name: str) -> Response:
    """Validate a provider's credential and keep nothing."""
    body = validated(ParserCredentialValidate, request.get_json())
    one = one_provider(author, plugin, name)
    return validation(lambda: model_forms.provider_values(one, body.credentials, {}))


@blueprint.get(f"{ONE}/models")
def model_list(author: str, plugin: str, name: str) -> Response:
    """List the models of a provider."""
    one = one_provider(author, plugin, name)
    return jsonify({"data": [{**entry, "provider": one.short()} for entry in models.entries(one)]})
