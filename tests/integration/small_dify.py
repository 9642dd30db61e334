"""The smallest Dify that a console test needs: PostgreSQL, Redis and api, and a Pulumi program beside it."""

import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import docker

from infra.catalogue.releases import RELEASES
from infra.resources.console_client import NOTES, Console
from infra.resources.console_session import Sessions
from infra.resources.console_transport import ContainerTransport, Request, TransportError
from infra.services.specs import spec
from support.configuration import settings
from support.images import image_of
from support.stacks import unique
from tests.integration.programs import Program

START_SECONDS = 240
ADMIN_EMAIL = "admin@example.com"
SAVED = "/run/saved.sql"

Docker = Any  # docker's models are not typed


@dataclass(kw_only=True)
class SmallDify:
    """One instance, in containers, a network and volumes of its own."""

    https: bool = False
    release: str = "1.17.1"
    # Variables that the api and its worker have besides those that they need.
    variables: Mapping[str, str] = field(default_factory=dict)
    prefix: str = field(default_factory=lambda: unique("console"))
    password: str = field(default_factory=lambda: f"Pw1-{secrets.token_urlsafe(12)}")
    init_password: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    data_password: str = field(default_factory=lambda: secrets.token_hex(16))

    def __post_init__(self) -> None:
        """Connect to the engine."""
        self.client: Docker = docker.from_env(timeout=60)

    @property
    def api(self) -> str:
        """The name of the api container."""
        return f"{self.prefix}-api"

    @property
    def url(self) -> str:
        """The console's public origin; nothing listens there."""
        return "https://dify.example.com" if self.https else "http://localhost:18080"

    def start(self) -> "SmallDify":
        """Start everything and wait until api answers from its database."""
        self.client.networks.create(self.prefix, internal=True)
        self._prepare_storage()
        self._run(
            "postgres",
            alias="db-postgres",
            command=["postgres"],
            environment={
                "POSTGRES_USER": "postgres",
                "POSTGRES_DB": "dify",
                "PGDATA": "/var/lib/postgresql/data/pgdata",
                "POSTGRES_PASSWORD_FILE": "/run/password",
            },
            entrypoint=[
                "sh",
                "-c",
                f'echo {self.data_password} >/run/password; exec entrypoint.sh "$@"',
                "sh",
            ],
        )
        self._run("redis", alias="redis", command=["redis-server", "--requirepass", self.data_password])
        self.wait(lambda: self.sql("select 1") == "1", "the database")
        self.start_api()
        return self

    def _prepare_storage(self) -> None:
        """Make the storage volume what it is in a stack, with its marker."""
        guard = spec("init-permissions", settings({"release": self.release}), RELEASES[self.release])
        self.client.containers.run(
            image_of(guard.image),
            name=f"{self.prefix}-{guard.name}",
            entrypoint=[*(guard.entrypoint or ())],
            command=[*(guard.command or ())],
            environment=dict(guard.environment),
            user=guard.user,
            volumes={self.storage: {"bind": guard.mounts[0].path, "mode": "rw"}},
            network_mode="none",
            remove=True,
        )

    @property
    def storage(self) -> str:
        """The name of the volume that api keeps its files on."""
        return f"{self.prefix}-storage"

    def start_api(self) -> None:
        """Make the api container and wait until it answers."""
        self._run(
            "api",
            alias="api",
            environment=self.environment,
            volumes={self.storage: {"bind": "/app/api/storage", "mode": "rw"}},
        )
        self.wait(self.answers, "api")

    def start_worker(self) -> None:
        """Run a worker and a sandbox, so that apps answer."""
        self._run("sandbox", alias="sandbox", environment={"API_KEY": "k", **self._plays})
        container = self._create("api", name="worker", environment=self.environment | {"MODE": "worker"})
        self._start(container, alias="worker")

    def start_plugin_daemon(self, variables: Mapping[str, str]) -> None:
        """Run a plugin daemon; its variables are those that it needs, and these."""
        environment = {
            "SERVER_PORT": "5002",
            "SERVER_KEY": "k",
            "DIFY_INNER_API_URL": "http://api:5001",
            "DIFY_INNER_API_KEY": "k",
            "DB_HOST": "db-postgres",
            "DB_USERNAME": "postgres",
            "DB_PORT": "5432",
            "DB_PASSWORD": self.data_password,
            "DB_DATABASE": "dify_plugin",
            "REDIS_HOST": "redis",
            "REDIS_PORT": "6379",
            "REDIS_PASSWORD": self.data_password,
            "PLUGIN_WORKING_PATH": "/app/storage/cwd",
            "PLUGIN_REMOTE_INSTALLING_HOST": "0.0.0.0",  # noqa: S104  # inside its container
            "PLUGIN_REMOTE_INSTALLING_PORT": "5003",
            **self._plays,
            **variables,
        }
        container = self._create("plugin_daemon", name="plugin-daemon", environment=environment)
        self._start(container, alias="plugin-daemon")

    def gateway(self) -> str:
        """Return the address of the host in the network of the containers."""
        network = self.client.networks.get(self.prefix)
        return str(network.attrs["IPAM"]["Config"][0]["Gateway"])

    def address(self) -> str:
        """Return the address of api on the host, also after it was recreated."""
        networks = self.client.containers.get(self.api).attrs["NetworkSettings"]["Networks"]
        return f"http://{networks[self.prefix]['IPAddress']}:5001"

    def recreate_api(self) -> None:
        """Replace the api container by another one of that name."""
        self.client.containers.get(self.api).remove(force=True)
        self.start_api()

    @property
    def environment(self) -> dict[str, str]:
        """The api's variables."""
        return {
            "MODE": "api",
            # Requests are counted by its log.
            "GUNICORN_CMD_ARGS": "--access-logfile=-",
            "SECRET_KEY": self.data_password,
            "INIT_PASSWORD": self.init_password,
            "CONSOLE_WEB_URL": self.url,
            "CONSOLE_API_URL": self.url,
            "DB_HOST": "db-postgres",
            "DB_PASSWORD": self.data_password,
            "DB_DATABASE": "dify",
            "REDIS_HOST": "redis",
            "REDIS_PASSWORD": self.data_password,
            "CELERY_BROKER_URL": f"redis://:{self.data_password}@redis:6379/1",
            "STORAGE_TYPE": "opendal",
            "OPENDAL_SCHEME": "fs",
            "OPENDAL_FS_ROOT": "storage",
            "PLUGIN_DAEMON_URL": "http://plugin-daemon:5002",
            "PLUGIN_DAEMON_KEY": "k",
            "INNER_API_KEY_FOR_PLUGIN": "k",
            "CODE_EXECUTION_ENDPOINT": "http://sandbox:8194",
            "CODE_EXECUTION_API_KEY": "k",
            "VECTOR_STORE": "pgvector",
            **self._plays,
            **self.variables,
        }

    @property
    def _plays(self) -> dict[str, str]:
        return {"DIFY_STANDIN_RELEASE": self.release}

    def answers(self) -> bool:
        """Tell whether the console answers from its database."""
        try:
            return bool(self.send("GET", "/console/api/setup").status == 200)
        except TransportError:
            return False

    def send(self, method: str, path: str, **request: Any) -> Any:
        """Send one request to the api, from inside its container."""
        return ContainerTransport(self.api).send(Request(method=method, path=path, **request))

    def console(self, **changes: Any) -> Console:
        """Return the admin's console, with sessions of its own."""
        console = Console(
            transport=ContainerTransport(self.api),
            url=self.url,
            email=ADMIN_EMAIL,
            password=self.password,
            sessions=Sessions(),
        )
        return replace(console, **changes)

    def sql(self, statement: str) -> str:
        """Run a statement in the database and return what it prints."""
        return self._in_postgres("psql", "-Atc", statement, check=False)

    def empty(self) -> None:
        """Make the instance new: no admin, no app, no key, no note of one, no lockout."""
        self.sql("truncate setups, accounts, tenants, apps cascade")
        self._in_api(f"rm -rf {NOTES}")
        done = self.client.containers.get(f"{self.prefix}-redis").exec_run(
            ["redis-cli", "--no-auth-warning", "-a", self.data_password, "flushall"]
        )
        assert done.output.decode().strip() == "OK"

    def save(self) -> None:
        """Remember what the database holds and what is noted, for `restore`."""
        self._in_postgres("pg_dump", "--data-only", "--exclude-table=alembic_version", f"--file={SAVED}")
        self._in_api(f"cp -a {NOTES} {NOTES}.saved")

    def restore(self) -> None:
        """Make the instance again what it was when it was saved; without lockouts."""
        self.empty()
        self._in_postgres("psql", "--quiet", "--set=ON_ERROR_STOP=1", f"--file={SAVED}")
        self._in_api(f"cp -a {NOTES}.saved {NOTES}")

    def login_failures(self) -> int:
        """Return how many wrong passwords Dify has counted."""
        key = f"login_error_rate_limit:{ADMIN_EMAIL}"
        done = self.client.containers.get(f"{self.prefix}-redis").exec_run(
            ["redis-cli", "--no-auth-warning", "-a", self.data_password, "get", key]
        )
        return int(done.output.decode().strip() or 0)

    def key_works(self, key: str) -> bool:
        """Tell whether the service API accepts a key."""
        headers = {"Authorization": f"Bearer {key}"}
        return bool(self.send("GET", "/v1/parameters", headers=headers).status == 200)

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for a part to work; fail with its log."""
        deadline = time.monotonic() + START_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                logs = [one.name + "\n" + one.logs(tail=20).decode() for one in self._containers()]
                raise AssertionError(f"{what} does not work:\n" + "\n".join(logs))
            time.sleep(0.3)

    def remove(self) -> None:
        """Remove everything, however far the start came."""
        for container in self._containers():
            container.remove(force=True, v=True)
        for network in self.client.networks.list(filters={"name": self.prefix}):
            network.remove()
        for volume in self.client.volumes.list(filters={"name": self.prefix}):
            volume.remove(force=True)
        self.client.close()

    def _in_postgres(self, program: str, *arguments: str, check: bool = True) -> str:
        done = self.client.containers.get(f"{self.prefix}-postgres").exec_run(
            [program, "-h", "127.0.0.1", "-U", "postgres", "-d", "dify", *arguments],
            environment={"PGPASSWORD": self.data_password},
        )
        output = str(done.output.decode().strip())
        assert done.exit_code == 0 or not check, output
        return output

    def _in_api(self, script: str) -> None:
        done = self.client.containers.get(self.api).exec_run(["sh", "-c", script])
        assert done.exit_code == 0, done.output

    def _containers(self) -> list[Docker]:
        return list(self.client.containers.list(all=True, filters={"name": self.prefix}))

    def _run(self, role: str, *, alias: str, **arguments: Any) -> None:
        self._start(self._create(role, name=role, **arguments), alias=alias)

    def _create(self, role: str, *, name: str, **arguments: Any) -> Docker:
        return self.client.containers.create(image_of(role), name=f"{self.prefix}-{name}", **arguments)

    def _start(self, container: Docker, *, alias: str) -> None:
        self.client.networks.get(self.prefix).connect(container, aliases=[alias])
        container.start()


PROGRAM = """
import json, os
import pulumi
from infra.resources.console import Admin, App, AppKey

config = json.loads(os.environ["TEST_VALUES"])
settings = pulumi.Config()
access = {
    "container": config["container"],
    "console_url": config["url"],
    "email": config["email"],
    "password": settings.require_secret("password"),
}
admin = Admin("admin", **access, admin_name=config["name"], init_password=settings.require_secret("init"))
for name, dsl in config["apps"].items():
    app = App(f"app-{name}", **access, app_name=name, dsl=dsl, keep=config["keep"],
              opts=pulumi.ResourceOptions(depends_on=[admin]))
    key = AppKey(f"key-{name}", **access, app_id=app.app_id, opts=pulumi.ResourceOptions(parent=app))
    pulumi.export(name, {"id": app.app_id, "mode": app.mode, "key": key.key})
"""


@dataclass(kw_only=True)
class ConsoleProgram(Program):
    """A program that declares an admin, apps and their keys."""

    dify: SmallDify
    apps: dict[str, str]
    name: str = "admin"
    email: str = ADMIN_EMAIL
    keep: bool = True

    def __post_init__(self) -> None:
        """Make the program's stack and set its secrets, unless it is a copy."""
        copied = self.home.exists()
        super().__post_init__()
        if not copied:
            self.set_secret("password", self.dify.password)
            self.set_secret("init", self.dify.init_password)

    @property
    def source(self) -> str:
        """The text of the program."""
        return PROGRAM

    @property
    def values(self) -> dict[str, Any]:
        """How the instance is reached, and what is wanted there."""
        return {
            "container": self.dify.api,
            "url": self.dify.url,
            "email": self.email,
            "name": self.name,
            "apps": self.apps,
            "keep": self.keep,
        }

    def output(self, app: str) -> Mapping[str, str]:
        """Return an app's id, mode and key."""
        done = self.pulumi("stack", "output", "--json", "--show-secrets")
        assert done.code == 0, done.output
        found: dict[str, dict[str, str]] = json.loads(done.stdout)
        return found[app]
