"""`dify-kit smoke`: one run with the tests' own options, a deadline that cleans up, and metrics of the last run."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from dify_kit.errors import UsageError
from dify_kit.smoke import run as smoke_run
from dify_kit.smoke.metrics import SmokeMetrics
from dify_kit.smoke.run import Ended, command_of
from dify_kit.smoke.termination import terminable
from dify_kit.smoke.watch import report, target_of
from dify_kit.watch.serving import duration
from support.ports import free_port
from support.stacks import wait_until
from tests.unit.smoke_runs import CHECKOUT
from tests.unit.smoke_upstream import KEY, Handler, serving

QUICK = ("--browser", "none", "-p", "no:cacheprovider", "-k", "test_console or test_tls")
# For what ends by itself: no measure of speed, a busy machine takes minutes for what is else done in seconds.
SECONDS = 300
# The first conversation has to begin before it, on a busy machine too, and the client waits 60 s for an answer.
DEADLINE_SECONDS = 50


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "dify_kit", "smoke", *arguments]


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DIFY_", "PULUMI_"))}
    return kept | {"DIFY_API_KEY": KEY, "NO_COLOR": "1"}


def smoke(*arguments: str, cwd: Path = CHECKOUT) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command(*arguments),
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


@pytest.mark.parametrize(
    ("defects", "code", "summary"),
    [((), 0, "Passed: all 4 tests"), (("unclaimed",), 1, "Failed: 1 of 4 tests")],
)
def test_a_run_has_the_tests_own_options_and_exit_code(
    tmp_path: Path, defects: tuple[str, ...], code: int, summary: str
) -> None:
    # From another directory, with a file that is named from there.
    (tmp_path / "key").write_text(KEY, encoding="utf-8")
    with serving(*defects) as upstream:
        done = smoke(
            *("--url", upstream.url, *QUICK, "--api-key-file", "key", "--reports", "reports"),
            *("--json", "out/results.json"),
            cwd=tmp_path,
        )
    found = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))

    assert done.returncode == code, done.stdout + done.stderr
    assert summary in done.stdout
    assert found["summary"].startswith(summary)
    assert {path.suffix for path in (tmp_path / "reports").iterdir()} == {".xml", ".html", ".json"}


class HangingHandler(Handler):
    """Starts a conversation and then sends an answer without an end."""

    conversed: ClassVar[threading.Event] = threading.Event()
    released: ClassVar[threading.Event] = threading.Event()

    def messages(self) -> None:
        self.conversed.set()
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Connection", "close")
        self.end_headers()
        # A blank each second: the client's own limit for a silent server is shorter than the deadline.
        while not self.released.wait(1):
            try:
                self.wfile.write(b" ")
            except OSError:
                return


@pytest.fixture
def _hanging() -> Iterator[None]:
    HangingHandler.conversed.clear()
    HangingHandler.released.clear()
    yield
    HangingHandler.released.set()


@pytest.mark.usefixtures("_hanging")
def test_a_run_is_cancelled_at_its_deadline_and_cleans_up(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    with serving(kind=HangingHandler) as upstream:
        started = time.monotonic()
        process = subprocess.Popen(
            command(
                *("--url", upstream.url, "--browser", "none", "-p", "no:cacheprovider", "-k", "follow_up"),
                *("--reports", str(tmp_path), "--json", str(results), "--deadline", f"{DEADLINE_SECONDS}s"),
            ),
            cwd=CHECKOUT,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert HangingHandler.conversed.wait(SECONDS)
        assert upstream.conversations
        printed, _ = process.communicate(timeout=SECONDS)
        took = time.monotonic() - started

        assert upstream.conversations == {}, "conversations left behind"
    assert process.returncode == 1
    assert f"the run was cancelled after {DEADLINE_SECONDS} s" in printed
    assert took >= DEADLINE_SECONDS
    assert json.loads(results.read_text(encoding="utf-8"))["summary"].startswith("Cancelled: ")


@pytest.mark.usefixtures("_hanging")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_is_ended_by_a_signal_cleans_up(tmp_path: Path, number: signal.Signals) -> None:
    with serving(kind=HangingHandler) as upstream:
        process = subprocess.Popen(
            command(
                *("--url", upstream.url, "--browser", "none", "-p", "no:cacheprovider", "-k", "follow_up"),
                *("--reports", str(tmp_path)),
            ),
            cwd=CHECKOUT,
            env=environment() | {"TMPDIR": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            assert HangingHandler.conversed.wait(SECONDS)
            assert upstream.conversations
            process.send_signal(number)
            printed, _ = process.communicate(timeout=SECONDS)
        finally:
            process.kill()

        assert upstream.conversations == {}, "conversations left behind"
    assert process.returncode == 130, printed
    assert "the run was cancelled" in printed
    assert not list(tmp_path.glob("dify-kit-smoke-*"))


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with terminable():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_processes_that_a_run_leaves_are_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noted = tmp_path / "pid"
    script = f"sleep 300 & echo $! > {noted}"
    monkeypatch.setattr(smoke_run, "command_of", lambda *_: ["/bin/sh", "-c", script])

    ended = smoke_run.run("dev", (), deadline=30, quiet=True)

    left = Path("/proc", noted.read_text().strip(), "stat")
    assert ended.code == 0

    # Killed, or a zombie that the container's first process has not collected yet.
    def gone() -> bool:
        try:
            return left.read_text().rpartition(") ")[2].startswith("Z")
        except FileNotFoundError:
            return True

    wait_until(
        gone,
        seconds=60,
        what="the end of the process that the run left",
    )


def test_results_go_to_a_file_of_the_operators_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = tmp_path / "mine.json"
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    with serving() as upstream:
        ended = smoke_run.run(
            "dev",
            ("--url", upstream.url, *QUICK, "--reports", str(tmp_path), "--json", str(mine)),
            deadline=SECONDS,
            quiet=True,
        )

    assert ended.outcome == "passed", ended.printed
    assert ended.results == json.loads(mine.read_text(encoding="utf-8"))


@contextmanager
def watching(*arguments: str) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        command(*arguments),
        cwd=CHECKOUT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=SECONDS)


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Return the value of each sample by its name and the values of its labels, but for the target."""
    return {
        (sample.name, *(value for name, value in sample.labels.items() if name != "target")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scrape(port: int, result: float) -> dict[tuple[str, ...], float]:
    """Return the metrics once a run has this result."""
    until = time.monotonic() + SECONDS
    found: dict[tuple[str, ...], float] = {}
    while time.monotonic() < until:
        try:
            found = samples(httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text)
        except httpx.HTTPError:
            found = {}
        if found.get(("dify_smoke_result",)) == result:
            return found
        time.sleep(0.3)
    raise AssertionError(f"no run with result {result} within {SECONDS} s: {found}")


def test_a_watch_shows_prometheus_each_run(tmp_path: Path) -> None:
    port, claimed = free_port(), "test_the_instance_is_claimed"
    with (
        serving() as upstream,
        watching(
            *("--url", upstream.url, *QUICK, "--reports", str(tmp_path), "--watch", "1s", "--port", str(port))
        ) as process,
    ):
        before = time.time()
        good = scrape(port, 1)
        upstream.defects = frozenset({"unclaimed"})
        bad = scrape(port, 0)
        process.send_signal(signal.SIGTERM)
        printed, _ = process.communicate(timeout=SECONDS)

    assert good["dify_smoke_test_result", "Console and gate", claimed] == 1
    assert bad["dify_smoke_test_result", "Console and gate", claimed] == 0
    assert bad["dify_smoke_group_result", "Console and gate"] == 0
    assert bad["dify_smoke_tests", "Console and gate", "failed"] == 1
    assert bad["dify_smoke_tests", "TLS", "not_tested"] > 0
    assert ("dify_smoke_group_result", "TLS") not in bad, "a group without a test has no result"
    assert bad["dify_smoke_runs_total", "failed"] >= 1
    assert before < good["dify_smoke_last_run_timestamp_seconds",] <= time.time()
    assert bad["dify_smoke_last_success_timestamp_seconds",] < bad["dify_smoke_last_run_timestamp_seconds",]
    assert bad["dify_smoke_duration_seconds",] > bad["dify_smoke_group_duration_seconds", "Console and gate"]
    assert process.returncode == 130
    assert f"Console and gate: {claimed}: the first visitor may become the administrator; fix: " in printed
    assert KEY not in printed


def test_a_taken_port_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = smoke("--url", "http://127.0.0.1:1", "--watch", "5m", "--port", str(taken.getsockname()[1]))

    assert done.returncode == 1
    assert "cannot be used: Address already in use" in done.stderr
    assert "hint: name a free port with --port" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--watch", "soon"), "--watch 'soon': not a duration"),
        (("--deadline", "0"), "--deadline '0': not a duration"),
        (("--watch", "5m", "--api-key-file", "-"), "standard input can be read for one run only"),
        (("--watch", "5m", "--api-key-file=-"), "standard input can be read for one run only"),
    ],
)
def test_a_wrong_option_is_an_error_of_use(arguments: tuple[str, ...], message: str) -> None:
    done = smoke(*arguments)

    assert done.returncode == 2
    assert message in done.stderr


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("5m", 300), ("1h", 3600)])
def test_durations(text: str, seconds: float) -> None:
    assert duration("--watch", text) == seconds
    with pytest.raises(UsageError):
        duration("--watch", f"-{text}")


@pytest.mark.parametrize(
    ("options", "stack", "target"),
    [
        ([], ["--stack", "dev"], "dev"),
        (["--url", "https://a.example"], [], "https://a.example"),
        (["--url=https://a.example"], [], "https://a.example"),
        (["-k", "--", "cors"], ["--stack", "dev"], "dev"),
    ],
)
def test_the_target_is_the_address_or_the_stack(options: list[str], stack: list[str], target: str) -> None:
    words = command_of("dev", options, Path("x.json"))

    assert words[words.index("x.json") + 1 :] == [*stack, *options]
    assert target_of("dev", options) == target


def metrics_of(*runs: Ended) -> dict[tuple[str, ...], float]:
    collector, registry = SmokeMetrics("dev"), CollectorRegistry()
    for one in runs:
        collector.update(one)
    registry.register(collector)
    return samples(generate_latest(registry).decode())


def results(outcome: str, *tests: str) -> Mapping[str, Any]:
    listed = [{"name": name, "outcome": outcome, "seconds": 0.5} for name in tests]
    group = {"name": "CORS", "outcome": outcome, "seconds": 1.0, "notTested": 0, "tests": listed}
    return {
        "outcome": outcome,
        "summary": outcome,
        "groups": [group | {"passed": len(tests), "failed": 0}],
    }


def test_before_the_first_run_there_is_no_result() -> None:
    assert metrics_of() == {
        ("dify_smoke_runs_total", outcome): 0.0 for outcome in ("passed", "failed", "cancelled", "error")
    }


def test_a_test_that_is_gone_has_no_metric() -> None:
    first = Ended(code=0, results=results("passed", "test_a", "test_b"), started=100, seconds=5)
    second = Ended(code=0, results=results("passed", "test_a"), started=200, seconds=5)
    found = metrics_of(first, second)

    assert ("dify_smoke_test_result", "CORS", "test_b") not in found
    assert found["dify_smoke_last_success_timestamp_seconds",] == 205


@pytest.mark.parametrize(
    ("ended", "outcome"),
    [
        (Ended(code=4, started=200, printed="ERROR: --url is wrong"), "error"),
        (Ended(code=2, started=200, results=results("failed"), cancelled=True), "cancelled"),
        (Ended(code=1, started=200, results=results("not tested")), "error"),
    ],
)
def test_a_run_without_a_result_has_not_passed(ended: Ended, outcome: str) -> None:
    good = Ended(code=0, results=results("passed", "test_a"), started=100)
    found = metrics_of(good, ended)
    said: list[str] = []
    report(good, said.append)

    assert ended.outcome == outcome
    assert found["dify_smoke_result",] == 0
    assert found["dify_smoke_runs_total", outcome] == 1
    assert found["dify_smoke_last_run_timestamp_seconds",] == 200
    assert found["dify_smoke_last_success_timestamp_seconds",] == 100
    assert ended.summary
    assert said == ["1970-01-01 00:01:40 UTC, 0.0 s: passed"]
