"""The queues of Celery that a worker takes jobs from, and the Redis that has them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pulumi

from infra.catalogue import ports
from infra.services.environment.values import CELERY_REDIS_DB
from infra.settings.stack import Settings

WORKER = "worker"
# Those of a worker of the image `api` without variables about them, of all releases. A queue that a release lacks is
# empty.
QUEUES = (
    "dataset",
    "priority_dataset",
    "pipeline",
    "priority_pipeline",
    "mail",
    "ops_trace",
    "app_deletion",
    "plugin",
    "workflow",
    "workflow_storage",
    "conversation",
    "schedule_poller",
    "schedule_executor",
    "triggered_workflow_dispatcher",
    "trigger_refresh_executor",
    "retention",
)
# The variables that name others; the first one counts.
VARIABLES = ("CELERY_WORKER_QUEUES", "CELERY_QUEUES")
# Dify puts it, and a colon, before the names of the lists in Redis.
PREFIX = "REDIS_KEY_PREFIX"


@dataclass(frozen=True, kw_only=True)
class Broker:
    """The Redis with Celery's queues, as something outside of the stack reaches it.

    ``host`` is empty for the Redis of the stack. ``user`` and ``ca`` (PEM) may be empty. The list of a queue has its
    name, after ``prefix``.
    """

    host: str
    port: int
    database: int
    queues: tuple[str, ...]
    password: "pulumi.Input[str]" = field(repr=False)
    user: str = ""
    tls: bool = False
    ca: str = ""
    prefix: str = ""


def queues(variables: Mapping[str, str]) -> tuple[str, ...]:
    """Return the queues of a worker with some variables of `dify:extraEnv`."""
    given = next((variables[name] for name in VARIABLES if variables.get(name)), "")
    named = tuple(filter(None, (name.strip() for name in given.split(","))))
    return named or QUEUES


def list_prefix(variables: Mapping[str, str]) -> str:
    """Return what is before the names of a worker's lists in Redis."""
    return f"{variables[PREFIX]}:" if variables.get(PREFIX) else ""


def broker(settings: Settings) -> Broker:
    """Return the Redis of a stack's queues."""
    variables = settings.extra_env.get(WORKER, {})
    names, prefix = queues(variables), list_prefix(variables)
    server = settings.redis
    if server is None:
        return Broker(
            host="",
            port=ports.REDIS,
            database=CELERY_REDIS_DB,
            queues=names,
            prefix=prefix,
            password=settings.secrets.redis_password,
        )
    return Broker(
        host=server.host,
        port=server.port,
        database=server.celery_database,
        queues=names,
        prefix=prefix,
        password=server.password,
        user=server.user,
        tls=server.tls,
        ca=server.ca,
    )
