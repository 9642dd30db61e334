"""The load against a server in this process: counts, limits, errors by kind, cleaning up, no key in sight."""

import errno
import json
import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

import dify_kit.commands.bench  # noqa: F401  # registers the command
from dify_kit.app import app
from dify_kit.benchmark import load
from dify_kit.benchmark.reasons import reason
from dify_kit.benchmark.statistics import percentile
from support.certificates import issue
from support.ports import free_port
from tests.unit.benchmark.server import KEY, Server

NOTHING = {"p50": None, "p95": None, "p99": None}


class Bench:
    """The command, and what it wrote."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "result.json"

    def __call__(self, url: str, *options: str) -> tuple[Result, dict[str, Any]]:
        """Run it; return what it said and its only result."""
        told = CliRunner().invoke(app, ["bench", "--url", url, "--json", str(self.file), *options])
        assert self.file.exists(), told.output
        assert KEY not in told.output + self.file.read_text()
        (result,) = json.loads(self.file.read_text())
        return told, result


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.mark.parametrize(("status", "kind"), [(200, ""), (429, "rate_limited"), (503, "http_503")])
def test_counts_limits_and_cleaning(server: Server, bench: Bench, status: int, kind: str) -> None:
    server.status = status

    told, result = bench(server.url, "--requests", "13", "--concurrency", "3")

    assert told.exit_code == (1 if kind else 0), told.output
    assert result["requests"] == 13
    assert result["warmUp"] == {"requests": 3, "errors": {kind: 3} if kind else {}, "reasons": {}}
    assert len(server.asked) == 16
    assert 1 <= server.most <= 3
    assert result["errors"] == ({kind: 13} if kind else {})
    assert (result["firstTokenMs"] == NOTHING) == bool(kind)
    assert not server.open


@pytest.mark.parametrize("kind", ["dify", "openai"])
@pytest.mark.parametrize("mode", ["streaming", "blocking"])
def test_both_apis_in_both_modes(server: Server, bench: Bench, kind: str, mode: str) -> None:
    options = ("--kind", kind, "--mode", mode, "--model", "m-1", "--requests", "4", "--concurrency", "2")

    told, result = bench(server.url, *options)

    assert told.exit_code == 0, told.output
    assert (result["ok"], result["mode"], result["errors"]) == (4, mode, {})
    assert (result["firstTokenMs"] == NOTHING) == (mode == "blocking")
    for body in server.asked:
        if kind == "dify":
            assert body["response_mode"] == mode
        else:
            assert (body["model"], body["stream"]) == ("m-1", mode == "streaming")


@pytest.mark.parametrize("kind", ["dify", "openai"])
@pytest.mark.parametrize(
    ("fault", "error"), [("cut", "cut"), ("malformed", "malformed"), ("error", "answer_error")]
)
def test_streams_that_end_badly(server: Server, bench: Bench, kind: str, fault: str, error: str) -> None:
    server.fault = fault

    told, result = bench(server.url, "--kind", kind, "--requests", "2", "--concurrency", "1")

    assert told.exit_code == 1
    assert "no request succeeded" in told.output
    assert (result["ok"], result["errors"]) == (0, {error: 2})
    assert result["latencyMs"] == result["firstTokenMs"] == NOTHING
    assert not server.open, "a conversation that began is deleted too"


@pytest.mark.parametrize(("fault", "error"), [("malformed", "malformed"), ("error", "answer_error")])
def test_blocking_answers_that_are_none(server: Server, bench: Bench, fault: str, error: str) -> None:
    server.fault = fault

    _, result = bench(server.url, "--mode", "blocking", "--requests", "1")

    assert result["errors"] == {error: 1}


def test_open_requests_are_cut_when_the_time_is_up(server: Server, bench: Bench) -> None:
    server.fault = "hang"

    told, result = bench(server.url, "--seconds", "1", "--concurrency", "2")

    assert told.exit_code == 1
    assert (result["requests"], result["seconds"]) == (0, 0)
    assert result["warmUp"] == {"requests": 2, "errors": {"time_is_up": 2}, "reasons": {}}
    assert "warm-up error time_is_up" in told.output
    assert not server.open


def test_time_is_up_is_counted_after_the_warm_up(server: Server, bench: Bench) -> None:
    # A machine that stalls for the whole time completes nothing in it.
    for seconds in (2, 8, 32):
        told, result = bench(
            server.url, "--seconds", str(seconds), "--requests", "100000", "--concurrency", "2"
        )
        if result["ok"]:
            break

    assert told.exit_code == 0, told.output
    assert result["ok"] > 0
    assert result["errors"] in ({"time_is_up": 1}, {"time_is_up": 2})
    assert result["requests"] == result["ok"] + sum(result["errors"].values())
    assert result["requests"] < 100000


@pytest.mark.usefixtures("server")
def test_nobody_listens(bench: Bench) -> None:
    told, result = bench(f"http://127.0.0.1:{free_port()}/v1", "--requests", "2")

    assert result["errors"] == {"connect": 2}
    assert result["reasons"] == result["warmUp"]["reasons"] == {"connect": {"connection refused": 2}}
    assert told.output.count("connection refused") == 2


@pytest.mark.usefixtures("server")
def test_name_without_an_address(bench: Bench) -> None:
    _, result = bench("http://nowhere.invalid/v1", "--requests", "1")

    ((reason, count),) = result["reasons"]["connect"].items()
    assert reason.startswith("the name has no address: ")
    assert count == 1


def test_certificate_is_trusted_by_its_ca_alone(server: Server, bench: Bench, tmp_path: Path) -> None:
    authority, other = issue(ca=True, name="ca"), issue(ca=True, name="other")
    server.speak_tls(issue(["localhost"], issuer=authority), tmp_path)
    for name, pair in (("ca", authority), ("other", other)):
        (tmp_path / f"{name}.pem").write_text(pair.pem)

    for options in ((), ("--ca", str(tmp_path / "other.pem"))):
        told, result = bench(server.url, "--requests", "1", *options)
        ((reason, _),) = result["reasons"]["connect"].items()
        assert reason.startswith("the certificate is not trusted: ")
        assert told.exit_code == 1
    told, result = bench(server.url, "--requests", "1", "--ca", str(tmp_path / "ca.pem"))

    assert told.exit_code == 0, told.output
    assert (result["ok"], result["reasons"]) == (1, {})


def test_port_without_tls(server: Server, bench: Bench) -> None:
    _, result = bench(server.url.replace("http:", "https:"), "--requests", "1")

    assert result["reasons"] == {"connect": {"the port has no TLS": 1}}


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (httpx.ConnectTimeout(""), "no answer in time"),
        (httpx.RemoteProtocolError("Server disconnected"), "Server disconnected"),
        (httpx.ReadError(""), "ReadError"),
        (ssl.SSLError(1, "[SSL: TLSV1_ALERT_PROTOCOL_VERSION] alert"), "TLS failed: "),
    ],
)
def test_reasons_of_other_errors(error: Exception, words: str) -> None:
    assert reason(error).startswith(words)


def test_reason_is_that_of_the_deepest_error() -> None:
    refused = ConnectionRefusedError(errno.ECONNREFUSED, "secret-address")
    error = httpx.ConnectError("All connection attempts failed")
    error.__cause__ = ExceptionGroup("several addresses", [refused, OSError(errno.ENETUNREACH, "no route")])

    assert reason(error) == "connection refused"


def test_first_slow_answers_do_not_count(server: Server, bench: Bench) -> None:
    server.slow, server.slow_seconds = 3, 0.8

    _, result = bench(server.url, "--requests", "6", "--concurrency", "3")

    assert result["latencyMs"]["p99"] < 800
    assert result["seconds"] < 0.8


def test_deletion_that_a_limit_refuses_is_tried_again(
    server: Server, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "PAUSE_SECONDS", 0.01)
    server.refused = 5

    told, _ = bench(server.url, "--requests", "4", "--concurrency", "2")

    assert not server.open
    assert server.refused < 0
    assert "could not be deleted" not in told.output


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--chart", "chart.png"), "not an .svg file"),
        (("--chart", "nowhere/chart.svg"), "cannot be written"),
        (("--json", "nowhere/result.json"), "cannot be written"),
        (("--kind", "soap"), "dify or openai"),
        (("--ca", "nowhere.pem"), "No such file"),
        (("--ca", __file__), "no certificate in PEM form"),
    ],
)
def test_refusals_ask_nothing(server: Server, options: tuple[str, str], says: str) -> None:
    told = CliRunner().invoke(app, ["bench", "--url", server.url, *options])

    assert told.exit_code == 2
    assert says in told.output
    assert not server.asked


@given(st.lists(st.floats(0, 1e6), min_size=1), st.integers(1, 100))
def test_a_percentile_is_the_smallest_value_that_enough_do_not_exceed(
    values: list[float], percent: int
) -> None:
    found = percentile(values, percent)
    assert found in values
    assert sum(one <= found for one in values) * 100 >= percent * len(values)
    assert sum(one < found for one in values) * 100 < percent * len(values)
