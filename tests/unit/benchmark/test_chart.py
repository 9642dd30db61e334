"""The chart as a reader of SVG sees it: bars in proportion, labels, units."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from typer.testing import CliRunner

import dify_kit.commands.bench  # noqa: F401  # registers the command
from dify_kit.app import app
from dify_kit.benchmark.load import Run
from dify_kit.benchmark.report import PLOT_HEIGHT, chart, result_of
from dify_kit.benchmark.statistics import Sample
from dify_kit.benchmark.targets import Target
from tests.unit.benchmark.server import KEY, Server

SVG = "{http://www.w3.org/2000/svg}"


def result(name: str, *samples: Sample) -> dict[str, Any]:
    target = Target(name=name, url="http://x/v1", kind="dify", key="k")
    return result_of(target, Run(samples=list(samples), seconds=1.0), 1)


def bars(text: str) -> dict[str, float]:
    """Return the heights of the bars by their titles."""
    root = ET.fromstring(text)  # noqa: S314  # our own
    assert root.tag == f"{SVG}svg"
    found = root.findall(f".//{SVG}rect[@class='bar']")
    return {str(one.findtext(f"{SVG}title")): float(one.attrib["height"]) for one in found}


def labels(text: str) -> list[str]:
    return [str(one.text) for one in ET.fromstring(text).iter(f"{SVG}text")]  # noqa: S314  # our own


def test_bars_of_each_target_are_in_proportion() -> None:
    slow = result("<slow> & co", Sample(seconds=0.2, first_token=0.1), Sample(seconds=0.4, first_token=0.1))
    quick = result("quick", Sample(seconds=0.1))

    text = chart([slow, quick])

    assert bars(text) == {
        "<slow> & co, latency, p50: 200.0 ms": PLOT_HEIGHT / 2,
        "<slow> & co, latency, p95: 400.0 ms": PLOT_HEIGHT,
        "<slow> & co, latency, p99: 400.0 ms": PLOT_HEIGHT,
        **{f"<slow> & co, first token, {one}: 100.0 ms": PLOT_HEIGHT / 4 for one in ("p50", "p95", "p99")},
        **{f"quick, latency, {one}: 100.0 ms": PLOT_HEIGHT / 4 for one in ("p50", "p95", "p99")},
    }
    told = labels(text)
    assert {"<slow> & co", "quick", "p50", "p95", "p99", "0.0 ms", "400.0 ms", "200.0", "100.0"} <= set(told)
    assert "Latency and time to first token, milliseconds" in told


def test_long_name_is_cut_under_the_bars_only() -> None:
    name = "a-host-with-a-long-name.example.com"

    text = chart([result(name, Sample(seconds=0.1))])

    assert "a-host-with-a-long-name…" in labels(text)
    assert f"{name}, latency, p50: 100.0 ms" in bars(text)


@pytest.mark.parametrize("samples", [(), (Sample(seconds=1, error="cut"),)])
def test_target_without_an_answer_has_no_bar(samples: tuple[Sample, ...]) -> None:
    text = chart([result("silent", *samples)])

    assert bars(text) == {}
    assert labels(text).count("none") == 3


def test_command_draws(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "chart.svg"

    told = CliRunner().invoke(app, ["bench", "--url", server.url, "--requests", "2", "--chart", str(file)])

    assert told.exit_code == 0, told.output
    assert len(bars(file.read_text())) == 6
    assert KEY not in file.read_text()
