"""A workspace's plugins and models as Dify's console API has them, in memory, with the answers of the real one.

Observed on a build before 1.17.0 and on 1.14.2, which differ in what DELETE reads.
"""

import hashlib
import io
import json
import re
import uuid
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from infra.resources.console_transport import Answer, Request

PREFIX = "/console/api/workspaces/current"
PLUGIN = "langgenius/openai_api_compatible"
PROVIDER = f"{PLUGIN}/openai_api_compatible"
OLD, NEW = (
    f"{PLUGIN}:0.0.{number}@{hashlib.sha256(str(number).encode()).hexdigest()}" for number in (63, 64)
)
SECRET_FIELDS = frozenset({"api_key"})
SCHEMA: dict[str, dict[str, str | None]] = {
    "llm": {
        "mode": "chat",
        "context_size": None,
        "function_calling_type": "no_call",
        "vision_support": "no_support",
    },
    "text-embedding": {"context_size": None, "max_chunks": None},
}
# Without a default: Dify shows it only where it has a value.
OPTIONAL = frozenset({"display_name"})
STATUS_500 = (500, {"message": "Internal Server Error", "code": "unknown", "status": 500})


def refused(message: str, code: str = "invalid_param") -> tuple[int, dict[str, Any]]:
    return 400, {"code": code, "message": message, "status": 400}


def package(version: str = "0.0.63", author: str = "langgenius") -> bytes:
    """Return a package file."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(
            "manifest.yaml",
            f"author: {author}\nname: openai_api_compatible\nversion: {version}\ntype: plugin\n",
        )
    return file.getvalue()


@dataclass
class Model:
    """A model: its credentials by id as (name, values), and whether it is listed."""

    credentials: dict[str, tuple[str, dict[str, str]]] = field(default_factory=dict)
    current: str = ""
    enabled: bool = True


@dataclass
class Workspace:
    """The way to one api, which it plays. `upstream` is asked when a credential is saved, and returns what is wrong."""

    release: str = "1.17"
    upstream: Callable[[dict[str, str]], str] = lambda _: ""
    requests: list[tuple[str, str]] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)
    installed: dict[str, str] = field(default_factory=dict)
    uploaded: set[str] = field(default_factory=set)
    market: dict[str, str] = field(default_factory=lambda: {PLUGIN: OLD})
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    models: dict[tuple[str, str], Model] = field(default_factory=dict)
    defaults: dict[str, dict[str, str]] = field(default_factory=dict)
    # How many requests more are answered as while the plugin daemon starts.
    starting: int = 0
    # How many requests more find no model that was added, as while its plugin starts.
    unlisted: int = 0
    # Names of the models that the provider has by itself. It has no credential for them.
    predefined: tuple[str, ...] = ()
    # What uv writes when an installation fails.
    uv: str = ""
    signed_only: bool = False
    finished_tasks_are_gone: bool = False
    # How many requests for a task more fail, and how many of those for the list of plugins.
    unanswered_tasks: int = 0
    unanswered_lists: int = 0
    # How many requests for a task more find it running.
    running: int = 0
    tasks_can_be_deleted: bool = True

    def identity(self) -> str:
        return str(id(self))

    def read_note(self, path: str) -> str:
        raise AssertionError(path)

    def send(self, request: Request) -> Answer:
        url = urlsplit(request.path)
        if not url.path.startswith(PREFIX):
            return self._sign_in(url.path)
        path, query = url.path.removeprefix(PREFIX), dict(parse_qsl(url.query))
        self.requests.append((request.method, path))
        self.bodies.append(request.json_body)
        assert request.headers["X-CSRF-Token"] == "csrf"
        status, body = self._answer(request, path, query)
        return Answer(status=status, body=json.dumps(body) if body is not None else "")

    def count(self, method: str, path: str) -> int:
        return self.requests.count((method, path))

    def _sign_in(self, path: str) -> Answer:
        if path == "/console/api/setup":
            return Answer(status=200, body='{"step": "finished"}')
        assert path == "/console/api/login"
        cookies = (("Set-Cookie", "access_token=session-of-the-test"), ("Set-Cookie", "csrf_token=csrf"))
        return Answer(status=200, body='{"result": "success"}', headers=cookies)

    def _answer(self, request: Request, path: str, query: dict[str, str]) -> tuple[int, Any]:
        if path.startswith("/plugin/"):
            return self._plugins(request, path.removeprefix("/plugin/"))
        if path == "/default-model":
            return self._default_model(request, query)
        found = re.fullmatch(
            r"/model-providers/(.+?)/models(/credentials|/credentials/switch|/enable)?", path
        )
        assert found, path
        if found[1] not in self._providers():
            return refused(f"Provider {found[1]} does not exist.")
        what = query if request.method in {"GET", "DELETE"} else dict(request.json_body)
        if request.method == "DELETE":
            if not self.release.startswith("1.17") and request.json_body is None:
                return 415, {
                    "code": "unsupported_media_type",
                    "message": "Did not attempt to load JSON",
                    "status": 415,
                }
            what = query if self.release.startswith("1.17") else dict(request.json_body)
            if "model" not in what:
                return 422, {"code": "unprocessable_entity", "message": "Field required", "status": 422}
        name = f"_{request.method.lower()}_{(found[2] or '/models')[1:].replace('/', '_')}"
        answer: tuple[int, Any] = getattr(self, name)(what)
        return answer

    # --- plugins

    def _providers(self) -> list[str]:
        return [f"{plugin}/{plugin.rpartition('/')[2]}" for plugin in self.installed]

    def _plugins(self, request: Request, path: str) -> tuple[int, Any]:
        path = path.partition("?")[0]
        if path in {"list", "upload/pkg"} and self.starting > 0:
            self.starting -= 1
            return refused("Failed to request plugin daemon, url: plugin/7dff/management/list")
        if path == "list" and self.tasks and self.unanswered_lists > 0:
            self.unanswered_lists -= 1
            return refused("Failed to request plugin daemon, url: plugin/7dff/management/list")
        if path == "upload/pkg":
            return self._upload(request)
        if path.startswith("tasks/"):
            return self._task_of(path.removeprefix("tasks/"))
        routes = {"list": self._list, "list/latest-versions": self._newest, "uninstall": self._uninstall}
        routes |= {f"install/{one}": self._install for one in ("pkg", "marketplace")}
        routes |= {f"upgrade/{one}": self._upgrade for one in ("github", "marketplace")}
        return routes[path](request.json_body or {}, path.endswith("/marketplace"))

    def _list(self, _: dict[str, Any], __: bool) -> tuple[int, Any]:
        return 200, {
            "plugins": [self._entry(*one) for one in self.installed.items()],
            "total": len(self.installed),
        }

    def _newest(self, body: dict[str, Any], _: bool) -> tuple[int, Any]:
        wanted = [one for one in body["plugin_ids"] if one in self.market]
        return 200, {"versions": {one: {"unique_identifier": self.market[one]} for one in wanted}}

    def _uninstall(self, body: dict[str, Any], _: bool) -> tuple[int, Any]:
        self.installed.pop(body["plugin_installation_id"].removeprefix("id-"), None)
        return 200, {"success": True}

    def _task_of(self, path: str) -> tuple[int, Any]:
        task, _, deleted = path.partition("/")
        if deleted:
            if not self.tasks_can_be_deleted:
                return STATUS_500
            self.tasks.pop(task)
            return 200, {"success": True}
        if self.unanswered_tasks > 0:
            self.unanswered_tasks -= 1
            return STATUS_500
        if self.running > 0:
            self.running -= 1
            return 200, {"task": {**self.tasks[task], "status": "running"}}
        return (200, {"task": self.tasks[task]}) if task in self.tasks else STATUS_500

    @staticmethod
    def _entry(plugin: str, identifier: str) -> dict[str, Any]:
        return {
            "plugin_id": plugin,
            "plugin_unique_identifier": identifier,
            "installation_id": f"id-{plugin}",
            "source": "marketplace",
        }

    def _upload(self, request: Request) -> tuple[int, Any]:
        assert request.headers["Content-Type"].startswith("multipart/form-data; boundary=")
        boundary = request.headers["Content-Type"].partition("=")[2].encode()
        _, part, end = request.content.split(b"--" + boundary)
        head, _, content = part.partition(b"\r\n\r\n")
        content = content.removesuffix(b"\r\n")
        assert end == b"--\r\n"
        assert b'name="pkg"' in head
        if self.signed_only:
            return refused(
                "plugin verification has been enabled, and the plugin you want to install has a bad signature",
                "plugin_error",
            )
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            manifest = archive.read("manifest.yaml").decode()
        version = re.search(r"version: (\S+)", manifest)
        assert version
        identifier = f"{PLUGIN}:{version[1]}@{hashlib.sha256(content).hexdigest()}"
        self.uploaded.add(identifier)
        return 200, {"unique_identifier": identifier, "manifest": {}, "verification": None}

    def _install(self, body: dict[str, Any], marketplace: bool) -> tuple[int, Any]:
        [identifier] = body["plugin_unique_identifiers"]
        known = self.market.values() if marketplace else self.uploaded
        if marketplace and not self.market:
            return refused("Reached maximum retries (3) for URL https://marketplace.example/api")
        if identifier not in known:
            return refused("plugin package not found, please upload it firstly", "plugin_error")
        if identifier in self.installed.values():
            return 200, {"all_installed": True, "task_id": ""}
        if not self.uv:
            # Next to another version the list keeps the old one.
            self.installed.setdefault(identifier.partition(":")[0], identifier)
        return 200, {"all_installed": False, "task_id": self._task(identifier), "task": None}

    def _upgrade(self, body: dict[str, Any], marketplace: bool) -> tuple[int, Any]:
        old, new = body["original_plugin_unique_identifier"], body["new_plugin_unique_identifier"]
        if old not in self.installed.values() or (marketplace and new not in self.market.values()):
            return STATUS_500
        if not marketplace:
            assert new in self.uploaded
            assert {"repo", "version", "package"} <= set(body)
        self.installed[new.partition(":")[0]] = new
        return 200, {"all_installed": False, "task_id": self._task(new), "task": None}

    def _task(self, identifier: str) -> str:
        task = str(uuid.uuid4())
        if not self.finished_tasks_are_gone:
            status, message = (
                ("failed", f"failed to launch plugin: {self.uv}") if self.uv else ("success", "installed")
            )
            self.tasks[task] = {
                "id": task,
                "status": status,
                "plugins": [{"plugin_unique_identifier": identifier, "status": status, "message": message}],
            }
        return task

    # --- credentials

    def _of(self, what: dict[str, Any]) -> Model:
        return self.models.setdefault((what["model_type"], what["model"]), Model())

    def _get_credentials(self, what: dict[str, Any]) -> tuple[int, Any]:
        model = self.models.get((what["model_type"], what["model"]), Model())
        wanted = what.get("credential_id") or model.current
        _, values = model.credentials.get(wanted, ("", {}))
        shown = {
            name: f"{value[:6]}{'*' * 12}{value[-2:]}" if name in SECRET_FIELDS else value
            for name, value in values.items()
        }
        return 200, {
            "credentials": shown,
            "current_credential_id": model.current or None,
            "available_credentials": [
                {"credential_id": key, "credential_name": name}
                for key, (name, _) in model.credentials.items()
            ],
        }

    def _saved(self, what: dict[str, Any], model: Model, values: dict[str, Any]) -> tuple[int, Any] | None:
        """Return what refuses the values, None for nothing."""
        if self.starting > 0:
            self.starting -= 1
            return STATUS_500
        if not all(isinstance(one, str) for one in values.values()):
            return STATUS_500
        schema = SCHEMA[what["model_type"]]
        for name in ("endpoint_url", *(name for name, default in schema.items() if default is None)):
            if name not in values:
                return refused(f"Variable {name} is required")
        names = {name for key, (name, _) in model.credentials.items() if key != what.get("credential_id")}
        if what["name"] in names:
            return refused(f"Model credential with name '{what['name']}' already exists for {what['model']}.")
        if problem := self.upstream({"model": what["model"], **values}):
            return refused(problem)
        return None

    def _stored(self, what: dict[str, Any], values: dict[str, str]) -> dict[str, str]:
        schema = SCHEMA[what["model_type"]]
        filled = {name: default for name, default in schema.items() if default is not None}
        return {
            **filled,
            **{
                name: one
                for name, one in values.items()
                if name in {*schema, *OPTIONAL, "endpoint_url", "api_key"}
            },
        }

    def _post_credentials(self, what: dict[str, Any]) -> tuple[int, Any]:
        model = self._of(what)
        if problem := self._saved(what, model, what["credentials"]):
            return problem
        key = str(uuid.uuid4())
        model.credentials[key] = (what["name"], self._stored(what, what["credentials"]))
        model.current = model.current or key
        return 201, {"result": "success"}

    def _put_credentials(self, what: dict[str, Any]) -> tuple[int, Any]:
        model = self._of(what)
        if what["credential_id"] not in model.credentials:
            return refused("Credential record not found.")
        _, old = model.credentials[what["credential_id"]]
        values = {
            name: old[name] if one == "[__HIDDEN__]" else one for name, one in what["credentials"].items()
        }
        if problem := self._saved(what, model, values):
            return problem
        model.credentials[what["credential_id"]] = (what["name"], self._stored(what, values))
        return 200, {"result": "success"}

    def _post_credentials_switch(self, what: dict[str, Any]) -> tuple[int, Any]:
        model = self._of(what)
        if what["credential_id"] not in model.credentials:
            return refused("Credential record not found.")
        if model.current == what["credential_id"]:
            return refused("Can't add same credential")
        model.current = what["credential_id"]
        return 200, {"result": "success"}

    def _patch_enable(self, what: dict[str, Any]) -> tuple[int, Any]:
        self._of(what).enabled = True
        return 200, {"result": "success"}

    def _delete_credentials(self, what: dict[str, Any]) -> tuple[int, Any]:
        model = self._of(what)
        if model.credentials.pop(what["credential_id"], None) is None:
            return refused("Credential record not found.")
        if model.current == what["credential_id"]:
            model.current = ""
        return 204, None

    def _delete_models(self, what: dict[str, Any]) -> tuple[int, Any]:
        if model := self.models.get((what["model_type"], what["model"])):
            model.current = ""
        return 204, None

    def _get_models(self, _: dict[str, Any]) -> tuple[int, Any]:
        own = [
            {"model": name, "model_type": "llm", "fetch_from": "predefined-model", "status": "no-configure"}
            for name in self.predefined
        ]
        added = [
            {
                "model": name,
                "model_type": kind,
                "fetch_from": "customizable-model",
                "status": "active" if self.models[kind, name].enabled else "disabled",
            }
            for kind, name in self._listed()
        ]
        return 200, {"data": own + added}

    def _listed(self) -> list[tuple[str, str]]:
        if self.unlisted > 0:
            self.unlisted -= 1
            return []
        return [key for key, model in self.models.items() if model.current]

    # --- default models

    def _default_model(self, request: Request, query: dict[str, str]) -> tuple[int, Any]:
        active = [key for key in self._listed() if self.models[key].enabled]
        if request.method == "GET":
            kind = query["model_type"]
            first = next((name for one, name in active if one == kind), None)
            if kind not in self.defaults and first:
                self.defaults[kind] = {"provider": PROVIDER, "model": first}
            found = self.defaults.get(kind)
            if not found:
                return 200, {"data": None}
            return 200, {
                "data": {
                    "model": found["model"],
                    "model_type": kind,
                    "provider": {"provider": found["provider"]},
                }
            }
        for one in request.json_body["model_settings"]:
            if one["provider"] not in self._providers():
                return refused(f"Provider {one['provider']} does not exist.")
            if (one["model_type"], one["model"]) not in active:
                return refused(f"Model {one['model']} does not exist.")
            self.defaults[one["model_type"]] = {"provider": one["provider"], "model": one["model"]}
        return 200, {"result": "success"}
