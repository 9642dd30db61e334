"""The reports of a run: a summary, groups, advice for each failure, and what was not tested and why."""

import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from smoke_tests.advice import Advice
from smoke_tests.masking import MASK, Redactor
from smoke_tests.reporting import as_page, write_reports
from smoke_tests.results import FAILED, GROUPS, NOT_TESTED, PASSED, Result, Results, by_reason
from smoke_tests.selection import ORDER
from tests.unit.smoke_runs import outcomes

ADVICE = Advice(wrong="it is open", cause="a proxy", fix="close it")
SECRET = "app-of-the-report&<>"


def result(name: str, outcome: Any = PASSED, **more: Any) -> Result:
    return Result(name=name, group="CORS", outcome=outcome, seconds=0.5, **more)


def run(*results: Result, left: bool = False) -> Results:
    found = Results(target="stack dev", browser="none")
    for one in results:
        found.add(one.name, one)
    if left:
        found.left_out = by_reason({"TLS is off <here>": [("TLS", "test_x"), ("TLS", "test_y")]})
    return found


def failure(name: str = "test_a[1]", message: str = "assert 1 == 2") -> Result:
    return result(name, FAILED, message=message, detail="the traceback", advice=ADVICE)


@pytest.mark.parametrize(
    ("results", "outcome", "summary"),
    [
        pytest.param(run(result("a")), PASSED, "Passed: all 1 test", id="passed"),
        pytest.param(
            run(result("a"), left=True), PASSED, "Passed: all 1 test, 2 tests not run", id="left-out"
        ),
        pytest.param(
            run(result("a"), failure(), left=True), FAILED, "Failed: 1 of 2 tests, 2 tests not run", id="bad"
        ),
        pytest.param(run(left=True), NOT_TESTED, "Nothing was tested, 2 tests not run", id="nothing"),
    ],
)
def test_the_summary_is_on_top(results: Results, outcome: str, summary: str) -> None:
    assert (results.outcome, results.summary) == (outcome, summary)
    assert re.search(rf"<h1>{re.escape(summary)}</h1>", as_page(results))
    assert results.as_json()["summary"] == summary


def test_a_cancelled_run_has_not_passed() -> None:
    results = run(result("a"))
    results.cancelled = "at its deadline"

    assert results.outcome == FAILED
    assert results.summary == "Cancelled: at its deadline; 0 failed and 1 passed before"


@pytest.mark.parametrize(
    ("phases", "outcome"),
    [
        ([PASSED, PASSED, PASSED], PASSED),
        ([PASSED, FAILED, PASSED], FAILED),
        ([PASSED, PASSED, FAILED], FAILED),
        ([PASSED, NOT_TESTED, PASSED], NOT_TESTED),
        ([FAILED, NOT_TESTED], FAILED),
    ],
)
def test_the_worst_phase_counts_and_times_add_up(phases: list[Any], outcome: str) -> None:
    results = Results()
    for phase in phases:
        results.add("test_a", result("test_a", phase))

    assert results.results["test_a"].outcome == outcome
    assert results.results["test_a"].seconds == 0.5 * len(phases)


def test_every_topic_has_its_group() -> None:
    assert GROUPS.keys() == set(ORDER)
    required = {"Authentication", "Rate limits", "CORS", "Exposure", "TLS", "OAuth", "LLM"}
    assert required <= {group.name for group in Results().groups}


def test_cases_with_the_same_advice_are_one_finding() -> None:
    results = run(failure("test_a[1]"), failure("test_a[2]"), failure("test_b"))

    assert [[one.name for one in cases] for cases in results.findings] == [
        ["test_a[1]", "test_a[2]"],
        ["test_b"],
    ]


class Reader(HTMLParser):
    """Reads tags, addresses and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href", "srcset", "data"}]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_has_groups_advice_and_reasons() -> None:
    page = Reader(as_page(run(result("test_ok"), failure(message="<b>no</b>"), left=True)))

    for text in (*GROUPS.values(), "it is open", "a proxy", "close it", "<b>no</b>", "the traceback"):
        assert text in page.text
    assert "2 tests: TLS is off <here>" in page.text
    assert "test_x" in page.text
    assert "b" not in page.tags, "messages are text, not markup"


def test_the_page_needs_nothing_else_and_has_one_unit_of_time() -> None:
    text = as_page(run(result("test_ok"), failure(), left=True))
    page = Reader(text)

    assert {"script", "img", "link", "iframe"}.isdisjoint(page.tags)
    assert page.addresses
    assert all(address.startswith("#") for address in page.addresses)
    assert "url(" not in text
    assert "@import" not in text
    assert re.findall(r"\d+\.\d\d\xa0s\b", page.text)
    assert not re.findall(r"\d (?:ms|min|h)\b|\d+:\d\d:\d\d(?! UTC)", page.text)


def test_secrets_that_are_learned_late_are_masked_everywhere(tmp_path: Path) -> None:
    results, redact = run(failure(message=f"sent {SECRET}")), Redactor()
    redact.learn([SECRET])
    page, data = tmp_path / "new" / "page.html", tmp_path / "new" / "data.json"

    write_reports(results, page, [data], redact)

    assert json.loads(data.read_text(encoding="utf-8"))["groups"][4]["tests"][0]["message"] == f"sent {MASK}"
    assert "app-of-the-report" not in data.read_text(encoding="utf-8") + page.read_text(encoding="utf-8")


def test_a_run_writes_all_three_with_the_same_failures(tmp_path: Path) -> None:
    outcome = outcomes(tmp_path, "dify", ["unclaimed"], "-k", "test_console or test_tls", seconds=120)[
        "unclaimed"
    ]
    folder = tmp_path / "unclaimed" / "0"
    (data,), (page,), (junit,) = (list(folder.glob(f"smoke-*.{kind}")) for kind in ("json", "html", "xml"))
    found = json.loads(data.read_text(encoding="utf-8"))
    console = next(group for group in found["groups"] if group["name"] == "Console and gate")
    (bad,) = (test for test in console["tests"] if test["outcome"] == "failed")
    sentence = (
        "The first visitor may become the administrator; likely cause: the deployment did not finish its "
        "set-up; fix: run `make up` now, or complete /install."
    )

    assert outcome.code == 1
    assert (bad["name"], bad["fix"]) == (
        "test_the_instance_is_claimed",
        "run `make up` now, or complete /install",
    )
    left = sum(len(one["tests"]) for one in found["notTested"])
    assert found["counts"] == {"passed": 3, "failed": 1, "notTested": left}
    assert any("they test TLS" in one["reason"] for one in found["notTested"])
    assert f"Console and gate: test_the_instance_is_claimed: {sentence}" in outcome.output
    assert found["summary"] in outcome.output
    assert found["summary"] in page.read_text(encoding="utf-8")
    properties = ET.parse(junit).iter("property")  # noqa: S314  # written by the run above
    assert sentence in {one.get("value") for one in properties}
