"""What the backup bench makes of its rounds. The rounds need an engine: `python -m bench backup`."""

import sys
from pathlib import Path
from typing import Any

import pytest

from bench import backup, report
from bench.backup import IDLE, KIT_WAY, PLAIN_WAY, Sent
from dify_kit.errors import KitError


def row(number: int, way: str, **figures: float) -> dict[str, Any]:
    usual: dict[str, Any] = {
        "round": number,
        "way": way,
        "seconds": 20.0,
        "MiB": 2048.0,
        "MiB/s": 100.0,
        "CPU seconds": 10.0,
        "peak MiB": 120.0,
        "peak MiB of the key": 0.0,
        "chats": 100,
        "chats failed": 0,
        "p99 ms": 40.0,
    }
    return {**usual, **figures}


ROUNDS = [
    row(1, IDLE),
    row(1, PLAIN_WAY),
    row(1, KIT_WAY, **{"MiB/s": 80.0, "p99 ms": 60.0, "peak MiB of the key": 1030.0}),
    row(2, IDLE),
    row(2, PLAIN_WAY),
    row(2, KIT_WAY, **{"MiB/s": 90.0, "p99 ms": 50.0, "peak MiB": 150.0}),
]


def test_figures_are_medians_and_the_memory_is_the_most() -> None:
    found = backup.report_of("python -m bench backup", ROUNDS, rounds=2, mebibytes=1024, facts={"cores": "2"})

    assert found.summary["ratio"] == pytest.approx(0.85)
    assert found.summary["peak MiB"] == 150.0
    assert found.summary["p99"][KIT_WAY] == pytest.approx(1.375)
    assert found.problem == ""
    text = report.markdown(found, "today")
    assert "| throughput, ratio to pg_dump + tar | at least 0.7 | 0.85 |" in text
    assert "| peak memory in MiB | under 200 | 150 |" in text
    assert "takes 1,030 MiB for about a second" in text


def test_chats_that_failed_are_a_problem() -> None:
    rounds = [*ROUNDS, row(3, KIT_WAY, **{"chats failed": 2})]

    assert backup.report_of("x", rounds, rounds=3, mebibytes=8, facts={}).problem == "2 chats failed"


def test_the_p99_is_of_the_chats_that_ended_in_a_turn() -> None:
    sent = Sent(calls=[(1.0, 0.5, 200), (2.0, 0.01, 200), (3.0, 0.02, 503), (4.0, 0.9, 200)])

    turn = sent.between(1.5, 3.5)

    assert turn.p99() == pytest.approx(20.0)
    assert turn.failed() == 1
    with pytest.raises(ValueError, match="no value"):
        sent.between(10.0, 11.0).p99()


def test_memory_before_the_key_is_derived_counts_apart(tmp_path: Path) -> None:
    script = (
        "import time\nheld = bytearray(150 << 20)\ntime.sleep(1)\ndel held\n"
        "print('settings, secrets and keys of stack x', flush=True)\ntime.sleep(1)\nsum(range(3_000_000))"
    )

    ran = backup.watched([sys.executable, "-c", script], {}, tmp_path / "log")

    assert ran.early > 150
    assert 0 < ran.memory < ran.early
    assert ran.cpu > 0
    assert ran.seconds > 1


def test_a_command_that_fails_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(KitError, match="no such stack"):
        backup.watched([sys.executable, "-c", "raise SystemExit('no such stack')"], {}, tmp_path / "log")
