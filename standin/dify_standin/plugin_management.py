"""The plugin daemon's routes below `management`: upload, install, tasks, upgrade, uninstall, and lists."""

import uuid
from typing import Any

from flask import Blueprint, Response, request

from dify_standin import marketplace, packages, plugin_records
from dify_standin.config import flag
from dify_standin.daemon_answers import problem, success

blueprint = Blueprint("management", __name__, url_prefix="/plugin/<uuid:tenant>/management")

# The daemon's words. With a value inside, because the check of this project's texts reads whole strings.
BAD_SIGNATURE = (
    f"plugin verification has been enabled, and the plugin you {'want'} to install has a bad signature"
)


def _installation(found: dict[str, Any]) -> dict[str, Any]:
    return plugin_records.installation_json(found)


@blueprint.get("/list")
def installed(tenant: uuid.UUID) -> Response:
    """List the installed plugins."""
    found = [_installation(one) for one in plugin_records.installations(str(tenant))]
    page, size = request.args.get("page", 1, type=int), request.args.get("page_size", 256, type=int)
    return success({"list": found[(page - 1) * size : page * size], "total": len(found)})


@blueprint.get("/models")
def models(tenant: uuid.UUID) -> Response:
    """List the model providers of the installed plugins, the oldest first."""
    found = [
        {
            "id": str(one["id"]),
            "tenant_id": str(tenant),
            "provider": one["declaration"]["model"]["provider"],
            "plugin_id": one["plugin_id"],
            "plugin_unique_identifier": one["identifier"],
            "declaration": one["declaration"]["model"],
        }
        for one in reversed(plugin_records.installations(str(tenant)))
        if one["declaration"]["model"]
    ]
    return success(found)


@blueprint.post("/install/upload/package")
def upload(tenant: uuid.UUID) -> Response:  # noqa: ARG001  # packages belong to all workspaces
    """Keep a package. Its signature is demanded unless FORCE_VERIFYING_SIGNATURE is false."""
    file = request.files.get("dify_pkg")
    if file is None:
        return problem(-400, "BadRequest", "http: no such file")
    try:
        package = packages.read(file.read())
    except packages.PackageError as found:
        return problem(-400, "BadRequest", str(found))
    if flag("FORCE_VERIFYING_SIGNATURE", default=True) and not package.signed:
        return problem(-400, "BadRequest", BAD_SIGNATURE)
    plugin_records.save(package)
    return success(
        {
            "unique_identifier": package.identifier,
            "manifest": package.declaration,
            "verification": package.verification,
        }
    )


@blueprint.get("/fetch/manifest")
def manifest(tenant: uuid.UUID) -> Response:  # noqa: ARG001  # packages belong to all workspaces
    """Return the declaration of an uploaded package."""
    try:
        declared = plugin_records.declaration(request.args.get("plugin_unique_identifier", ""))
    except (plugin_records.UnknownPackageError, plugin_records.LostPackageError):
        return problem(-404, "NotFound", "plugin not found")
    return success({"manifest": declared})


@blueprint.post("/install/marketplace")
def offer(tenant: uuid.UUID) -> Response:  # noqa: ARG001  # packages belong to all workspaces
    """Take a package from the stand-in's catalogue. The real api downloads it and uploads it here."""
    identifier = str(request.get_json()["plugin_unique_identifier"])
    found = marketplace.find(identifier)
    if found is None:
        return problem(-404, "NotFound", f"{identifier} is not in the stand-in's catalogue")
    plugin_records.save(found)
    return success({"unique_identifier": found.identifier})


@blueprint.post("/install/identifiers")
def install(tenant: uuid.UUID) -> Response:
    """Start to install uploaded packages."""
    body = request.get_json()
    identifiers = [str(one) for one in body["plugin_unique_identifiers"]]
    try:
        task = plugin_records.start_task(
            str(tenant),
            identifiers,
            str(body.get("source", "package")),
            body.get("metas") or [{} for _ in identifiers],
        )
    except plugin_records.UnknownPackageError:
        return problem(-400, "BadRequest", "plugin package not found, please upload it firstly")
    except plugin_records.LostPackageError:
        return problem(-500, "InternalServer", "failed to get package file")
    return success({"all_installed": task is None, "task_id": task or ""})


@blueprint.post("/install/upgrade")
def upgrade(tenant: uuid.UUID) -> Response:
    """Replace an installed plugin by another uploaded package."""
    body = request.get_json()
    old, new = (str(body[f"{name}_plugin_unique_identifier"]) for name in ("original", "new"))
    try:
        task = plugin_records.upgrade(str(tenant), old, new, str(body["source"]), body.get("meta") or {})
    except plugin_records.UnknownPackageError:
        return problem(-400, "BadRequest", "plugin package not found, please upload it firstly")
    except plugin_records.LostPackageError:
        return problem(-500, "InternalServer", "failed to get package file")
    except LookupError:
        return problem(-404, "NotFound", "plugin installation not found for this tenant")
    return success({"all_installed": False, "task_id": task})


@blueprint.get("/install/tasks")
def tasks(tenant: uuid.UUID) -> Response:
    """List the tasks."""
    return success(plugin_records.tasks(str(tenant)))


@blueprint.get("/install/tasks/<task_id>")
def task(tenant: uuid.UUID, task_id: str) -> Response:
    """Return a task. One that is gone is an internal error, as in the real daemon."""
    found = plugin_records.task(str(tenant), task_id) if _is_uuid(task_id) else None
    return success(found) if found else problem(-500, "InternalServer", "record not found")


@blueprint.post("/install/tasks/delete_all")
def delete_tasks(tenant: uuid.UUID) -> Response:
    """Forget the finished tasks."""
    plugin_records.delete_tasks(str(tenant))
    return success(True)


@blueprint.post("/install/tasks/<task_id>/delete")
def delete_task(tenant: uuid.UUID, task_id: str) -> Response:
    """Forget a task."""
    if _is_uuid(task_id):
        plugin_records.delete_tasks(str(tenant), task_id)
    return success(True)


@blueprint.post("/uninstall")
def uninstall(tenant: uuid.UUID) -> Response:
    """Remove an installation. An unknown one is no error."""
    installation = str(request.get_json()["plugin_installation_id"])
    if _is_uuid(installation):
        plugin_records.uninstall(str(tenant), installation)
    return success(True)


def _is_uuid(given: str) -> bool:
    try:
        uuid.UUID(given)
    except ValueError:
        return False
    return True
