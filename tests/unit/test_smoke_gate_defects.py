"""Each smoke test of the gate notices what it is for; the others know that the console is behind one."""

from collections.abc import Mapping

import pytest

from tests.unit.smoke_gate_upstream import PREFIX, RIGHT
from tests.unit.smoke_runs import Outcome, outcomes

RUNS_SECONDS = 120
PAGES, CALLS = "test_pages_lead_to_the_sign_in", "test_calls_hear_401"
CLAIM, SIGN_IN = "test_nobody_passes_by_a_claim", "test_the_sign_in_leads_to_the_provider"

# Defect -> the tests that have to fail, all of them and no other.
DEFECTS: Mapping[str, tuple[str, ...]] = {
    "api-open": (CALLS, f"{CLAIM}*"),
    "pages-open": (PAGES,),
    "no-redirect": (PAGES,),
    "forgets-the-page": (PAGES,),
    "leads-calls": (CALLS, f"{CLAIM}*", "test_the_console_api_is_closed_to_strangers*"),
    "html-401": (CALLS, f"{CLAIM}*"),
    "any-cookie": (f"{CLAIM}[[]cookie]",),
    "believes-headers": (f"{CLAIM}[[]identity]",),
    "short-state": (SIGN_IN,),
    "no-pkce": (SIGN_IN,),
    "callback-elsewhere": (SIGN_IN,),
    "provider-away": (SIGN_IN,),
    "script-reads-cookie": (SIGN_IN,),
    "any-state": ("test_an_answer_that_nobody_asked_for_opens_nothing",),
    "files-inside": ("test_what_is_outside_stays_open[[]/files/smoke-test]",),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Outcome]:
    """The runs of all defects."""
    every = [RIGHT, *(f"{PREFIX}{defect}" for defect in DEFECTS)]
    return outcomes(tmp_path_factory.mktemp("runs"), every, seconds=RUNS_SECONDS)


def test_a_right_environment_passes(runs: Mapping[str, Outcome]) -> None:
    outcome = runs[RIGHT]

    assert outcome.code == 0, outcome.output[-4000:]
    assert "test_the_environment_answers" in outcome.results
    assert "they ask the console, which is behind the gate here" in outcome.output


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_noticed_by_its_tests(runs: Mapping[str, Outcome], defect: str) -> None:
    outcome = runs[f"{PREFIX}{defect}"]

    assert outcome.code == 1, outcome.output[-4000:]
    assert outcome.differences(DEFECTS[defect]) == {"missed": [], "unexpected": []}, outcome.output[-4000:]
