"""Readiness as a resource: a service exists for its dependents only once it does its work.

The duration of a start depends on the load of the machine, so the clock alone does not decide. After its deadline the
wait continues as long as the container works by itself (uses CPU, or logs), up to
`MOST_FACTOR` times the deadline.

The Docker provider remembers a container that never started, or never got healthy, as a good one. `Ready` is
the remedy: it is created only when the service's own health command succeeded (or the job exited with 0), so a
failed service stays absent from the state, and every later `pulumi up` waits for it again.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pulumi
from pulumi import dynamic

from infra.engine.runtime import RUNNING, State, WorkloadError, runtime

POLL_SECONDS = 0.4
# A long start is checked less often: each check costs CPU that the start needs.
SLOW_POLL_SECONDS = 2.0
SLOW_AFTER_SECONDS = 20.0
# After its deadline, what works gets this many deadlines in all.
MOST_FACTOR = 4
# Work is looked for over this time. A process that starts gets 2 % of a core also where fifty others want it; one
# that only waits uses a tenth of that.
WORK_SECONDS = 60.0
WORK_SHARE = 0.01
# The engine has checked several times before it reports `unhealthy`: then a shorter observation is enough.
DOUBT_SECONDS = 10.0
# The engine's health command may make the service log a line, too: twice or three times in that minute.
WORK_LINES = 4
LOG_LINES = 20
REPORT_EVERY_SECONDS = 10.0
# A job that failed longer ago than this was left by an earlier `pulumi up`: it gets another run.
STALE_JOB_SECONDS = 15.0
ENGINE_TIMEOUT_SECONDS = 15
# The exit code of a health command when waiting is useless: an operator must fix the cause first.
HOPELESS = 3
# A health command that takes longer hangs.
CHECK_SECONDS = 30.0
# The provider starts what it creates; what it could not start stays as it is.
START_SECONDS = 5.0


class NotReadyError(Exception):
    """The service cannot become ready. The message ends with its last log lines."""


class ContainerProbe:
    """One container, by its reference, as the wait looks at it."""

    def __init__(self, container: str) -> None:
        self._runtime = runtime(container, ENGINE_TIMEOUT_SECONDS)

    def state(self) -> State | None:
        """Return the state, or None when the container is gone."""
        return self._runtime.state()

    def check(self, command: list[str], seconds: float) -> tuple[int, str]:
        """Run the health command inside the container: (exit code, last line of its output).

        The code is -1 when there is none.
        """
        try:
            said = self._runtime.ask(command, seconds=seconds)
        except WorkloadError as problem:
            return -1, f"health command could not run: {problem}"
        if said.late or said.code is None:
            return -1, f"health command did not end within {seconds:.0f} s"
        output = (said.stdout + said.stderr).decode(errors="replace").strip()
        last = output.splitlines()[-1][:300] if output else "no output"
        return said.code, f"health command exited with {said.code}: {last}"

    def cpu_seconds(self) -> float:
        """Return the CPU time that the container has used, 0 where the engine does not report it."""
        return self._runtime.cpu_seconds()

    def last_log_line(self) -> bytes:
        """Return the container's last log line with its time."""
        return self._runtime.logs(lines=1, times=True)

    def start(self) -> None:
        """Start the stopped container again."""
        self._runtime.start()

    def last_logs(self) -> str:
        """Return the last log lines, both streams."""
        text = self._runtime.logs(lines=LOG_LINES)
        return text.decode(errors="replace").rstrip() or "(the container logged nothing)"


def _fail(name: str, reason: str, probe: ContainerProbe) -> NotReadyError:
    return NotReadyError(f"{name}: {reason}; last log lines:\n{probe.last_logs()}")


def _finished_seconds_ago(state: State) -> float:
    return (datetime.now(UTC) - state.finished).total_seconds() if state.finished else 0.0


def _end(state: State, restarts: int) -> str:
    """Say how the container ended, also when it was started again; empty while it runs."""
    if state.status in {"exited", "dead", "restarting"}:
        return f"exited with code {state.exit_code}"
    # The engine no longer shows the exit code of the run before.
    return "exited and was started again" if state.restarts > restarts else ""


class Patience:
    """How long a container is waited for: until its deadline, and beyond it while it works.

    Its own health command runs in the container too, so work is measured only in the pauses between two of them.
    """

    def __init__(self, probe: ContainerProbe, timeout: float) -> None:
        self._probe = probe
        self._timeout = timeout
        self._started = self._reported = time.monotonic()
        # The pauses of the last minute: when each ended, its length and the CPU time in it, in seconds; whether a line
        # was logged.
        self._pauses: list[tuple[float, float, float, bool]] = []
        self._watching: float | None = None

    @property
    def waited(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._started

    @property
    def most(self) -> float:
        """Seconds after which the wait ends in any case."""
        return self._timeout * MOST_FACTOR

    def over(self, *, doubted: bool = False) -> bool:
        """Whether to stop waiting. `doubted`: the engine reports it unhealthy, so the deadline no longer applies."""
        if self.waited >= self.most:
            return True
        if self.waited < self._timeout and not doubted:
            return False
        if self._watching is None:
            self._watching = time.monotonic()
        look = min(DOUBT_SECONDS if doubted else WORK_SECONDS, self._timeout)
        return time.monotonic() - self._watching >= look and not self.works()

    def works(self) -> bool:
        """Whether the container did something by itself in the pauses of the last minute."""
        recent = [pause for pause in self._pauses if pause[0] > time.monotonic() - WORK_SECONDS]
        watched = sum(pause[1] for pause in recent)
        used = sum(pause[2] for pause in recent)
        lines = sum(pause[3] for pause in recent)
        return lines >= WORK_LINES or (watched > 0 and used / watched >= WORK_SHARE)

    def pause(self) -> None:
        """Wait until the next check; near the deadline, measure what the container does in that time."""
        seconds = POLL_SECONDS if self.waited < SLOW_AFTER_SECONDS else max(POLL_SECONDS, SLOW_POLL_SECONDS)
        if self._watching is None and self.waited < self._timeout - WORK_SECONDS:
            time.sleep(seconds)
            return
        began, used, line = time.monotonic(), self._probe.cpu_seconds(), self._probe.last_log_line()
        if self._watching is None:
            self._watching = began
        time.sleep(seconds)
        used = max(0.0, self._probe.cpu_seconds() - used)
        ended = time.monotonic()
        self._pauses.append((ended, ended - began, used, self._probe.last_log_line() != line))
        self._pauses = [pause for pause in self._pauses if pause[0] > ended - WORK_SECONDS]

    def account(self) -> str:
        """Describe the length of the wait, and why it ended."""
        if self.waited >= self.most:
            return f"{self.waited:.0f} s, the longest possible wait"
        return f"{self.waited:.0f} s, and it is idle (no CPU time, no log line)"

    def report_due(self) -> bool:
        """Whether to report the state of the wait again."""
        if time.monotonic() - self._reported <= REPORT_EVERY_SECONDS:
            return False
        self._reported = time.monotonic()
        return True

    def state(self) -> str:
        """Describe the state of the wait."""
        late = f", {self._timeout:.0f} s were expected: it still works" if self.waited > self._timeout else ""
        return f"not ready after {self.waited:.0f} s{late}"


def _seen(name: str, probe: ContainerProbe, patience: Patience) -> State:
    """Return the container's state. Raises NotReadyError when there is none, or it was never started."""
    state = probe.state()
    if state is None:
        raise NotReadyError(f"{name}: the container is gone")
    if state.status == "created" and patience.waited > START_SECONDS:
        raise _fail(name, "was created and never started", probe)
    return state


def wait_for_job(name: str, probe: ContainerProbe, timeout: float, say: Callable[[str], None]) -> None:
    """Wait until the job's container exited with 0.

    Raises NotReadyError on another exit code, on a missing container, or when `Patience` of `timeout` seconds ends.
    """
    patience = Patience(probe, timeout)
    first_look = True
    while not patience.over():
        state = _seen(name, probe, patience)
        if state.status in {"exited", "dead"}:
            if state.exit_code == 0:
                return
            if not (first_look and _finished_seconds_ago(state) > STALE_JOB_SECONDS):
                raise _fail(name, f"exited with code {state.exit_code}", probe)
            probe.start()
        first_look = False
        if patience.report_due():
            say(f"{name}: {patience.state()}")
        patience.pause()
    raise _fail(name, f"did not finish within {patience.account()}", probe)


def _unhealthy(state: State) -> bool:
    return state.health == "unhealthy"


def wait_for_service(
    name: str,
    probe: ContainerProbe,
    command: list[str],
    timeout: float,
    say: Callable[[str], None],
) -> None:
    """Wait until the health command succeeds (or, without one, the container keeps running).

    Raises NotReadyError as soon as the container exits, restarts or exits with HOPELESS, and when `Patience` of
    `timeout` seconds ends, with what was seen last. Of a container that the engine calls unhealthy it ends as soon as
    the container does no work.
    """
    patience = Patience(probe, timeout)
    seen = "nothing yet"
    restarts: int | None = None
    doubted = False
    while not patience.over(doubted=doubted):
        state = _seen(name, probe, patience)
        restarts = state.restarts if restarts is None else restarts
        if end := _end(state, restarts):
            raise _fail(name, end, probe)
        if state.status == RUNNING:
            if not command:
                return
            left = patience.most - patience.waited
            code, seen = probe.check(command, max(1.0, min(CHECK_SECONDS, left)))
            if code == 0:
                return
            if code == HOPELESS:
                raise _fail(name, f"cannot become ready: {seen}", probe)
            doubted = _unhealthy(state)
        else:
            seen = f"container is {state.status}"
        if patience.report_due():
            say(f"{name}: {patience.state()}; {seen}")
        patience.pause()
    if doubted and patience.waited < patience.most:
        raise _fail(name, f"is unhealthy: {seen}", probe)
    raise _fail(name, f"not ready within {patience.account()}; {seen}", probe)


class ReadyProvider(dynamic.ResourceProvider):
    """Waits for one container. Pickled by reference: this module must keep its name."""

    def create(self, props: dict[str, Any]) -> dynamic.CreateResult:
        """Wait; raise with the reason when the service does not get ready."""
        probe = ContainerProbe(props["container"])
        if props["job"]:
            wait_for_job(props["service"], probe, props["timeout"], pulumi.log.info)
        else:
            wait_for_service(
                props["service"], probe, list(props["command"]), props["timeout"], pulumi.log.info
            )
        return dynamic.CreateResult(props["container"][:12], props)

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> dynamic.DiffResult:
        """Wait again when the container is another one; a new command or deadline alone changes nothing."""
        changed = _olds.get("container") != _news.get("container")
        return dynamic.DiffResult(
            changes=changed, replaces=["container"] if changed else [], delete_before_replace=True
        )

    def read(self, id_: str, props: dict[str, Any]) -> dynamic.ReadResult:
        """Forget the service when it is gone, stopped or unhealthy, so that `up` waits for it again."""
        state = ContainerProbe(props["container"]).state()
        gone = dynamic.ReadResult("", {})
        if state is None:
            return gone
        if props["job"]:
            return dynamic.ReadResult(id_, props) if state.exit_code == 0 else gone
        healthy = state.status == RUNNING and not _unhealthy(state)
        return dynamic.ReadResult(id_, props) if healthy else gone


class Ready(dynamic.Resource):
    """Exists when `service`, running in `container`, is ready.

    Inputs: container (its reference), service (name for messages), command (health command, empty for none), job
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
