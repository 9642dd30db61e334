"""The stand-in's api and plugin daemon in this process: SQLite replaces PostgreSQL, and fakeredis Redis.

The image has packages that the kit's environment does not need; small replacements of them are in this file.
"""

import importlib
import importlib.util
import json
import re
import socket
import sqlite3
import sys
import threading
import types
import uuid
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fakeredis
import pytest
from werkzeug.serving import BaseWSGIServer, make_server

JSON = frozenset(
    {"declaration", "meta", "metas", "identifiers", "secrets", "inputs", "keywords", "embedding"}
)
FLAGS = frozenset({"enable_api", "present"})
KEY = "key-of-the-daemon"
ADMIN = {"email": "admin@example.com", "name": "admin", "password": "Password-1"}


# The packages of the image that this environment does not have. Several applications are made here of the same
# blueprints, to which Flask-CORS adds headers once only: the tests of the edge see these headers.
MISSING = {
    "flask_cors",
    *(name for name in ("celery", "psycopg_pool") if importlib.util.find_spec(name) is None),
}


class Task:
    """A task of Celery, which a thread of this process runs."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def apply_async(self, args: list[Any], **_: Any) -> None:
        threading.Thread(target=self._function, args=args, daemon=True).start()


class Celery:
    """As much of Celery as the stand-in's modules need to be imported."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.conf = types.SimpleNamespace(update=lambda **_: None)

    def task(self, **_: Any) -> Callable[[Callable[..., Any]], Task]:
        return Task


def replacements() -> dict[str, types.ModuleType]:
    """Return what replaces the packages that only the image has."""

    def module(name: str, **values: Any) -> types.ModuleType:
        made = types.ModuleType(name)
        vars(made).update(values)
        return made

    connected = types.SimpleNamespace(connect=lambda function: function)
    return {
        "celery": module("celery", Celery=Celery),
        "celery.signals": module("celery.signals", setup_logging=connected),
        "flask_cors": module("flask_cors", CORS=lambda *_, **__: None),
        "psycopg_pool": module(
            "psycopg_pool", ConnectionPool=dict, PoolTimeout=type("PoolTimeout", (Exception,), {})
        ),
    }


class Database:
    """The stand-in's statements on SQLite, with the types that psycopg returns."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        self._connection.create_function("now", 0, lambda: datetime.now(UTC).isoformat())
        self._connection.create_function("gen_random_uuid", 0, lambda: str(uuid.uuid4()))

    def create(self, schema: str) -> None:
        """Make the tables of a schema."""
        schema = re.sub(r"default (now|gen_random_uuid)\(\)", r"default (\1())", schema)
        schema = schema.replace(
            "app_id uuid not null references apps on delete cascade,\n  type", "app_id uuid,\n  type"
        )
        schema = schema.replace("add column if not exists", "add column")
        for statement in schema.split(";"):
            if statement.strip() and "alter column" not in statement:
                self._connection.execute(statement)

    def rows(self, query: str, *parameters: Any) -> list[dict[str, Any]]:
        """Run a statement and return its rows."""
        if query.startswith("lock "):
            return []
        if "returning a.*" in query:
            query = "select a.* from apps a join api_tokens t on t.app_id = a.id where t.token = %s and t.type = 'app'"
        with self._lock:
            sent = [self._sent(one) for one in parameters]
            cursor = self._connection.execute(query.replace("%s", "?").replace("ilike", "like"), sent)
            if cursor.description is None:
                return []
            names = [column[0] for column in cursor.description]
            return [
                {name: self._read(name, value) for name, value in zip(names, row, strict=True)}
                for row in cursor
            ]

    def row(self, query: str, *parameters: Any) -> dict[str, Any] | None:
        """Run a statement and return its first row."""
        found = self.rows(query, *parameters)
        return found[0] if found else None

    @contextmanager
    def transaction(self) -> Iterator["Database"]:
        """Lend the connection."""
        with self._lock:
            yield self

    def execute(self, query: str, parameters: Any = ()) -> "Cursor":
        """Run a statement as a connection of psycopg does."""
        return Cursor(self.rows(query, *parameters))

    @staticmethod
    def _sent(value: Any) -> Any:
        if isinstance(value, list | dict):
            return json.dumps(value)
        if isinstance(value, datetime):
            return value.astimezone(UTC).isoformat()
        return str(value) if isinstance(value, uuid.UUID) else value

    @staticmethod
    def _read(name: str, value: Any) -> Any:
        if value is None:
            return None
        if name in JSON:
            return json.loads(value)
        if name.endswith("_at"):
            return datetime.fromisoformat(value)
        return bool(value) if name in FLAGS else value


class Cursor:
    """The rows of a statement."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self._rows = rows

    def fetchone(self) -> dict[str, Any] | None:
        return self._rows[0] if self._rows else None


class Instance:
    """One claimed instance of a release; its plugin daemon listens, its api is called in this process."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, storage: Path, release: str, **variables: str
    ) -> None:
        for name, module in replacements().items():
            if name.partition(".")[0] in MISSING:
                monkeypatch.setitem(sys.modules, name, module)
        # Bound for the life of the instance, so that the port stays its own while the daemon does not listen.
        reserved = socket.socket()
        weakref.finalize(self, reserved.close)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        self._port = reserved.getsockname()[1]
        environment = {
            "DIFY_STANDIN_RELEASE": release,
            "DIFY_STANDIN_INSTALL_SECONDS": "0.3",
            "SECRET_KEY": "secret",
            "CONSOLE_API_URL": "http://localhost:18100",
            "CONSOLE_WEB_URL": "http://localhost:18100",
            "PLUGIN_DAEMON_URL": f"http://127.0.0.1:{self._port}",
            "PLUGIN_DAEMON_KEY": KEY,
            "SERVER_KEY": KEY,
            "OPENDAL_FS_ROOT": str(storage),
            "SWAGGER_UI_ENABLED": "false",
            **variables,
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        self.modules = {
            name: importlib.import_module(f"dify_standin.{name}")
            for name in ("api", "store", "plugin_daemon", "plugin_records", "plugin_runtime", "model_schema")
        }
        self._replace_data(monkeypatch)
        self.runtime = self.modules["plugin_runtime"].RUNTIME
        self.runtime.restart()
        self.client = self.modules["api"].create_app().test_client()
        self.key = ""
        self.dataset_key = ""
        self._server: BaseWSGIServer | None = None
        self.start_daemon()
        self._sign_in()

    def _replace_data(self, monkeypatch: pytest.MonkeyPatch) -> None:
        database, store = Database(), self.modules["store"]
        for schema in (
            store.SCHEMA,
            self.modules["model_schema"].SCHEMA,
            self.modules["plugin_records"].SCHEMA,
        ):
            database.create(schema)
        redis = fakeredis.FakeRedis(decode_responses=True)
        for name in ("rows", "row", "transaction"):
            monkeypatch.setattr(store, name, getattr(database, name))
        monkeypatch.setattr(store, "cache", lambda: redis)

    def start_daemon(self) -> None:
        """Let the plugin daemon listen."""
        self._server = make_server("127.0.0.1", self._port, self.modules["plugin_daemon"].app, threaded=True)
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()

    def stop_daemon(self) -> None:
        """Let the plugin daemon listen no more."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def _sign_in(self) -> None:
        import base64  # noqa: PLC0415

        assert self.client.post("/console/api/setup", json=ADMIN).status_code == 201
        password = base64.b64encode(ADMIN["password"].encode()).decode()
        self.client.post("/console/api/login", json={"email": ADMIN["email"], "password": password})
        found = self.client.get_cookie("csrf_token")
        assert found is not None
        self.csrf = found.value

    def send(self, method: str, path: str, **arguments: Any) -> Any:
        """Send a request of the console, with its session."""
        headers = {"X-CSRF-Token": self.csrf, **arguments.pop("headers", {})}
        return self.client.open(path, method=method, headers=headers, **arguments)

    def workspace(self, method: str, path: str, **arguments: Any) -> Any:
        """Send a request below the workspace."""
        return self.send(method, f"/console/api/workspaces/current/{path}", **arguments)
