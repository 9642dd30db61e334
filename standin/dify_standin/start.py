"""The entry point of every container: check the environment and what it needs, say what this is, become the server."""

import argparse
import os
import sys
import time
from collections.abc import Callable

import psycopg
import redis

from dify_standin import config, store

API_PORT = "5001"
BANNER = (
    "This is the dify-kit stand-in for Dify {release} ({role}). It is not Dify: for trials and tests only."
)
CHECK_SECONDS = 10.0
QUEUES = "workflow,dataset,mail,plugin"


def gunicorn(application: str, bind: list[str], threads: int, timeout: int = 360, workers: int = 1) -> None:
    """Become gunicorn. SIGTERM ends it once the requests in flight are answered."""
    arguments = [
        "gunicorn",
        "--worker-class",
        "gthread",
        "--workers",
        str(workers),
        "--threads",
        str(threads),
    ]
    arguments += ["--timeout", str(timeout), "--graceful-timeout", "55", "--keep-alive", "2"]
    arguments += ["--worker-tmp-dir", "/dev/shm", "--log-level", "warning"]  # noqa: S108  # gunicorn's own advice
    arguments += [part for address in bind for part in ("--bind", address)]
    os.execvp(arguments[0], [*arguments, application])  # the container's one process


def reach(what: str, attempt: Callable[[], object]) -> None:
    """Try to reach a server for a while; refuse to start when it says no, or stays away."""
    deadline = time.monotonic() + CHECK_SECONDS
    while True:
        try:
            attempt()
        except (psycopg.OperationalError, redis.RedisError, OSError) as problem:
            reason = str(problem).strip().splitlines()[0]
            refused = "password" in reason.lower() or "WRONGPASS" in reason or "NOAUTH" in reason
            if refused or time.monotonic() > deadline:
                config.refuse(f"{what}: {reason}")
            time.sleep(0.5)
        else:
            return


def reach_data() -> None:
    """Make sure that database and Redis let this service in."""

    def database() -> None:
        psycopg.connect(**store.database_parameters()).close()

    reach("database", database)
    reach("redis", lambda: store.cache().ping())


def api() -> None:
    """Run what MODE asks for, as the entry point of Dify's api image does."""
    mode = config.text("MODE", "api")
    if config.flag("MIGRATION_ENABLED", default=True):
        reach_data()
        try:
            print(store.migrate(), flush=True)
        except store.MigrationError as problem:
            config.refuse(str(problem))
        if mode == "migration":
            return
    elif mode == "migration":
        config.refuse("MODE=migration needs MIGRATION_ENABLED=true")
    reach_data()
    celery = ["celery", "-A"]
    level = config.text("LOG_LEVEL", "INFO")
    if mode == "worker":
        count = config.text("CELERY_WORKER_AMOUNT") or "1"
        worker = [*celery, "celery_healthcheck.celery", "worker", "--pool", "threads", "--concurrency", count]
        os.execvp(
            "celery", [*worker, "--loglevel", level, "-Q", QUEUES, "--without-gossip", "--without-mingle"]
        )
    if mode == "beat":
        os.execvp("celery", [*celery, "celery_healthcheck.celery", "beat", "--loglevel", level, "--pidfile="])
    port = config.text("DIFY_PORT", API_PORT)
    gunicorn(
        "app:app",
        [f"{config.text('DIFY_BIND_ADDRESS', '0.0.0.0')}:{port}"],  # noqa: S104  # inside its container
        threads=max(4, int(config.text("SERVER_WORKER_CONNECTIONS") or 10)),
        timeout=int(config.text("GUNICORN_TIMEOUT") or 360),
        workers=int(config.text("SERVER_WORKER_AMOUNT") or 1),
    )


def plugin_daemon() -> None:
    """Create the daemon's database, as the real one does, and serve on both of its ports."""
    # Flask is of no use to the other roles' start.
    from dify_standin import plugin_daemon as daemon  # noqa: PLC0415

    reach("database", daemon.prepare)
    reach("redis", lambda: store.cache().ping())
    debug = config.text("PLUGIN_REMOTE_INSTALLING_PORT")
    gunicorn(
        "dify_standin.plugin_daemon:app",
        [f"0.0.0.0:{config.text('SERVER_PORT', '5002')}", f"0.0.0.0:{debug}"],
        threads=8,
    )


def agent_backend() -> None:
    """Serve the agent backend once its Redis answers."""
    reach("redis", lambda: redis.Redis.from_url(config.text("DIFY_AGENT_REDIS_URL"), socket_timeout=3).ping())
    gunicorn("dify_standin.agent_backend:app", ["0.0.0.0:5050"], threads=8)


ROLES: dict[str, Callable[[], None]] = {
    "api": api,
    "web": lambda: gunicorn("dify_standin.web:app", ["0.0.0.0:3000"], threads=8),
    "sandbox": lambda: gunicorn(
        "dify_standin.sandbox:app", [f"0.0.0.0:{config.text('SANDBOX_PORT', '8194')}"], threads=8
    ),
    "plugin-daemon": plugin_daemon,
    "agent-backend": agent_backend,
    "local-sandbox": lambda: gunicorn("dify_standin.local_sandbox:app", ["0.0.0.0:5004"], threads=8),
}


def main() -> None:
    """Start one role."""
    parser = argparse.ArgumentParser(prog="dify-stand-in", description=__doc__)
    parser.add_argument("role", choices=sorted(ROLES))
    parser.add_argument("--check", action="store_true", help="check the environment, and exit")
    arguments = parser.parse_args()
    role = arguments.role
    print(
        BANNER.format(release=config.release(), role=config.text("MODE") or role), file=sys.stderr, flush=True
    )
    config.check(role)
    if arguments.check:
        return
    ROLES[role]()


if __name__ == "__main__":
    main()
