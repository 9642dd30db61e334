"""Dify's own services, and the proxies that stand between its sandboxes and everything else."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from infra import container_scripts
from infra.catalogue import ports
from infra.catalogue.releases import Release
from infra.services.environment import environment
from infra.services.files import squid_files
from infra.services.health import answers_http
from infra.services.limits import limits_of
from infra.services.networks import AGENT_SANDBOX, APP, DATA, LOCAL_SANDBOX_PROXY, SSRF_PROXY
from infra.services.spec import File, HealthCheck, Mount, ServiceSpec
from infra.settings.stack import Settings

APP_STORAGE = Mount(volume="app_storage", path="/app/api/storage")
DATABASES = ("db_postgres", "redis")
# How long a real Dify may take: 43 s on a fresh database with two cores, more on a slow disk.
DIFY_START_SECONDS = 180
# What imports Dify when it starts, 13 s of one core at least, in the order in which others wait for it.
IMPORTERS = ("api", "worker", "api_websocket", "worker_beat")
SQUID_UID = 13
_CELERY_HEALTH = "/opt/dify-kit/celery_health.py"
_CELERY_HEALTH_SOURCE = Path(container_scripts.__file__).with_name("celery_health.py")
# Above the script's own limit.
CELERY_CHECK_SECONDS = 12

# /health answers 200 without a database. /console/api/setup asks it.
_API_HEALTH = HealthCheck(
    command=(
        *("curl", "-fsS", "--fail-early", "--max-time", "4"),
        *(
            part
            for path in ("/health", "/console/api/setup")
            for part in ("-o", "/dev/null", f"http://127.0.0.1:{ports.API}{path}")
        ),
    ),
    start_period=DIFY_START_SECONDS,
)


def _celery_health(role: str) -> HealthCheck:
    """Return the check of `worker` or `beat`: its script needs neither Dify nor Celery, only the image's Python."""
    return HealthCheck(
        command=("python3", "-I", "-S", _CELERY_HEALTH, role),
        timeout=CELERY_CHECK_SECONDS,
        start_period=DIFY_START_SECONDS,
    )


def volumes(release: Release) -> tuple[str, ...]:
    """Return the logical names of the volumes of Dify's services."""
    agent = ("local_sandbox_home", "local_sandbox_workspace") if release.has("local_sandbox") else ()
    return ("plugin_storage", "sandbox_dependencies", *agent)


def services(settings: Settings, release: Release) -> list[ServiceSpec]:
    """Return the services of a release, each after those it needs."""
    specs = [
        _migration(settings, release),
        _web(settings, release),
        _proxy("ssrf_proxy", (SSRF_PROXY, APP), settings),
        _sandbox(settings, release),
        _plugin_daemon(settings, release),
        *_agent(settings, release),
        _api(settings, release),
        _celery("worker", settings, release, mounts=(APP_STORAGE,)),
        *_websocket(settings, release),
        _celery("worker_beat", settings, release, mounts=()),
    ]
    return [spec for spec in specs if release.has(spec.name) or spec.job]


def staggered(specs: Sequence[ServiceSpec], cores: int) -> list[ServiceSpec]:
    """Return the services so that at most `cores` of `IMPORTERS` start at a time.

    More of them at once make each other slower, and api, which the claim and the edge wait for, with them. Without a
    core for each of them the next one starts when one is ready.
    """
    return list(_staggered(specs, max(1, cores)))


def _staggered(specs: Sequence[ServiceSpec], cores: int) -> Iterator[ServiceSpec]:
    started: list[str] = []
    for spec in specs:
        if spec.name not in IMPORTERS:
            yield spec
            continue
        before = started[-cores:][:1] if len(started) >= cores else []
        yield replace(spec, after=tuple(dict.fromkeys((*spec.after, *before))))
        started.append(spec.name)


def _migration(settings: Settings, release: Release) -> ServiceSpec:
    return ServiceSpec(
        name="migration",
        image="api",
        networks=(DATA,),
        after=DATABASES,
        job=True,
        environment=environment("migration", settings, release),
        mounts=(APP_STORAGE,),
        limits=limits_of("migration", settings),
        ready_timeout=600,
    )


def _api(settings: Settings, release: Release) -> ServiceSpec:
    agent = ("agent_backend",) if release.has("agent_backend") else ()
    return ServiceSpec(
        name="api",
        image="api",
        networks=(APP, DATA, SSRF_PROXY),
        after=("migration", "redis", "plugin_daemon", *agent),
        environment=environment("api", settings, release),
        mounts=(APP_STORAGE,),
        health=_API_HEALTH,
        # A streamed answer may take long: it is cut when this ends.
        stop_grace=60,
        limits=limits_of("api", settings),
        ready_timeout=DIFY_START_SECONDS,
    )


def _websocket(settings: Settings, release: Release) -> list[ServiceSpec]:
    return [
        ServiceSpec(
            name="api_websocket",
            image="api",
            networks=(APP, DATA),
            after=("migration", "redis"),
            environment=environment("api_websocket", settings, release),
            mounts=(APP_STORAGE,),
            health=_API_HEALTH,
            stop_grace=30,
            limits=limits_of("api_websocket", settings),
            ready_timeout=DIFY_START_SECONDS,
        )
    ]


def _celery(name: str, settings: Settings, release: Release, mounts: tuple[Mount, ...]) -> ServiceSpec:
    script = File(path=_CELERY_HEALTH, content=_CELERY_HEALTH_SOURCE.read_text(encoding="utf-8"))
    return ServiceSpec(
        name=name,
        image="api",
        # Only the worker runs code nodes, and squid is on APP too.
        networks=(APP, DATA, SSRF_PROXY) if name == "worker" else (APP, DATA),
        after=("migration", "redis"),
        environment=environment(name, settings, release),
        mounts=mounts,
        files=(script,),
        health=_celery_health("beat" if name == "worker_beat" else "worker"),
        stop_grace=60,
        limits=limits_of(name, settings),
        ready_timeout=DIFY_START_SECONDS,
    )


def _web(settings: Settings, release: Release) -> ServiceSpec:
    return ServiceSpec(
        name="web",
        image="web",
        networks=(APP,),
        environment=environment("web", settings, release),
        health=HealthCheck(
            command=("sh", "-c", f"wget -q -O /dev/null -T 4 http://$(hostname):{ports.WEB}/signin")
        ),
        limits=limits_of("web", settings),
    )


def _plugin_daemon(settings: Settings, release: Release) -> ServiceSpec:
    return ServiceSpec(
        name="plugin_daemon",
        image="plugin_daemon",
        # Squid is on APP too; the sandbox has no business with plugins.
        networks=(APP, DATA),
        after=DATABASES,
        environment=environment("plugin_daemon", settings, release),
        mounts=(Mount(volume="plugin_storage", path="/app/storage"),),
        health=answers_http(ports.PLUGIN_DAEMON, "/health/check"),
        # It installs plugins with their own users and tools.
        capabilities=None,
        # In its image a shell is PID 1, on which SIGTERM has no effect: every stop would last the whole grace.
        init=True,
        limits=limits_of("plugin_daemon", settings),
    )


def _sandbox(settings: Settings, release: Release) -> ServiceSpec:
    return ServiceSpec(
        name="sandbox",
        image="sandbox",
        networks=(SSRF_PROXY,),
        environment=environment("sandbox", settings, release),
        mounts=(Mount(volume="sandbox_dependencies", path="/dependencies"),),
        health=answers_http(ports.SANDBOX, "/health"),
        # It jails user code by chroot, setuid and seccomp, which it needs the engine's default set for.
        capabilities=None,
        limits=limits_of("sandbox", settings),
    )


def _agent(settings: Settings, release: Release) -> list[ServiceSpec]:
    return [
        _proxy("agent_ssrf_proxy", (LOCAL_SANDBOX_PROXY, APP), settings),
        ServiceSpec(
            name="local_sandbox",
            image="local_sandbox",
            networks=(AGENT_SANDBOX, LOCAL_SANDBOX_PROXY),
            environment=environment("local_sandbox", settings, release),
            mounts=(
                Mount(volume="local_sandbox_home", path="/home/dify"),
                Mount(volume="local_sandbox_workspace", path="/workspace"),
            ),
            health=answers_http(ports.LOCAL_SANDBOX, "/healthz"),
            capabilities=None,
            limits=limits_of("local_sandbox", settings),
        ),
        ServiceSpec(
            name="agent_backend",
            image="agent_backend",
            networks=(APP, DATA, AGENT_SANDBOX),
            after=("redis", "plugin_daemon", "local_sandbox"),
            environment=environment("agent_backend", settings, release),
            health=HealthCheck(command=_port_answers(ports.AGENT_BACKEND)),
            limits=limits_of("agent_backend", settings),
        ),
    ]


def _port_answers(port: int) -> tuple[str, ...]:
    """Return a health command for images with Python and without an agreed health path."""
    return (
        "python3",
        "-c",
        f"import socket; socket.create_connection(('127.0.0.1', {port}), 4).close()",
    )


def _proxy(name: str, networks: tuple[str, ...], settings: Settings) -> ServiceSpec:
    return ServiceSpec(
        name=name,
        image="squid",
        networks=networks,
        user=str(SQUID_UID),
        entrypoint=("squid", "-NYC", "-f", "/etc/squid/squid.conf"),
        files=tuple(File(path=path, content=text) for path, text in squid_files(name, settings).items()),
        health=HealthCheck(command=("bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{ports.SQUID}")),
        limits=limits_of(name, settings),
    )
