"""What the plugin daemon keeps in its database: packages, installations, and the tasks that install.

A task is finished by the first request after its time has come, so it needs no thread and survives a restart.
"""

import json
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from dify_standin import store
from dify_standin.config import text
from dify_standin.packages import Package, checksum_of, plugin_of, version_of
from dify_standin.plugin_runtime import RUNTIME

Json = dict[str, Any]

SCHEMA = """
create table if not exists endpoints (id uuid primary key default gen_random_uuid(), hook_id text unique not null);
create table if not exists plugin_packages (
  identifier text primary key, declaration jsonb not null, present boolean not null);
create table if not exists installed_plugins (
  id uuid primary key, tenant_id uuid not null, plugin_id text not null, identifier text not null, source text not null,
  meta jsonb not null, created_at timestamptz not null, unique (tenant_id, plugin_id));
create table if not exists plugin_tasks (
  id uuid primary key, tenant_id uuid not null, identifiers jsonb not null, source text not null, metas jsonb not null,
  status text not null, message text not null, created_at timestamptz not null, updated_at timestamptz not null);
"""
# How long a finished task can be read.
KEPT = timedelta(seconds=60)


class UnknownPackageError(Exception):
    """A package was never uploaded."""


class LostPackageError(Exception):
    """A package was uploaded, and went with its last installation."""


def now() -> datetime:
    """Return the time; tests replace it."""
    return datetime.now(UTC)


def install_seconds() -> float:
    """Return how long an installation takes."""
    return float(text("DIFY_STANDIN_INSTALL_SECONDS") or 1.5)


def save(package: Package) -> None:
    """Keep an uploaded package."""
    store.rows(
        "insert into plugin_packages (identifier, declaration, present) values (%s, %s, true) "
        "on conflict (identifier) do update set declaration = excluded.declaration, present = true",
        package.identifier,
        json.dumps(package.declaration),
    )


def declaration(identifier: str) -> Json:
    """Return the declaration of an uploaded package. Raises UnknownPackageError and LostPackageError."""
    found = store.row("select * from plugin_packages where identifier = %s", identifier)
    if found is None:
        raise UnknownPackageError(identifier)
    if not found["present"]:
        raise LostPackageError(identifier)
    kept: Json = found["declaration"]
    return kept


def installations(tenant: str) -> list[store.Row]:
    """Return a workspace's installations with their declarations, the newest first."""
    settle(tenant)
    return store.rows(
        "select i.*, p.declaration from installed_plugins i join plugin_packages p on p.identifier = i.identifier "
        "where i.tenant_id = %s order by i.created_at desc",
        tenant,
    )


def installed(tenant: str, plugin: str) -> store.Row | None:
    """Return the installation of a plugin, `author/name`."""
    return next((one for one in installations(tenant) if one["plugin_id"] == plugin), None)


def start_task(tenant: str, identifiers: Sequence[str], source: str, metas: Sequence[Json]) -> str | None:
    """Start to install packages, each with its `meta`; return the task's id, None when all are installed already.

    Raises UnknownPackageError and LostPackageError.
    """
    for one in identifiers:
        declaration(one)
    here = {one["identifier"] for one in installations(tenant)}
    if here.issuperset(identifiers):
        return None
    # A version that has just been left is found to be running, and nothing is started.
    at_once = all(RUNTIME.was_left_lately(one) for one in identifiers)
    for one in identifiers:
        if at_once:
            RUNTIME.break_down(one)
    task = str(uuid.uuid4())
    began = now() - timedelta(seconds=install_seconds()) if at_once else now()
    _save_task(task=task, tenant=tenant, identifiers=identifiers, source=source, metas=metas, began=began)
    if at_once:
        settle(tenant)
    return task


def _save_task(
    *, task: str, tenant: str, identifiers: Sequence[str], source: str, metas: Sequence[Json], began: datetime
) -> None:
    store.rows(
        "insert into plugin_tasks (id, tenant_id, identifiers, source, metas, status, message, created_at, updated_at) "
        "values (%s, %s, %s, %s, %s, 'running', 'starting', %s, %s)",
        task,
        tenant,
        json.dumps(list(identifiers)),
        source,
        json.dumps(list(metas)),
        began,
        began,
    )


def settle(tenant: str) -> None:
    """Finish the tasks whose time has come, and forget the finished ones whose time has passed."""
    moment = now()
    due = store.rows(
        "select id from plugin_tasks where tenant_id = %s and status = 'running' and created_at <= %s "
        "order by created_at",
        tenant,
        moment - timedelta(seconds=install_seconds()),
    )
    for task in due:
        mine = store.row(
            "update plugin_tasks set status = 'success', message = 'installed', updated_at = %s "
            "where id = %s and status = 'running' returning *",
            moment,
            task["id"],
        )
        if mine is not None:
            for identifier, meta in zip(mine["identifiers"], mine["metas"], strict=True):
                _install(tenant, identifier, mine["source"], meta)
    store.rows(
        "delete from plugin_tasks where tenant_id = %s and status = 'success' and updated_at <= %s",
        tenant,
        moment - KEPT,
    )


def _install(tenant: str, identifier: str, source: str, meta: Json) -> None:
    """Note an installation. One version of a plugin that is installed stays, though the other runs as well."""
    RUNTIME.launch(identifier)
    plugin = plugin_of(identifier)
    store.rows(
        "insert into installed_plugins (id, tenant_id, plugin_id, identifier, source, meta, created_at) "
        "values (%s, %s, %s, %s, %s, %s, %s) on conflict (tenant_id, plugin_id) do nothing",
        str(uuid.uuid4()),
        tenant,
        plugin,
        identifier,
        source,
        json.dumps(meta),
        now(),
    )


def upgrade(tenant: str, old: str, new: str, source: str, meta: Json) -> str:
    """Replace an installation by another version; return the id of the task, which is finished.

    Raises UnknownPackageError, LostPackageError, and LookupError when the old one is not installed.
    """
    declaration(new)
    found = installed(tenant, plugin_of(old))
    if found is None or found["identifier"] != old:
        raise LookupError(old)
    store.rows(
        "update installed_plugins set identifier = %s, source = %s, meta = %s where id = %s",
        new,
        source,
        json.dumps(meta),
        found["id"],
    )
    RUNTIME.launch(new)
    RUNTIME.leave(old)
    _drop_package(old)
    task, moment = str(uuid.uuid4()), now()
    _save_task(task=task, tenant=tenant, identifiers=[new], source=source, metas=[meta], began=moment)
    store.rows("update plugin_tasks set status = 'success', message = 'upgraded' where id = %s", task)
    return task


def uninstall(tenant: str, installation: str) -> None:
    """Remove an installation, if there is one, and its package."""
    settle(tenant)
    gone = store.row(
        "delete from installed_plugins where tenant_id = %s and id = %s returning identifier",
        tenant,
        installation,
    )
    if gone:
        RUNTIME.stop(gone["identifier"])
        _drop_package(gone["identifier"])


def _drop_package(identifier: str) -> None:
    if store.row("select 1 from installed_plugins where identifier = %s", identifier) is None:
        store.rows("update plugin_packages set present = false where identifier = %s", identifier)


def tasks(tenant: str) -> list[Json]:
    """Return the tasks that are kept, the newest first."""
    settle(tenant)
    found = store.rows("select * from plugin_tasks where tenant_id = %s order by created_at desc", tenant)
    return [_task_json(one) for one in found]


def task(tenant: str, task_id: str) -> Json | None:
    """Return a task, None when it is gone."""
    settle(tenant)
    found = store.row("select * from plugin_tasks where tenant_id = %s and id = %s", tenant, task_id)
    return _task_json(found) if found else None


def delete_tasks(tenant: str, task_id: str | None = None) -> None:
    """Forget one task, or all that are finished."""
    if task_id:
        store.rows("delete from plugin_tasks where tenant_id = %s and id = %s", tenant, task_id)
    else:
        store.rows("delete from plugin_tasks where tenant_id = %s and status <> 'running'", tenant)


def _task_json(task: store.Row) -> Json:
    identifiers: list[str] = task["identifiers"]
    return {
        "id": str(task["id"]),
        "created_at": _moment(task["created_at"]),
        "updated_at": _moment(task["updated_at"]),
        "status": task["status"],
        "total_plugins": len(identifiers),
        "completed_plugins": len(identifiers) if task["status"] == "success" else 0,
        "plugins": [_task_plugin(task, one) for one in identifiers],
    }


def _task_plugin(task: store.Row, identifier: str) -> Json:
    found = store.row("select declaration from plugin_packages where identifier = %s", identifier)
    declared: Json = found["declaration"] if found and task["message"] != "upgraded" else {}
    return {
        "plugin_unique_identifier": identifier,
        "plugin_id": plugin_of(identifier),
        "status": task["status"],
        "message": task["message"],
        "icon": declared.get("icon", ""),
        "labels": declared.get("label") or dict.fromkeys(("en_US", "zh_Hans", "pt_BR", "ja_JP"), ""),
        "source": task["source"],
    }


def installation_json(found: store.Row) -> Json:
    """Return an installation as the list of plugins shows it."""
    identifier = found["identifier"]
    return {
        "id": str(found["id"]),
        "created_at": _moment(found["created_at"]),
        "updated_at": _moment(found["created_at"]),
        "tenant_id": str(found["tenant_id"]),
        "endpoints_setups": 0,
        "endpoints_active": 0,
        "runtime_type": "local",
        "source": found["source"],
        "meta": found["meta"],
        "plugin_id": found["plugin_id"],
        "plugin_unique_identifier": identifier,
        "version": version_of(identifier),
        "checksum": checksum_of(identifier),
        "declaration": found["declaration"],
    }


def _moment(value: datetime) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
