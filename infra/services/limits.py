"""The limits of each service: those of the catalogue, unless `dify:resources` says otherwise."""

from dataclasses import replace

from infra.catalogue import services
from infra.catalogue.service import Limits
from infra.settings.stack import Settings

THREADS_OF_A_WORKER = 256


def limits_of(service: str, settings: Settings) -> Limits:
    """Return the limits of a service."""
    default = services.SERVICES[service].limits
    default = replace(default, pids=default.pids + _pids_by_setting(service, settings))
    own = settings.resources.get(service)
    if own is None:
        return default
    return Limits(
        memory=own.memory or default.memory, cpus=own.cpus or default.cpus, pids=own.pids or default.pids
    )


def _pids_by_setting(service: str, settings: Settings) -> int:
    """Return how many processes and threads the settings add that choose a number of processes."""
    return {
        "api": THREADS_OF_A_WORKER * settings.api_workers,
        "worker": THREADS_OF_A_WORKER * settings.celery_workers,
        # One for each connection.
        "db-postgres": settings.postgres_max_connections,
        "pgvector": settings.postgres_max_connections,
    }.get(service, 0)
