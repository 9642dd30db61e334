"""/console/api/workspaces/current/plugin: packages, installation, tasks, upgrade, and what there would be to get."""

from typing import Any
from urllib.parse import quote

from flask import Response, jsonify, request
from werkzeug.exceptions import NotFound

from dify_standin import marketplace, model_records, plugins
from dify_standin.config import text
from dify_standin.console_api import blueprint
from dify_standin.dialect import dialect
from dify_standin.errors import ApiError

Json = dict[str, Any]

ROOT = "/workspaces/current/plugin"
CATEGORIES = frozenset({"tool", "model", "extension", "agent-strategy", "datasource", "trigger"})
KEY_ERROR = "The browser (or proxy) sent a request that this server could not understand."
# Noon in China's capital, when a workspace's plugins are renewed unless it chose another time.
UPGRADE_SECONDS = 35100


def _newer_route() -> None:
    if not dialect().model_summary:
        raise NotFound


def _unreachable(url: str) -> ApiError:
    return ApiError(400, "invalid_param", f"Reached maximum retries (3) for URL {url}")


def _download_url(identifier: str) -> str:
    base = text("MARKETPLACE_API_URL", "https://marketplace.dify.ai").rstrip("/")
    return f"{base}/api/v1/plugins/download-url?unique_identifier={quote(identifier, safe='')}"


def _installed(size: int = plugins.MOST, page: int = 1) -> Json:
    found: Json = plugins.call("management/list", page=page, page_size=size, response_type="paged")
    return found


@blueprint.get(f"{ROOT}/list")
def plugin_list() -> Response:
    """List the installed plugins, which the plugin daemon has."""
    page = request.args.get("page", 1, type=int)
    size = min(plugins.MOST, request.args.get("page_size", plugins.MOST, type=int))
    listed = _installed(size, page)
    return jsonify({"plugins": listed.get("list") or [], "total": listed.get("total", 0)})


@blueprint.post(f"{ROOT}/list/installations/ids")
def installations() -> Response:
    """List the installations of some plugins."""
    wanted = request.get_json()["plugin_ids"]
    return jsonify({"plugins": [one for one in _installed()["list"] if one["plugin_id"] in wanted]})


@blueprint.post(f"{ROOT}/list/latest-versions")
def latest_versions() -> Response:
    """Return the newest version of each plugin that the catalogue has."""
    found = {}
    for plugin in request.get_json()["plugin_ids"]:
        if identifier := marketplace.latest(plugin):
            found[plugin] = {
                "plugin_id": plugin,
                "version": identifier.partition(":")[2].partition("@")[0],
                "unique_identifier": identifier,
                "status": "active",
                "deprecated_reason": "",
                "alternative_plugin_id": "",
            }
    return jsonify({"versions": found})


@blueprint.get(f"{ROOT}/installed-ids")
def installed_ids() -> Response:
    """List the ids of the installed plugins of a category."""
    _newer_route()
    category = request.args.get("category")
    found = [
        one["plugin_id"] for one in _installed()["list"] if category in {None, one["declaration"]["category"]}
    ]
    return jsonify({"plugin_ids": found})


@blueprint.get(f"{ROOT}/<category>/list")
def category_list(category: str) -> Response:
    """List the installed plugins of a category."""
    _newer_route()
    if category not in CATEGORIES:
        raise NotFound
    found = [_in_category(one) for one in _installed()["list"] if one["declaration"]["category"] == category]
    return jsonify({"plugins": found, "total": len(found)})


def _in_category(one: Json) -> Json:
    return {
        "id": one["id"],
        "name": one["declaration"]["name"],
        "tenant_id": one["tenant_id"],
        "plugin_id": one["plugin_id"],
        "plugin_unique_identifier": one["plugin_unique_identifier"],
        "endpoints_active": 0,
        "endpoints_setups": 0,
        "installation_id": one["id"],
        "declaration": one["declaration"],
        "runtime_type": one["runtime_type"],
        "version": one["version"],
        "source": one["source"],
        "checksum": one["checksum"],
        "meta": one["meta"],
    }


@blueprint.get(f"{ROOT}/permission/fetch")
def permission() -> Response:
    """Say who may install and debug plugins."""
    return jsonify({"install_permission": "everyone", "debug_permission": "everyone"})


@blueprint.get(f"{ROOT}/auto-upgrade/fetch")
def auto_upgrade() -> Response:
    """Say how plugins of the marketplace are renewed."""
    _newer_route()
    setting = {
        "strategy_setting": "latest",
        "upgrade_time_of_day": UPGRADE_SECONDS,
        "upgrade_mode": "exclude",
        "exclude_plugins": [],
        "include_plugins": [],
    }
    return jsonify({"category": request.args.get("category"), "auto_upgrade": setting})


@blueprint.post(f"{ROOT}/upload/pkg")
def upload() -> Response:
    """Take a package from a file."""
    file = request.files.get("pkg")
    if file is None:
        raise ApiError(400, "bad_request_key_error", KEY_ERROR)
    return jsonify(plugins.upload(file.read()))


@blueprint.post(f"{ROOT}/upload/github")
def upload_github() -> Response:
    """There is no network: the package of a release cannot be downloaded."""
    body = request.get_json()
    release = f"{body['repo']}/releases/download/{body['version']}/{body['package']}"
    raise _unreachable(f"https://github.com/{release}")


@blueprint.get(f"{ROOT}/marketplace/pkg")
def marketplace_package() -> Response:
    """Show a package of the catalogue."""
    identifier = request.args.get("plugin_unique_identifier", "")
    found = marketplace.find(identifier)
    if found is None:
        raise _unreachable(_download_url(identifier))
    return jsonify({"manifest": found.declaration})


@blueprint.get(f"{ROOT}/fetch-manifest")
def fetch_manifest() -> Response:
    """Show an uploaded package."""
    identifier = request.args.get("plugin_unique_identifier", "")
    found: Json = plugins.call("management/fetch/manifest", plugin_unique_identifier=identifier)
    return jsonify({"manifest": found["manifest"]})


def _task(answer: Json) -> Response:
    extra = {"task": None} if dialect().model_summary else {}
    return jsonify({"all_installed": answer["all_installed"], "task_id": answer["task_id"], **extra})


def _meta(identifier: str) -> Json:
    return {"plugin_unique_identifier": identifier}


@blueprint.post(f"{ROOT}/install/pkg")
def install() -> Response:
    """Start to install uploaded packages."""
    identifiers = request.get_json()["plugin_unique_identifiers"]
    metas = [_meta(one) if dialect().model_summary else {} for one in identifiers]
    body = {"plugin_unique_identifiers": identifiers, "source": "package", "metas": metas}
    return _task(plugins.post("management/install/identifiers", body))


@blueprint.post(f"{ROOT}/install/marketplace")
def install_from_marketplace() -> Response:
    """Start to install packages of the catalogue."""
    identifiers = request.get_json()["plugin_unique_identifiers"]
    for one in identifiers:
        if marketplace.find(one) is None:
            raise _unreachable(_download_url(one))
        plugins.post("management/install/marketplace", {"plugin_unique_identifier": one})
    metas = [_meta(one) for one in identifiers]
    body = {"plugin_unique_identifiers": identifiers, "source": "marketplace", "metas": metas}
    return _task(plugins.post("management/install/identifiers", body))


@blueprint.post(f"{ROOT}/upgrade/github")
def upgrade_from_github() -> Response:
    """Replace an installed plugin by an uploaded package."""
    body = request.get_json()
    meta = {name: body[name] for name in ("repo", "version", "package")}
    return _task(_upgrade(body, "github", meta))


@blueprint.post(f"{ROOT}/upgrade/marketplace")
def upgrade_from_marketplace() -> Response:
    """Replace an installed plugin by a package of the catalogue."""
    body = request.get_json()
    new = str(body["new_plugin_unique_identifier"])
    if new == body["original_plugin_unique_identifier"]:
        raise ApiError(400, "invalid_param", "you should not upgrade plugin with the same plugin")
    if marketplace.find(new) is None:
        raise ApiError(500, "unknown", "Internal Server Error")
    plugins.post("management/install/marketplace", {"plugin_unique_identifier": new})
    return _task(_upgrade(body, "marketplace", _meta(new)))


def _upgrade(body: Json, source: str, meta: Json) -> Json:
    names = ("original_plugin_unique_identifier", "new_plugin_unique_identifier")
    found: Json = plugins.post(
        "management/install/upgrade", {**{name: body[name] for name in names}, "source": source, "meta": meta}
    )
    return found


@blueprint.get(f"{ROOT}/tasks")
def tasks() -> Response:
    """List the tasks."""
    return jsonify({"tasks": plugins.call("management/install/tasks")})


@blueprint.get(f"{ROOT}/tasks/<task_id>")
def task(task_id: str) -> Response:
    """Show a task, as long as it is kept."""
    return jsonify({"task": plugins.call(f"management/install/tasks/{quote(task_id, safe='')}")})


@blueprint.post(f"{ROOT}/tasks/delete_all")
def delete_tasks() -> Response:
    """Forget the finished tasks."""
    return jsonify({"success": plugins.post("management/install/tasks/delete_all", {})})


@blueprint.post(f"{ROOT}/tasks/<task_id>/delete")
def delete_task(task_id: str) -> Response:
    """Forget a task."""
    return jsonify(
        {"success": plugins.post(f"management/install/tasks/{quote(task_id, safe='')}/delete", {})}
    )


@blueprint.post(f"{ROOT}/uninstall")
def uninstall() -> Response:
    """Remove an installation. Model credentials stay; those of the provider go, unless they are to be kept."""
    body = request.get_json()
    installation = str(body["plugin_installation_id"])
    plugin = next((one["plugin_id"] for one in _installed()["list"] if one["id"] == installation), None)
    done = plugins.post("management/uninstall", {"plugin_installation_id": installation})
    if plugin and not body.get("preserve_credentials"):
        model_records.delete_provider_credentials(plugins.tenant_id(), plugin)
    return jsonify({"success": done})
