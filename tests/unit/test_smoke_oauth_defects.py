"""Each smoke test of OAuth notices what it is for: a right environment passes, one with a defect fails by that test."""

from collections.abc import Mapping

import pytest

from tests.unit.smoke_oauth_upstream import PREFIX, RIGHT, SECRET
from tests.unit.smoke_runs import Outcome, outcomes

RUNS_SECONDS = 120

# Defect -> the tests that have to fail, all of them and no other.
DEFECTS: Mapping[str, tuple[str, ...]] = {
    "any-secret": ("test_a_wrong_secret_gets_no_token", "test_nobody_learns_which_clients_there_are"),
    "tells-clients": ("test_nobody_learns_which_clients_there_are",),
    "any-scope": ("test_an_unknown_scope_is_refused",),
    "no-scopes": (
        "test_a_route_outside_of_the_scope_stays_closed",
        "test_a_route_that_no_scope_lists_stays_closed",
    ),
    "any-token": (
        "test_a_token_of_somebody_else_is_refused",
        "test_a_changed_token_is_refused",
        "test_a_revoked_token_is_refused",
        "test_what_looks_like_a_token_and_is_none_is_refused",
        # Such an edge knows no scope but one.
        "test_a_token_opens_the_chat",
    ),
    "keeps-revoked": ("test_a_revoked_token_is_refused",),
    "no-challenge": (
        "test_a_token_of_somebody_else_is_refused",
        "test_a_changed_token_is_refused",
        "test_a_revoked_token_is_refused",
        "test_what_looks_like_a_token_and_is_none_is_refused",
    ),
    "cached": ("test_a_token_is_issued",),
    "open-verify": ("test_the_verdict_about_a_token_is_for_nginx_alone*",),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Outcome]:
    """The runs of all defects."""
    every = [RIGHT, *(f"{PREFIX}{defect}" for defect in DEFECTS)]
    return outcomes(tmp_path_factory.mktemp("runs"), every, seconds=RUNS_SECONDS)


def test_a_right_environment_passes(runs: Mapping[str, Outcome]) -> None:
    outcome = runs[RIGHT]

    assert outcome.code == 0, outcome.output[-4000:]
    assert len([name for name in outcome.results if "token" in name]) > 8
    assert outcome.left == 0, "conversations left behind"


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_noticed_by_its_tests(runs: Mapping[str, Outcome], defect: str) -> None:
    outcome = runs[f"{PREFIX}{defect}"]

    assert outcome.code == 1, outcome.output[-4000:]
    assert outcome.differences(DEFECTS[defect]) == {"missed": [], "unexpected": []}, outcome.output[-4000:]
    assert SECRET not in outcome.output
    assert "eyJ" not in outcome.output, "no token is shown"
