"""The health command of the workers against a real Celery on a real Redis."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from infra.container_scripts import celery_health
from infra.services.queues import list_prefix
from support.images import image_of
from support.stacks import unique, wait_until
from tests.integration.containers import readable

SCRIPT = Path(celery_health.__file__)
# With every character that a URL has to escape.
PASSWORD, QUOTED = "p@ss/w:rd%1", "p%40ss%2Fw%3Ard%251"
PREFIX = "team-one"
APPS = f"""
from celery import Celery
broker = "redis://:{QUOTED}@redis:6379/1"
app = Celery("app", broker=broker)
prefixed = Celery("prefixed", broker=broker)
prefixed.conf.broker_transport_options = {{"global_keyprefix": "{PREFIX}:"}}
"""
START_SECONDS = 120


class Celery:
    """Redis and what uses it, in a network of their own."""

    def __init__(self, directory: Path) -> None:
        self.client = docker.from_env()
        self.name = unique("celery")
        self.network = self.client.networks.create(self.name)
        (directory / "apps.py").write_text(APPS, encoding="utf-8")
        (directory / "health.py").write_text(SCRIPT.read_text(encoding="utf-8"), encoding="utf-8")
        self.directory = readable(directory)
        self.things: list[Any] = []

    def run(self, host: str, role: str, command: list[str], **environment: str) -> Any:
        """Run a command as the only process of a container."""
        made = self.client.containers.run(
            image_of(role),
            entrypoint=command[:1],
            command=command[1:],
            hostname=host,
            network=self.name,
            name=f"{self.name}-{host}",
            environment={"CELERY_BROKER_URL": f"redis://:{QUOTED}@redis:6379/1", "PYTHONPATH": "/kit"}
            | environment,
            volumes={str(self.directory): {"bind": "/kit", "mode": "ro"}},
            detach=True,
        )
        self.things.append(made)
        return made

    def worker(self, host: str, app: str = "app", **environment: str) -> Any:
        """Run a worker of an application."""
        worker = ["celery", "-A", f"apps:{app}", "worker", "--pool", "threads", "--concurrency", "1"]
        return self.run(host, "api", worker, **environment)

    def redis(self, *words: str) -> str:
        """Ask Redis something."""
        done = self.things[0].exec_run(
            ["redis-cli", "-n", "1", *words], environment={"REDISCLI_AUTH": PASSWORD}
        )
        return str(done.output.decode().strip())

    def remove(self) -> None:
        """Remove everything."""
        for thing in self.things:
            thing.remove(force=True, v=True)
        self.network.remove()


@pytest.fixture(scope="module")
def celery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Celery]:
    """Redis alone."""
    one = Celery(tmp_path_factory.mktemp("celery"))
    try:
        made = one.run("redis", "redis", ["redis-server", "--requirepass", PASSWORD])
        one.network.disconnect(made)
        one.network.connect(made, aliases=["redis"])
        wait_until(lambda: one.redis("ping") == "PONG", seconds=START_SECONDS, what="Redis")
        yield one
    finally:
        one.remove()


def check(container: Any, role: str = "worker", **environment: str) -> tuple[int, str]:
    """Run the health command as the engine does: its exit code, and what it says."""
    done = container.exec_run(["python3", "-I", "-S", "/kit/health.py", role], environment=environment)
    return done.exit_code, done.output.decode().strip()


def healthy(container: Any, role: str = "worker") -> None:
    """Wait until the health command succeeds."""
    wait_until(lambda: check(container, role)[0] == 0, seconds=START_SECONDS, what=f"a healthy {role}")


def test_a_worker_is_healthy_only_while_it_answers(celery: Celery) -> None:
    worker = celery.worker("first")
    healthy(worker)
    assert check(worker) == (0, "celery@first answers")

    worker.kill(signal="SIGSTOP")
    began = time.monotonic()
    assert check(worker) == (1, "the worker of first does not answer")
    assert time.monotonic() - began < START_SECONDS

    worker.kill(signal="SIGCONT")
    healthy(worker)
    # Nothing stays behind: neither queues for answers nor what binds them.
    assert "reply" not in celery.redis("keys", "*")


def test_another_worker_does_not_answer_for_this_one(celery: Celery) -> None:
    first, second = celery.worker("one"), celery.worker("two")
    healthy(first)
    healthy(second)

    first.kill(signal="SIGSTOP")
    assert check(first) == (1, "the worker of one does not answer")
    assert check(second)[0] == 0
    first.kill(signal="SIGCONT")


def test_a_prefix_of_the_keys_is_found(celery: Celery) -> None:
    worker = celery.worker("prefixed", "prefixed", REDIS_KEY_PREFIX=PREFIX)

    healthy(worker)

    assert check(worker) == (0, "celery@prefixed answers")
    # Without it, only workers without a prefix are asked.
    assert check(worker, REDIS_KEY_PREFIX="")[0] == 1


def test_jobs_that_wait_are_in_the_lists_that_autoscalers_count(celery: Celery) -> None:
    sender = celery.run("sender", "api", ["sleep", "600"])
    send = "import apps\nfor n in range(3): apps.{app}.send_task('a', queue='mail', retry=False)"

    for app, variables in (("app", {}), ("prefixed", {"REDIS_KEY_PREFIX": PREFIX})):
        code, output = sender.exec_run(["python3", "-c", send.format(app=app)])
        assert code == 0, output.decode()
        assert celery.redis("llen", f"{list_prefix(variables)}mail") == "3"


def test_a_broker_that_refuses_or_is_away_is_told_without_its_password(celery: Celery) -> None:
    idle = celery.run("idle", "api", ["sleep", "600"])

    refused = check(idle, CELERY_BROKER_URL="redis://:wrong-secret@redis:6379/1")
    away = check(idle, CELERY_BROKER_URL="redis://:wrong-secret@nowhere.invalid:6379/1")

    assert refused[0] == away[0] == 1
    assert "WRONGPASS" in refused[1]
    assert "wrong-secret" not in refused[1] + away[1]
    assert check(idle, "beat") == (1, "there is no process of celery beat")


def test_beat_is_healthy_while_it_runs(celery: Celery) -> None:
    beat = celery.run(
        "beat", "api", ["celery", "-A", "apps:app", "beat", "--schedule", "/home/dify/s", "--pidfile="]
    )

    healthy(beat, "beat")
    beat.kill(signal="SIGSTOP")
    code, output = check(beat, "beat")

    assert (code, output.partition(":")[0]) == (1, "celery beat does not run")


def test_what_a_killed_check_left_is_removed_by_a_later_one(celery: Celery) -> None:
    worker = celery.worker("tidy")
    healthy(worker)
    old = f"{celery_health.MARK}-{int(time.time() - celery_health.STALE_SECONDS - 5)}-00"
    member = celery_health.SEPARATOR.join((old, "", f"{old}.{celery_health.REPLIES}"))
    celery.redis("sadd", celery_health.BINDINGS, member)
    celery.redis("lpush", f"{old}.{celery_health.REPLIES}", "{}")

    assert check(worker)[0] == 0

    assert "reply" not in celery.redis("keys", "*")
