"""Each smoke test through a browser notices what it is for, as tests/unit/test_smoke_defects.py has it for the rest."""

from collections.abc import Mapping

import pytest

from tests.unit.smoke_runs import RIGHT, Outcome, outcomes
from tests.unit.smoke_upstream import KEY

RUNS_SECONDS = 300
ALLOWED_PAGES = "test_a_page_*"

# Defect -> the tests that have to fail, all of them and no other.
DEFECTS: Mapping[str, tuple[str, ...]] = {
    "reflects": (
        "test_a_stranger_reads_no_answer",
        "test_a_strangers_preflight_is_refused",
        "test_a_stranger_cannot_chat",
    ),
    "not-on-errors": ("test_a_page_reads_a_401*", "test_a_page_cannot_send_cookies_along"),
    "hides-headers": ("test_a_page_reads_a_401",),
    "few-headers": (
        "test_a_page_reads_a_401_after_a_preflight",
        "test_a_page_gets_an_answer",
        "test_a_page_reads_a_stream",
        "test_a_page_listens_to_an_answer",
    ),
    "doubled": (ALLOWED_PAGES,),
    "credentials": ("test_a_page_cannot_send_cookies_along",),
    "preflight-by-dify": (
        "test_a_page_reads_a_401_after_a_preflight",
        "test_a_page_gets_an_answer",
        "test_a_page_listens_to_an_answer",
        "test_a_strangers_preflight_is_refused",
        "test_a_stranger_cannot_chat",
    ),
    "buffers": ("test_a_page_reads_a_stream",),
    "stream-breaks-off": ("test_a_page_listens_to_an_answer",),
    "limits-now-and-then": (),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Outcome]:
    """The runs of all defects, about two seconds each."""
    options = ("-k", "test_browser", "--browser", "")
    return outcomes(tmp_path_factory.mktemp("runs"), [RIGHT, *DEFECTS], *options, seconds=RUNS_SECONDS)


def test_a_right_environment_passes(runs: Mapping[str, Outcome]) -> None:
    outcome = runs[RIGHT]

    assert outcome.code == 0, outcome.output[-4000:]
    assert len(outcome.results) == 10
    assert outcome.failed == []
    assert outcome.left == 0, "conversations left behind"
    assert "browser: Chromium" in outcome.output


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_noticed_by_its_tests(runs: Mapping[str, Outcome], defect: str) -> None:
    outcome, patterns = runs[defect], DEFECTS[defect]

    assert outcome.code == (1 if patterns else 0), outcome.output[-4000:]
    assert outcome.differences(patterns) == {"missed": [], "unexpected": []}, outcome.output[-4000:]
    assert outcome.left == 0, "conversations left behind"
    assert KEY not in outcome.output


def test_limits_in_between_are_waited_for(runs: Mapping[str, Outcome]) -> None:
    assert runs["limits-now-and-then"].refused > 1
