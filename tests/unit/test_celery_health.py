"""Celery's beat by what the kernel says about it: there, stopped, or asleep for too long."""

from pathlib import Path

import pytest

from infra.container_scripts.celery_health import BEAT_SECONDS, SickError, beat


class Kernel:
    """A directory like /proc with one process."""

    def __init__(self, directory: Path, command: str = "python3 celery -A app.celery beat") -> None:
        self.directory, self.seen = directory / "proc", directory / "seen"
        self.place = self.directory / "7"
        self.place.mkdir(parents=True)
        (self.place / "cmdline").write_bytes(command.replace(" ", "\0").encode())
        self.woke(1)

    def woke(self, times: int, state: str = "S (sleeping)") -> None:
        """Let the process have gone to sleep that often."""
        status = f"Name:\tcelery\nState:\t{state}\nvoluntary_ctxt_switches:\t{times}\n"
        (self.place / "status").write_text(status, encoding="utf-8")

    def check(self, now: float) -> str:
        return beat(self.directory, self.seen, now)


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return Kernel(tmp_path)


def test_beat_that_wakes_up_is_alive_for_ever(kernel: Kernel) -> None:
    for times in range(1, 6):
        kernel.woke(times)
        assert kernel.check(times * BEAT_SECONDS * 2) == "celery beat has woken up"


def test_beat_may_sleep_and_not_too_long(kernel: Kernel) -> None:
    kernel.check(100)

    assert kernel.check(100 + BEAT_SECONDS - 1) == f"celery beat sleeps for {BEAT_SECONDS - 1} s"
    with pytest.raises(SickError, match="has not woken up for"):
        kernel.check(100 + BEAT_SECONDS + 1)
    kernel.woke(2)
    assert kernel.check(100 + BEAT_SECONDS + 2) == "celery beat has woken up"


def test_a_clock_that_began_anew_is_no_sleep(kernel: Kernel) -> None:
    kernel.check(100_000)

    assert kernel.check(5) == "celery beat has woken up"


@pytest.mark.parametrize("state", ["T (stopped)", "Z (zombie)"])
def test_stopped_beat_is_sick_at_once(kernel: Kernel, state: str) -> None:
    kernel.woke(2, state)

    with pytest.raises(SickError, match="does not run"):
        kernel.check(1)


@pytest.mark.parametrize(
    "command", ["celery worker", "python3 -I -S /opt/dify-kit/celery_health.py beat", "bash"]
)
def test_another_process_is_not_beat(tmp_path: Path, command: str) -> None:
    with pytest.raises(SickError, match="no process"):
        Kernel(tmp_path, command).check(1)


@pytest.mark.parametrize(
    "command",
    [
        "/app/api/.venv/bin/python /app/api/.venv/bin/celery -A app.celery beat --loglevel INFO",
        "python3 /usr/lib/python3/dist-packages/celery/__main__.py -A app beat",
        "[celery beat] -A app.celery",
    ],
)
def test_beat_is_known_by_its_command_line(tmp_path: Path, command: str) -> None:
    assert Kernel(tmp_path, command).check(1) == "celery beat has woken up"
