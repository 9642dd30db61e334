"""The plugins that an app's DSL names: noted at import, compared with the installed ones, written at export."""

import uuid
from typing import Any

import yaml
from flask import Response, jsonify
from pydantic import BaseModel, ConfigDict, ValidationError

from dify_standin import plugins, store
from dify_standin.console_api import blueprint
from dify_standin.errors import ApiError
from dify_standin.packages import plugin_of, version_of
from dify_standin.provider_catalogue import full_name
from dify_standin.refusals import pydantic_text

Json = dict[str, Any]

# Which field of `value` names the plugin.
NAMES = {
    "package": "plugin_unique_identifier",
    "marketplace": "marketplace_plugin_unique_identifier",
    "github": "github_plugin_unique_identifier",
}


class PluginDependency(BaseModel):
    """One dependency of a DSL."""

    model_config = ConfigDict(extra="allow")

    type: str
    value: Json
    current_identifier: str | None = None


def problem_of(described: Json) -> str | None:
    """Return what is wrong with the dependencies of a DSL."""
    try:
        for one in described.get("dependencies") or []:
            PluginDependency.model_validate(one)
    except ValidationError as problem:
        return pydantic_text(problem)
    return None


def _installed() -> dict[str, Json]:
    found = plugins.call("management/list", page=1, page_size=plugins.MOST)
    return {one["plugin_id"]: one for one in found["list"]}


@blueprint.get("/apps/imports/<uuid:app_id>/check-dependencies")
def check_dependencies(app_id: uuid.UUID) -> Response:
    """List the dependencies that are not installed exactly so."""
    app = store.row("select dsl from apps where id = %s", str(app_id))
    if app is None:
        raise ApiError(404, "app_not_found", "App not found.")
    named = yaml.safe_load(app["dsl"]).get("dependencies") or []
    installed = _installed() if named else {}
    return jsonify({"leaked_dependencies": [one for one in (_missing(d, installed) for d in named) if one]})


def _missing(dependency: Json, installed: dict[str, Json]) -> Json | None:
    kind, value = dependency["type"], dependency["value"]
    identifier = str(value.get(NAMES.get(kind, ""), ""))
    here = installed.get(plugin_of(identifier))
    current = here["plugin_unique_identifier"] if here else ""
    if current == identifier:
        return None
    version = value.get("version")
    if kind == "marketplace":
        version = version or version_of(identifier)
    return {"type": kind, "value": {**value, "version": version}, "current_identifier": current}


def exported(described: Json) -> Json:
    """Return a DSL as it is exported: its dependencies are the installed plugins of its models."""
    wanted = dict.fromkeys(plugin_id for plugin_id in _plugins_of(described))
    if not wanted:
        return described
    installed = _installed()
    found = [_dependency(installed[one]) for one in wanted if one in installed]
    return {**described, "dependencies": found}


def _plugins_of(described: Json) -> list[str]:
    nodes = ((described.get("workflow") or {}).get("graph") or {}).get("nodes") or []
    asked = [node["data"]["model"]["provider"] for node in nodes if node["data"].get("type") == "llm"]
    if model := (described.get("model_config") or {}).get("model"):
        asked.append(model["provider"])
    return [full_name(str(name)).rpartition("/")[0] for name in asked]


def _dependency(one: Json) -> Json:
    kind, identifier = one["source"], one["plugin_unique_identifier"]
    value: Json = {NAMES[kind]: identifier, "version": None}
    if kind == "github":
        value = {**one["meta"], NAMES[kind]: identifier}
    return {"current_identifier": None, "type": kind, "value": value}
