"""When a service counts as ready, and when waiting for it ends early."""

import time
from typing import Any

import pytest

from infra.engine.runtime import RUNNING, State
from infra.resources import ready
from infra.resources.ready import HOPELESS, ContainerProbe, NotReadyError, wait_for_job, wait_for_service


class Probe(ContainerProbe):
    """A running container whose health command gives some exit codes, one after another, the last for ever."""

    def __init__(self, *codes: int, health: str = "starting", share: float = 0.0, logs: bool = False) -> None:
        self._codes = iter(codes)
        self._last = 1
        self._health = health
        self._share = share
        self._logs = logs
        self.asked = 0

    def state(self) -> State:
        return State(status=RUNNING, health=self._health)

    def cpu_seconds(self) -> float:
        return time.monotonic() * self._share

    def last_log_line(self) -> bytes:
        return f"{time.monotonic()} busy".encode() if self._logs else b"the last line of the log"

    def check(self, command: list[str], seconds: float) -> tuple[int, str]:
        assert command == ["health"]
        assert seconds > 0
        self.asked += 1
        self._last = next(self._codes, self._last)
        return self._last, f"health command exited with {self._last}: its words"

    def last_logs(self) -> str:
        return "the last line of the log"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(ready, "SLOW_POLL_SECONDS", 0.001)


def wait(probe: Probe, timeout: float = 5) -> None:
    wait_for_service("certbot", probe, ["health"], timeout, lambda _: None)


def test_service_is_ready_when_its_health_command_succeeds() -> None:
    probe = Probe(1, 2, 0)

    wait(probe)

    assert probe.asked == 3


def test_hopeless_service_is_not_waited_for() -> None:
    probe = Probe(1, HOPELESS, 0)

    with pytest.raises(
        NotReadyError, match=r"certbot: cannot become ready: .*its words; last log lines:\nthe last"
    ):
        wait(probe)

    assert probe.asked == 2


def test_time_runs_out_with_what_was_seen_last() -> None:
    with pytest.raises(
        NotReadyError,
        match=r"not ready within 0 s, and it is idle \(.*\); health command exited with 1: its words",
    ):
        wait(Probe(1), timeout=0.05)


WORKS: dict[str, dict[str, Any]] = {"uses CPU": {"share": 0.05}, "logs": {"logs": True}}


@pytest.mark.parametrize("how", WORKS)
def test_what_works_is_waited_for_beyond_its_deadline(how: str) -> None:
    began = time.monotonic()

    class Late(Probe):
        def check(self, command: list[str], seconds: float) -> tuple[int, str]:
            late = time.monotonic() - began > 0.4
            return (0, "") if late else super().check(command, seconds)

    wait(Late(1, **WORKS[how]), timeout=0.2)


@pytest.mark.parametrize("how", WORKS)
def test_what_works_is_not_waited_for_without_end(how: str) -> None:
    began = time.monotonic()

    with pytest.raises(NotReadyError, match="the longest possible wait; health command exited with 1"):
        wait(Probe(1, **WORKS[how]), timeout=0.1)

    assert time.monotonic() - began >= 0.4


def test_a_share_of_cpu_that_waiting_takes_is_no_work() -> None:
    with pytest.raises(NotReadyError, match="it is idle"):
        wait(Probe(1, share=0.002), timeout=0.1)


def test_unhealthy_service_is_given_up_before_its_deadline_unless_it_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ready, "DOUBT_SECONDS", 0.1)

    with pytest.raises(NotReadyError, match="certbot: is unhealthy: health command exited with 1"):
        wait(Probe(1, health="unhealthy"), timeout=60)
    with pytest.raises(NotReadyError, match="the longest possible wait"):
        wait(Probe(1, health="unhealthy", share=0.05), timeout=0.1)


def test_job_that_works_is_waited_for_and_not_without_end() -> None:
    said: list[str] = []

    with pytest.raises(NotReadyError, match="did not finish within 0 s, the longest possible wait"):
        wait_for_job("migration", Probe(share=0.05), 0.1, said.append)
    with pytest.raises(NotReadyError, match="did not finish within 0 s, and it is idle"):
        wait_for_job("migration", Probe(), 0.1, said.append)
