"""The chart as a reader of SVG sees it: panels with round ticks, bars in proportion, a caption."""

import datetime as dt
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import dify_kit.commands.bench  # noqa: F401  # registers the command
from dify_kit.app import app
from dify_kit.benchmark.chart import MOST_STEPS, chart, plain, ticks
from dify_kit.benchmark.load import Run
from dify_kit.benchmark.report import result_of
from dify_kit.benchmark.statistics import Sample
from dify_kit.benchmark.targets import Target
from tests.unit.benchmark.server import KEY, Server

SVG = "{http://www.w3.org/2000/svg}"
WHEN = dt.datetime(2026, 11, 29, 12, 5, tzinfo=dt.UTC)


def result(name: str, *samples: Sample) -> dict[str, Any]:
    target = Target(name=name, url="http://x/v1", kind="dify", key="k")
    return result_of(target, Run(samples=list(samples), seconds=2.0), 1)


def drawn(*results: dict[str, Any]) -> str:
    return chart(results, "stack dev", WHEN)


def panels(text: str) -> dict[str, ET.Element]:
    """Return the panels by their titles."""
    root = ET.fromstring(text)  # noqa: S314  # our own
    assert root.tag == f"{SVG}svg"
    return {str(one.findtext(f"{SVG}text")): one for one in root.findall(f".//{SVG}g[@class='panel']")}


def bars(panel: ET.Element) -> dict[str, float]:
    """Return the heights of the bars by their titles."""
    found = panel.findall(f".//{SVG}rect[@class='bar']")
    return {str(one.findtext(f"{SVG}title")): float(one.attrib["height"]) for one in found}


def texts(part: ET.Element, kind: str) -> list[str]:
    return [str(one.text) for one in part.findall(f".//{SVG}text[@class='{kind}']")]


def plot(panel: ET.Element) -> float:
    """Return the pixels between the first tick and the last."""
    heights = [float(line.attrib["y1"]) for line in panel.findall(f"{SVG}line")]
    return max(heights) - min(heights)


def test_each_percentile_and_throughput_have_a_panel_of_their_own() -> None:
    slow = result("<slow> & co", Sample(seconds=0.2, first_token=0.1), Sample(seconds=0.4, first_token=0.1))
    quick = result("quick", Sample(seconds=0.1))

    found = panels(drawn(slow, quick))

    assert list(found) == ["p50, ms", "p95, ms", "p99, ms", "Throughput, requests/s"]
    whole = plot(found["p50, ms"])
    assert texts(found["p50, ms"], "tick") == ["0", "50", "100", "150", "200"]
    assert bars(found["p50, ms"]) == {
        "<slow> & co, latency, p50: 200 ms": whole,
        "<slow> & co, first token, p50: 100 ms": whole / 2,
        "quick, latency, p50: 100 ms": whole / 2,
    }
    assert texts(found["p99, ms"], "tick") == ["0", "100", "200", "300", "400"]
    assert bars(found["p99, ms"])["<slow> & co, first token, p99: 100 ms"] == whole / 4
    assert texts(found["Throughput, requests/s"], "tick") == ["0", "0.2", "0.4", "0.6", "0.8", "1"]
    assert bars(found["Throughput, requests/s"]) == {
        "<slow> & co, throughput, Throughput: 1.0 requests/s": whole,
        "quick, throughput, Throughput: 0.5 requests/s": whole / 2,
    }
    assert texts(found["p50, ms"], "target") == ["<slow> & co", "quick"]
    assert texts(found["p50, ms"], "value") == ["200", "100", "100"]


def test_caption_has_stack_date_mode_concurrency_and_count() -> None:
    text = drawn(result("a", Sample(seconds=0.1)), result("b", Sample(seconds=0.1), Sample(seconds=0.1)))

    (caption,) = texts(ET.fromstring(text), "caption")  # noqa: S314  # our own
    assert caption == (
        "stack dev, 2026-11-29 12:05 UTC, streaming, concurrency 1, 1 to 2 requests for each way"
    )


def test_nothing_is_drawn_outside_of_the_picture() -> None:
    name = "a-host-with-a-long-name.example.com"
    text = drawn(*(result(f"{name}{n}", Sample(seconds=3.0, first_token=2.0)) for n in range(5)))
    root = ET.fromstring(text)  # noqa: S314  # our own
    width, height = float(root.attrib["width"]), float(root.attrib["height"])

    for panel in panels(text).values():
        at = panel.attrib["transform"].removeprefix("translate(").rstrip(")").split()
        left, top = float(at[0]), float(at[1])
        for bar in panel.findall(f".//{SVG}rect"):
            assert 0 <= left + float(bar.attrib["x"]) <= width - float(bar.attrib["width"])
        for word in panel.findall(f".//{SVG}text"):
            assert 0 <= top + float(word.attrib["y"]) <= height
        # Two names next to each other do not overlap.
        middles = [float(one.attrib["x"]) for one in panel.findall(f".//{SVG}text[@class='target']")]
        assert min(b - a for a, b in pairwise(middles)) >= 140
        assert texts(panel, "target") == ["a-host-with-a-long-…"] * 5


@pytest.mark.parametrize("samples", [(), (Sample(seconds=1, error="cut"),)])
def test_target_without_an_answer_has_no_bar(samples: tuple[Sample, ...]) -> None:
    for panel in panels(drawn(result("silent", *samples))).values():
        assert bars(panel) == {}
        assert texts(panel, "value") == ["none"]


@given(st.floats(1e-3, 1e7))
def test_ticks_are_round_few_and_reach_the_largest_value(most: float) -> None:
    found = ticks(most)

    assert found[0] == 0
    assert found[-1] >= most * (1 - 1e-6)
    assert 2 <= len(found) - 1 <= MOST_STEPS
    assert found[-2] < most
    # One digit, or 25: no more are read.
    digits = "".join(map(str, Decimal(plain(found[1]).replace(",", "")).normalize().as_tuple().digits))
    assert digits.rstrip("0") in {"1", "2", "25", "5"}


def test_command_draws(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "chart.svg"

    told = CliRunner().invoke(app, ["bench", "--url", server.url, "--requests", "2", "--chart", str(file)])

    assert told.exit_code == 0, told.output
    text = file.read_text()
    assert [len(bars(panel)) for panel in panels(text).values()] == [2, 2, 2, 1]
    (caption,) = texts(ET.fromstring(text), "caption")  # noqa: S314  # our own
    assert caption.startswith(f"localhost, {dt.datetime.now(dt.UTC).date()}")
    assert caption.endswith("streaming, concurrency 2, 2 requests")
    assert KEY not in text
