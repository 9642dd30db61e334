"""`Ready` against containers that fail in every way, by itself and in a Pulumi program."""

import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest

from dify_kit.setup.base_images import BASE
from infra.resources import ready
from infra.resources.ready import NotReadyError, ReadyProvider
from support.stacks import unique, wait_until
from tests.integration.programs import Program

# A deadline that no test waits for: a reason that is known earlier is another one in the text of the error.
LONG = 240
SECOND = 1_000_000_000


class Box:
    """Containers of one test."""

    def __init__(self) -> None:
        self.client = docker.from_env()
        self.prefix = unique("ready")

    def start(self, script: str, **more: Any) -> Any:
        """Start a container that runs a shell script."""
        name = f"{self.prefix}-{secrets.token_hex(2)}"
        return self.client.containers.run(BASE, ["sh", "-c", script], name=name, detach=True, **more)

    def remove(self) -> None:
        """Remove what was started."""
        for container in self.client.containers.list(all=True, filters={"name": self.prefix}):
            container.remove(force=True, v=True)
        self.client.close()


@pytest.fixture
def box() -> Iterator[Box]:
    """Containers that are removed at the end."""
    box = Box()
    try:
        yield box
    finally:
        box.remove()


def props(container: Any, *command: str, job: bool = False, timeout: int = LONG) -> dict[str, Any]:
    return {
        "container": container.id,
        "service": "main",
        "command": list(command),
        "job": job,
        "timeout": timeout,
    }


def failure(inputs: dict[str, Any]) -> str:
    """Return why the service is not ready."""
    with pytest.raises(NotReadyError) as problem:
        ReadyProvider().create(inputs)
    return str(problem.value)


def ended(container: Any) -> None:
    """Wait until a container has exited."""
    wait_until(lambda: not _state(container)["Running"], seconds=120, what="the end of the container")


def _state(container: Any) -> dict[str, Any]:
    container.reload()
    state: dict[str, Any] = container.attrs["State"]
    return state


def test_service_is_ready_when_its_command_succeeds(box: Box) -> None:
    service = box.start("sleep 1; touch /ready; exec sleep 300")

    made = ReadyProvider().create(props(service, "test", "-e", "/ready"))

    assert made.id == service.id[:12]
    assert ReadyProvider().read(made.id, props(service)).id == made.id


def test_service_that_exits_at_once_is_told_with_its_last_words(box: Box) -> None:
    service = box.start("echo cannot read its settings >&2; exit 7")

    problem = failure(props(service, "true"))

    assert problem == "main: exited with code 7; last log lines:\ncannot read its settings"


def test_service_that_restarts_is_not_waited_for(box: Box) -> None:
    service = box.start("sleep 1; echo again; exit 7", restart_policy={"Name": "always"})

    problem = failure(props(service, "false"))

    # What the engine shows depends on the moment.
    reason, words = problem.split("; last log lines:\n")
    assert reason in {"main: exited with code 7", "main: exited and was started again"}
    assert words.startswith("again")


def test_service_that_the_engine_calls_unhealthy_is_not_waited_for(box: Box) -> None:
    # Each check costs CPU time inside the container: once a second, that is as much as work.
    check = {"test": ["CMD", "false"], "interval": 5 * SECOND, "timeout": 5 * SECOND, "retries": 2}
    service = box.start("echo listening elsewhere; exec sleep 300", healthcheck=check)

    problem = failure(props(service, "sh", "-c", "echo nobody listens >&2; exit 22"))

    assert problem == (
        "main: is unhealthy: health command exited with 22: nobody listens; last log lines:\nlistening elsewhere"
    )
    assert ReadyProvider().read("an-id", props(service)).id == ""


def test_service_that_never_gets_ready_is_told_at_the_deadline(box: Box) -> None:
    service = box.start("exec sleep 300")

    problem = failure(props(service, "sh", "-c", "echo not yet; exit 1", timeout=2))

    # How long two seconds take is the machine's affair.
    assert re.sub(r"within \d+ s", "within 2 s", problem) == (
        "main: not ready within 2 s, and it is idle (no CPU time, no log line); health command exited "
        "with 1: not yet; last log lines:\n"
        "(the container logged nothing)"
    )


def test_service_that_hangs_with_its_command_is_told_at_the_deadline(box: Box) -> None:
    service = box.start("exec sleep 300")

    problem = failure(props(service, "sleep", "300", timeout=3))

    assert problem.startswith("main: not ready within ")
    assert "; health command did not end within " in problem


def test_hanging_command_does_not_hide_that_the_next_one_succeeds(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ready, "CHECK_SECONDS", 2.0)
    service = box.start("exec sleep 300")

    made = ReadyProvider().create(props(service, "sh", "-c", "[ -e /asked ] || { touch /asked; sleep 300; }"))

    assert made.id == service.id[:12]


@pytest.mark.parametrize("job", [False, True])
def test_container_that_was_never_started_is_told(box: Box, job: bool) -> None:
    service = box.client.containers.create(BASE, ["true"], name=f"{box.prefix}-created")

    assert failure(props(service, "true", job=job)).startswith("main: was created and never started")


@pytest.mark.parametrize("job", [False, True])
def test_container_that_is_gone_is_told(box: Box, job: bool) -> None:
    service = box.start("exec sleep 300")
    service.remove(force=True)

    assert failure(props(service, "true", job=job)) == "main: the container is gone"
    assert ReadyProvider().read("an-id", props(service, job=job)).id == ""


def test_service_stopped_by_hand_is_noticed(box: Box) -> None:
    service = box.start("exec sleep 300")
    assert ReadyProvider().read("an-id", props(service)).id == "an-id"

    service.stop(timeout=0)

    assert ReadyProvider().read("an-id", props(service)).id == ""


def test_job_is_done_when_it_exits_with_0(box: Box) -> None:
    job = box.start("sleep 1")

    made = ReadyProvider().create(props(job, job=True))

    assert _state(job)["Running"] is False
    assert ReadyProvider().read(made.id, props(job, job=True)).id == made.id


def test_job_that_fails_now_is_told_and_not_run_again(box: Box) -> None:
    job = box.start("echo no such table >&2; exit 3")

    problem = failure(props(job, job=True))

    assert problem == "main: exited with code 3; last log lines:\nno such table"
    assert ReadyProvider().read("an-id", props(job, job=True)).id == ""


def test_job_that_failed_earlier_runs_again(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready, "STALE_JOB_SECONDS", 0.0)
    job = box.start("[ -e /ran ] && exit 0; touch /ran; exit 3")
    ended(job)
    assert _state(job)["ExitCode"] == 3
    time.sleep(1.1)  # the engine's time of the end is read to the second

    ReadyProvider().create(props(job, job=True))

    assert _state(job)["ExitCode"] == 0


def test_job_that_fails_again_is_run_once_more_only(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready, "STALE_JOB_SECONDS", 0.0)
    job = box.start("echo a run; exit 3")
    ended(job)
    time.sleep(1.1)

    problem = failure(props(job, job=True))

    assert problem == "main: exited with code 3; last log lines:\na run\na run"


def test_job_that_hangs_is_told_at_the_deadline(box: Box) -> None:
    job = box.start("echo waiting for a lock; exec sleep 300")

    problem = failure(props(job, job=True, timeout=2))

    assert re.sub(r"within \d+ s", "within 2 s", problem) == (
        "main: did not finish within 2 s, and it is idle (no CPU time, no log line); last log lines:\n"
        "waiting for a lock"
    )


PROGRAM = """
import json, os
from infra.platforms.docker import DockerPlatform
from infra.platforms.platform import VolumePolicy
from infra.catalogue.service import HealthCheck, Limits
from infra.services.spec import ServiceSpec
from infra.tiers.services import ServiceTier

values = json.loads(os.environ["TEST_VALUES"])

class OneImage:
    def id_of(self, role):
        return role

def service(name, after=(), **environment):
    return ServiceSpec(
        name=name, image=values["image"], networks=(), limits=Limits(memory=64), after=after,
        environment=environment, stop_signal="SIGKILL", stop_grace=1, ready_timeout=60,
        entrypoint=("sh", "-c"), command=("echo it is $STATE; exec sleep 600",),
        health=HealthCheck(command=("sh", "-c", 'test "$STATE" = well'), interval=5, retries=2, start_period=1),
    )

platform = DockerPlatform(values["stack"], OneImage(), VolumePolicy(keep=False))
services = [service("first", STATE=values["state"]), service("second", ("first",), STATE="well")]
ServiceTier("data", services, platform, volumes={})
"""


@dataclass(kw_only=True)
class TwoServices(Program):
    """A program with the kit's own platform: a service in a given state, and one that needs it."""

    stack: str
    state: str = "well"

    @property
    def source(self) -> str:
        """The text of the program."""
        return PROGRAM

    @property
    def values(self) -> dict[str, Any]:
        """Its stack's name, the image of its services, and the first one's state."""
        return {"stack": self.stack, "image": BASE, "state": self.state}


def test_no_up_accepts_a_service_that_runs_and_never_gets_healthy(box: Box, tmp_path: Path) -> None:
    program = TwoServices(home=tmp_path / "program", stack=box.prefix, state="sick")

    def containers() -> set[str]:
        found = box.client.api.containers(all=True, filters={"label": f"dify-kit.stack={box.prefix}"})
        return {one["Labels"]["dify-kit.service"] for one in found}

    failures = [program.try_up(refresh=refresh) for refresh in (False, False, True)]

    for failed in failures:
        assert failed.code != 0
        assert "first: is unhealthy: health command exited with 1" in failed.output
        assert "it is sick" in failed.output, "the last log lines are shown"
    assert containers() == {"first"}, "what needs it is never started"

    program.state = "well"
    program.up()
    assert containers() == {"first", "second"}
    program.destroy()
    assert containers() == set()
