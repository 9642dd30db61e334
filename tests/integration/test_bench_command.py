"""`dify-kit bench` against a deployed stack, as an operator runs it."""

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import httpx
import pytest

from dify_kit.benchmark.targets import USER
from support.stacks import Stack

REQUESTS = 12


def conversations(stack: Stack, key: str) -> set[str]:
    """Return the conversations that the command's user has."""
    answer = httpx.get(
        f"{stack.url}/v1/conversations",
        params={"user": USER, "limit": 100},
        headers={"Authorization": f"Bearer {key}"},
        timeout=20,
    )
    assert answer.status_code == 200, answer.text
    return {one["id"] for one in answer.json()["data"]}


def ordered(percentiles: dict[str, float]) -> bool:
    return 0 < percentiles["p50"] <= percentiles["p95"] <= percentiles["p99"]


@pytest.mark.parametrize("mode", ["streaming", "blocking"])
def test_canary_is_measured_by_its_key_and_left_as_it_was(stack: Stack, mode: str, tmp_path: Path) -> None:
    key = stack.outputs(secrets_too=True)["canaryKey"]
    made = httpx.post(
        f"{stack.url}/v1/chat-messages",
        headers={"Authorization": f"Bearer {key}"},
        json={"inputs": {}, "query": "stay", "user": USER, "response_mode": "blocking"},
        timeout=30,
    )
    before = conversations(stack, key)
    file, chart = tmp_path / "result.json", tmp_path / "chart.svg"
    options = ("--via", "api-key", "--mode", mode, "--requests", str(REQUESTS), "--concurrency", "3")

    done = stack.kit(
        "bench", "--stack", stack.name, *options, "--json", str(file), "--chart", str(chart), timeout=120
    )

    assert done.code == 0, done.output
    (result,) = json.loads(file.read_text())
    assert (result["target"], result["mode"], result["concurrency"]) == ("api-key", mode, 3)
    assert (result["requests"], result["ok"], result["errors"]) == (REQUESTS, REQUESTS, {})
    assert result["warmUp"] == {"requests": 3, "errors": {}, "reasons": {}}
    assert "could not be deleted" not in done.output
    assert ordered(result["latencyMs"])
    if mode == "streaming":
        assert ordered(result["firstTokenMs"])
        assert result["firstTokenMs"]["p50"] <= result["latencyMs"]["p50"]
    else:
        assert set(result["firstTokenMs"].values()) == {None}
    # What was there before is there still, and nothing else.
    assert made.json()["conversation_id"] in before
    assert conversations(stack, key) == before
    ET.parse(chart)  # noqa: S314  # our own file
    assert key not in done.output + file.read_text() + chart.read_text()
