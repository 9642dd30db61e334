"""When a service counts as ready, and when waiting for it ends early."""

from typing import Any

import pytest

from infra.resources import ready
from infra.resources.ready import HOPELESS, ContainerProbe, NotReadyError, wait_for_service


class Probe(ContainerProbe):
    """A running container whose health command gives some exit codes, one after another, the last for ever."""

    def __init__(self, *codes: int) -> None:
        self._codes = iter(codes)
        self._last = 1
        self.asked = 0

    def state(self) -> dict[str, Any]:
        return {"Status": "running", "RestartCount": 0, "ExitCode": 0}

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


def wait(probe: Probe, timeout: float = 5) -> None:
    wait_for_service("certbot", probe, ["health"], timeout, lambda _: None)


def test_service_is_ready_when_its_health_command_succeeds() -> None:
    probe = Probe(1, 2, 0)

    wait(probe)

    assert probe.asked == 3


def test_hopeless_service_is_not_waited_for() -> None:
    probe = Probe(1, HOPELESS, 0)

    with pytest.raises(
        NotReadyError, match=r"certbot: will not get ready: .*its words; last log lines:\nthe last"
    ):
        wait(probe)

    assert probe.asked == 2


def test_time_runs_out_with_what_was_seen_last() -> None:
    with pytest.raises(NotReadyError, match="not ready within 0 s; health command exited with 1: its words"):
        wait(Probe(1), timeout=0.05)
