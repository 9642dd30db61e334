"""Each smoke test through a browser notices what it is for, as tests/unit/test_smoke_defects.py has it for the rest."""

from collections.abc import Mapping

import pytest

from tests.unit.smoke_runs import Outcome, outcomes
from tests.unit.smoke_upstream import KEY

pytestmark = pytest.mark.browser

RUNS_SECONDS = 200
# Right in all but this: it refuses every fifth request, and says that it may be sent again at once.
RIGHT = "limits-now-and-then"

# Defects -> the tests that have to fail, all of them and no other. A run costs a browser, so defects that
# different tests notice share one.
DEFECTS: Mapping[str, tuple[str, ...]] = {
    "reflects+hides-headers+buffers+stream-breaks-off": (
        "test_a_stranger_reads_no_answer",
        "test_a_strangers_preflight_is_refused",
        "test_a_stranger_cannot_chat",
        "test_a_page_reads_a_401",
        "test_a_page_reads_a_stream",
        "test_a_page_listens_to_an_answer",
    ),
    "few-headers+credentials": (
        "test_a_page_reads_a_401_after_a_preflight",
        "test_a_page_gets_an_answer",
        "test_a_page_reads_a_stream",
        "test_a_page_listens_to_an_answer",
        "test_a_page_cannot_send_cookies_along",
    ),
    "not-on-errors+preflight-by-dify": (
        "test_a_page_reads_a_401*",
        "test_a_page_cannot_send_cookies_along",
        "test_a_page_gets_an_answer",
        "test_a_page_listens_to_an_answer",
        "test_a_strangers_preflight_is_refused",
        "test_a_stranger_cannot_chat",
    ),
    "doubled": ("test_a_page_*",),
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
    # A page reads status and Retry-After of a 429, else it could not have waited.
    assert outcome.refused > 1


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_noticed_by_its_tests(runs: Mapping[str, Outcome], defect: str) -> None:
    outcome, patterns = runs[defect], DEFECTS[defect]

    assert outcome.code == 1, outcome.output[-4000:]
    assert outcome.differences(patterns) == {"missed": [], "unexpected": []}, outcome.output[-4000:]
    assert outcome.left == 0, "conversations left behind"
    assert KEY not in outcome.output
