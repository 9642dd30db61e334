"""The most memory, CPU and processes each service may use, unless `dify:resources` says otherwise.

Sizes are about four times what a real Dify was seen to need at rest (api 350-470 MiB, worker 370, database up
to 140), so that work fits and a leak is stopped. Processes count with their threads; those that run other people's
code, and those whose number of processes is a setting, get more than the rest.
"""

from dataclasses import replace

from infra.services.spec import Limits
from infra.settings.stack import Settings

THREADS_OF_A_WORKER = 256

DEFAULTS: dict[str, Limits] = {
    "api": Limits(memory=2048),
    "api_websocket": Limits(memory=1024),
    "worker": Limits(memory=2048),
    "worker_beat": Limits(memory=1024),
    "migration": Limits(memory=1024),
    "web": Limits(memory=1024),
    "db_postgres": Limits(memory=1024),
    "redis": Limits(memory=512),
    "weaviate": Limits(memory=2048, pids=2048),
    "qdrant": Limits(memory=1024, pids=2048),
    "pgvector": Limits(memory=1024),
    "sandbox": Limits(memory=1024, pids=1024),
    "local_sandbox": Limits(memory=2048, pids=1024),
    # A process with its threads for each plugin.
    "plugin_daemon": Limits(memory=2048, pids=4096),
    "agent_backend": Limits(memory=1024),
    "ssrf_proxy": Limits(memory=256),
    "agent_ssrf_proxy": Limits(memory=256),
    "nginx": Limits(memory=512),
    "certbot": Limits(memory=256),
    "certificates": Limits(memory=256),
    "init_permissions": Limits(memory=64),
    # 96 MiB with 10,000 clients, and for a moment the old ones beside the new ones.
    "gateway": Limits(memory=256),
    "gateway_redis": Limits(memory=256),
    # One worker has 320 MiB at its start, and 325 after some load.
    "litellm": Limits(memory=1024),
}


def limits_of(service: str, settings: Settings) -> Limits:
    """Return the limits of a service: the stack's own setting, else the default."""
    default = replace(DEFAULTS[service], pids=DEFAULTS[service].pids + _pids_by_setting(service, settings))
    own = settings.resources.get(service)
    if own is None:
        return default
    return Limits(
        memory=own.memory or default.memory, cpus=own.cpus or default.cpus, pids=own.pids or default.pids
    )


def _pids_by_setting(service: str, settings: Settings) -> int:
    """Return how many processes and threads come on top with the settings that ask for processes."""
    return {
        "api": THREADS_OF_A_WORKER * settings.api_workers,
        "worker": THREADS_OF_A_WORKER * settings.celery_workers,
        # One for each connection.
        "db_postgres": settings.postgres_max_connections,
        "pgvector": settings.postgres_max_connections,
    }.get(service, 0)
