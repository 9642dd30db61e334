"""Engine events in, readable lines and errors out. The event logs were recorded from Pulumi 3.259."""

import json
from pathlib import Path

import pytest

from dify_kit.engine.advice import explain
from dify_kit.engine.cli import error_text
from dify_kit.engine.progress import Progress, clean, describe, is_noise

RECORDED = Path(__file__).with_name("data")
TRACEBACK = "Traceback (most recent call last):\n"
CHAINED = "During handling of the above exception, another exception occurred:"
URN = "urn:pulumi:dev::dify::dify-kit:tiers:Services$docker:index/container:Container::api"


def follow(name: str, *, planning: bool = False) -> tuple[Progress, list[str]]:
    """Play a recorded event log; return the follower and the lines it showed."""
    lines: list[str] = []
    progress = Progress(show=lines.append, planning=planning, now=lambda: 0.0)
    progress.feed((RECORDED / f"{name}.jsonl").read_text(encoding="utf-8"))
    return progress, lines


def words(lines: list[str]) -> list[list[str]]:
    return [line.split() for line in lines]


def test_errors_of_the_provider_are_said_once_without_wrapping() -> None:
    progress, _ = follow("start-failed")

    assert dict(progress.errors) == {
        "container noimg": (
            "Unable to create container with image nosuch:1: unable to pull image nosuch:1: error pulling "
            'image nosuch:1: Error response from daemon: Get "https://registry.invalid/v2/": dial tcp: '
            "lookup registry.invalid on 192.0.2.53:53: no such host"
        ),
        "container bad": (
            "Unable to start container: Error response from daemon: failed to create shim task: OCI "
            'runtime create failed: runc create failed: unable to start container process: exec: "/no/such": '
            "stat /no/such: no such file or directory: unknown"
        ),
    }
    assert len(progress.errors) == 2


def test_failing_readiness_keeps_its_log_lines_and_loses_our_traceback() -> None:
    progress, lines = follow("not-ready")

    assert progress.errors == [
        (
            "api-ready",
            (
                "api: exited with code 7; last log lines:\n"
                "Traceback (most recent call last):\n"
                '  File "x.py", line 3, in <module>\n'
                "    main()\n"
                "ValueError: bad db url"
            ),
        )
    ]
    assert "    api: not ready after 10 s; connection refused" in lines
    assert progress.warnings == []


def test_drift_is_no_news_while_everything_is_removed() -> None:
    lines: list[str] = []
    progress = Progress(show=lines.append, removing=True, now=lambda: 0.0)

    progress.feed((RECORDED / "drift.jsonl").read_text(encoding="utf-8"))

    assert progress.drifted == ["container good"]
    assert not any("drift" in line for line in lines)


def test_drift_is_told_and_counts_are_of_real_resources() -> None:
    progress, lines = follow("drift")

    assert progress.drifted == ["container good"]
    assert progress.changed == [("create", "container good"), ("delete", "container bad")]
    assert words(lines) == [
        ["drift:", "container", "good", "is", "gone"],
        ["+", "container", "good", "created", "0.0", "s"],
        ["-", "container", "bad", "removed", "0.0", "s"],
    ]


def test_preview_tells_each_change_once_with_its_reasons() -> None:
    progress, lines = follow("preview", planning=True)

    assert words(lines) == [
        ["±", "container", "good", "replace", "[command]"],
        ["-", "network", "net", "remove"],
    ]
    assert len(progress.changed) == 2


def test_log_cut_in_the_middle_of_a_line_is_followed() -> None:
    text = (RECORDED / "drift.jsonl").read_text(encoding="utf-8")
    progress = Progress(show=lambda _line: None)

    for start in range(0, len(text), 777):
        progress.feed(text[start : start + 777])
    progress.feed('{"resourcePreEv')

    assert len(progress.changed) == 2


def test_heartbeat_names_what_is_in_flight_and_its_note() -> None:
    clock = [0.0]
    lines: list[str] = []
    progress = Progress(show=lines.append, now=lambda: clock[0])
    state = {"custom": True, "id": ""}
    progress.tick()
    progress.take({"resourcePreEvent": {"metadata": {"op": "create", "urn": URN, "type": "", "new": state}}})
    progress.take(
        {
            "diagnosticEvent": {
                "urn": URN,
                "message": "info: database is starting\n",
                "severity": "info",
                "ephemeral": True,
            }
        }
    )
    for second in range(1, 21):
        clock[0] = float(second)
        progress.tick()

    assert lines == [
        "    still working: container api (8 s, info: database is starting)",
        "    still working: container api (16 s, info: database is starting)",
    ]


@pytest.mark.parametrize(
    ("told", "meant"),
    [
        ("<{%reset%}>\x1b[31mplain\x1b[0m<{%reset%}>", "plain"),
        (
            f'{TRACEBACK}  File "a.py", line 1\n    x\n    ^\ninfra.resources.ready.NotReadyError: api: gone',
            "api: gone",
        ),
        (
            f"{TRACEBACK}  File a.py\nKeyError: 1\n\n{CHAINED}\n\n{TRACEBACK}  File b.py\nException: claimed",
            "claimed",
        ),
        ("1 error occurred:\n\t* first thing\n\t* second thing\n\n", "first thing\nsecond thing"),
        (
            "2 errors occurred:\n\t* creating urn:pulumi:d::d::t::n: 1 error occurred:\n\t* port taken\n",
            "port taken",
        ),
    ],
)
def test_clean(told: str, meant: str) -> None:
    assert clean(told) == meant


@pytest.mark.parametrize(
    "line",
    [
        "update failed",
        "using pulumi-resource-docker from $PATH at /cache/bin/pulumi-resource-docker",
        "an unhandled error occurred: program exited with non-zero exit code: 1",
        "",
    ],
)
def test_noise_is_dropped(line: str) -> None:
    assert is_noise(line)


def test_description_of_a_resource() -> None:
    assert describe(URN) == "container api"
    assert describe("urn:pulumi:dev::dify::pulumi-python:dynamic:Resource::api-ready") == "api-ready"
    assert describe("x", "docker:index/remoteImage:RemoteImage") == "remote image x"


def test_error_text_joins_the_lines_of_each_error_and_drops_repetitions() -> None:
    error = "error: configuration:\n  - a\n  - b\n"
    text = f"warning: old\n{error}error: update failed\n{error}"

    assert error_text(text) == "configuration:\n  - a\n  - b"


def test_error_text_falls_back_to_the_last_lines() -> None:
    assert error_text("one\ntwo\n") == "one\ntwo"
    assert error_text("") == "it said nothing"


def test_known_failures_are_explained_for_the_stack() -> None:
    hint = explain("error: Bind for 127.0.0.1:1 failed: port is already allocated", "staging")

    assert "httpPort" in hint
    assert "--stack staging" in hint
    taken = "spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated"
    assert "set kubernetes.nodePort 0 --stack staging" in explain(taken, "staging")
    assert explain("something new", "dev") == ""


def test_recorded_logs_hold_no_address_of_a_registry() -> None:
    hosts = {
        json.loads(line).get("diagnosticEvent", {}).get("message", "")
        for path in RECORDED.glob("*.jsonl")
        for line in path.read_text(encoding="utf-8").splitlines()
    }

    assert not [text for text in hosts if ".io/" in text]
