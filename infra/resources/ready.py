"""Readiness as a resource: a service exists for its dependents only once it does its work.

The Docker provider remembers a container that never started, or never got healthy, as a good one. `Ready` is
the cure: it is created only when the service's own health command succeeded (or the job exited with 0), so a
sick service stays absent from the state and is judged again by every later `pulumi up`.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pulumi
from pulumi import dynamic

from infra.resources.execution import run

POLL_SECONDS = 0.4
LOG_LINES = 20
TALK_EVERY_SECONDS = 10.0
# A job that failed longer ago than this was left by an earlier `pulumi up`: it gets another run.
STALE_JOB_SECONDS = 15.0
ENGINE_TIMEOUT_SECONDS = 15
# A health command exits with it when waiting is of no use: somebody has to mend something first.
HOPELESS = 3
# A health command that takes longer hangs. `celery inspect ping`, the slowest, imports Dify first.
CHECK_SECONDS = 30.0
# The provider starts what it creates; what it could not start stays as it is.
START_SECONDS = 5.0


class NotReadyError(Exception):
    """The service cannot become ready. The message ends with its last log lines."""


class ContainerProbe:
    """One container as the Docker engine shows it."""

    def __init__(self, container: str) -> None:
        from infra import engine  # noqa: PLC0415  # kept out of the pickled provider

        self._client = engine.client(ENGINE_TIMEOUT_SECONDS)
        self._id = container

    def state(self) -> dict[str, Any] | None:
        """Return the engine's `State` with `RestartCount`, or None when the container is gone."""
        import docker  # noqa: PLC0415

        try:
            found = self._client.api.inspect_container(self._id)
        except docker.errors.NotFound:
            return None
        return {**found["State"], "RestartCount": found["RestartCount"]}

    def check(self, command: list[str], seconds: float) -> tuple[int, str]:
        """Run the health command inside the container: (exit code, last line of its output).

        The code is -1 when there is none.
        """
        import docker  # noqa: PLC0415
        import requests  # noqa: PLC0415
        from docker.utils.socket import SocketError  # noqa: PLC0415

        try:
            ran = run(self._client.api, self._id, command, seconds=seconds)
            if ran.late:
                return -1, f"health command did not end within {seconds:.0f} s"
            code = self._client.api.exec_inspect(ran.id)["ExitCode"]
        except (
            docker.errors.APIError,
            requests.exceptions.RequestException,
            SocketError,
            OSError,
        ) as problem:
            return -1, f"health command could not run: {problem}"
        output = (ran.stdout + ran.stderr).decode(errors="replace").strip()
        last = output.splitlines()[-1][:300] if output else "no output"
        return int(code), f"health command exited with {code}: {last}"

    def start(self) -> None:
        """Start the stopped container again."""
        self._client.api.start(self._id)

    def last_logs(self) -> str:
        """Return the last log lines, both streams."""
        text: bytes = self._client.api.logs(self._id, tail=LOG_LINES)
        return text.decode(errors="replace").rstrip() or "(the container logged nothing)"


def _fail(name: str, reason: str, probe: ContainerProbe) -> NotReadyError:
    return NotReadyError(f"{name}: {reason}; last log lines:\n{probe.last_logs()}")


def _finished_seconds_ago(state: dict[str, Any]) -> float:
    # The engine writes nanoseconds, which fromisoformat does not read.
    finished = datetime.fromisoformat(state["FinishedAt"][:19]).replace(tzinfo=UTC)
    return (datetime.now(UTC) - finished).total_seconds()


def _end(state: dict[str, Any], restarts: int) -> str:
    """Say how the container ended, also when it was started again; empty while it runs."""
    if state["Status"] in {"exited", "dead", "restarting"}:
        return f"exited with code {state['ExitCode']}"
    # The engine no longer shows the exit code of the run before.
    return "exited and was started again" if state["RestartCount"] > restarts else ""


def wait_for_job(name: str, probe: ContainerProbe, timeout: float) -> None:
    """Wait until the job's container exited with 0.

    Raises NotReadyError on another exit code, on a missing container, or after `timeout` seconds.
    """
    started = time.monotonic()
    first_look = True
    while time.monotonic() - started < timeout:
        state = probe.state()
        if state is None:
            raise NotReadyError(f"{name}: the container is gone")
        if state["Status"] in {"exited", "dead"}:
            if state["ExitCode"] == 0:
                return
            if not (first_look and _finished_seconds_ago(state) > STALE_JOB_SECONDS):
                raise _fail(name, f"exited with code {state['ExitCode']}", probe)
            probe.start()
        if state["Status"] == "created" and time.monotonic() - started > START_SECONDS:
            raise _fail(name, "was created and never started", probe)
        first_look = False
        time.sleep(POLL_SECONDS)
    raise _fail(name, f"did not finish within {timeout:.0f} s", probe)


def _hopeless(code: int, state: dict[str, Any]) -> str:
    """Return why waiting is of no use, by a health command's exit code or the engine; empty when it may be."""
    if code == HOPELESS:
        return "will not get ready"
    return "is unhealthy" if state.get("Health", {}).get("Status") == "unhealthy" else ""


def wait_for_service(
    name: str,
    probe: ContainerProbe,
    command: list[str],
    timeout: float,
    say: Callable[[str], None],
) -> None:
    """Wait until the health command succeeds (or, without one, the container keeps running).

    Raises NotReadyError as soon as the container exits, restarts, calls itself hopeless or is called unhealthy
    by the engine, or after `timeout` seconds; the message says what was seen last.
    """
    started = time.monotonic()
    talked = started
    seen = "nothing yet"
    restarts: int | None = None
    while time.monotonic() - started < timeout:
        state = probe.state()
        if state is None:
            raise NotReadyError(f"{name}: the container is gone")
        restarts = state["RestartCount"] if restarts is None else restarts
        if end := _end(state, restarts):
            raise _fail(name, end, probe)
        if state["Status"] == "running":
            if not command:
                return
            left = timeout - (time.monotonic() - started)
            code, seen = probe.check(command, max(1.0, min(CHECK_SECONDS, left)))
            if code == 0:
                return
            if reason := _hopeless(code, state):
                raise _fail(name, f"{reason}: {seen}", probe)
        else:
            seen = f"container is {state['Status']}"
            if state["Status"] == "created" and time.monotonic() - started > START_SECONDS:
                raise _fail(name, "was created and never started", probe)
        if time.monotonic() - talked > TALK_EVERY_SECONDS:
            talked = time.monotonic()
            say(f"{name}: not ready after {talked - started:.0f} s; {seen}")
        time.sleep(POLL_SECONDS)
    raise _fail(name, f"not ready within {timeout:.0f} s; {seen}", probe)


class ReadyProvider(dynamic.ResourceProvider):
    """Judges one container. Pickled by reference: this module must keep its name."""

    def create(self, props: dict[str, Any]) -> dynamic.CreateResult:
        """Wait; raise with the reason when the service does not get ready."""
        probe = ContainerProbe(props["container"])
        if props["job"]:
            wait_for_job(props["service"], probe, props["timeout"])
        else:
            wait_for_service(
                props["service"], probe, list(props["command"]), props["timeout"], pulumi.log.info
            )
        return dynamic.CreateResult(props["container"][:12], props)

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> dynamic.DiffResult:
        """Judge again when the container is another one; a new command or deadline alone changes nothing."""
        changed = _olds.get("container") != _news.get("container")
        return dynamic.DiffResult(
            changes=changed, replaces=["container"] if changed else [], delete_before_replace=True
        )

    def read(self, id_: str, props: dict[str, Any]) -> dynamic.ReadResult:
        """Forget the service when it is gone, stopped or unhealthy, so that `up` judges it again."""
        state = ContainerProbe(props["container"]).state()
        gone = dynamic.ReadResult("", {})
        if state is None:
            return gone
        if props["job"]:
            return dynamic.ReadResult(id_, props) if state["ExitCode"] == 0 else gone
        well = state["Status"] == "running" and state.get("Health", {}).get("Status") != "unhealthy"
        return dynamic.ReadResult(id_, props) if well else gone


class Ready(dynamic.Resource):
    """Exists when `service`, running in `container`, is ready.

    Inputs: container (id), service (name for messages), command (health command, empty for none), job
    (wait for exit code 0 instead), timeout (seconds).
    """

    container: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        *,
        container: pulumi.Input[str],
        service: str,
        command: tuple[str, ...],
        job: bool,
        timeout: int,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(
            ReadyProvider(),
            name,
            {
                "container": container,
                "service": service,
                "command": list(command),
                "job": job,
                "timeout": timeout,
            },
            opts,
        )
