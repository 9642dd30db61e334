"""Each smoke test of the LLM proxy notices what it is for, and nothing is asked of a model without an option."""

from collections.abc import Mapping

import pytest

from tests.unit.smoke_llm_upstream import (
    CALLER_KEY,
    MODELS,
    PREFIX,
    RIGHT,
    TOKEN_PREFIX,
    TOKEN_RIGHT,
    UPSTREAM_KEY,
)
from tests.unit.smoke_runs import Outcome, outcomes

RUNS_SECONDS = 120
CHATS = ("test_a_model_answers", "test_a_model_answers_as_a_stream")
CLOSED = ("test_nobody_gets_in_without_a_key", "test_a_junk_key_opens_nothing")
NOT_SERVED = "test_a_model_that_is_not_served_is_refused"
TOKENS = "test_a_token_opens_the_proxy_with_its_scope_only"
SEEN = "test_a_caller_sees_the_models_that_are_served"

# Defect -> the tests that have to fail, all of them and no other.
DEFECTS: Mapping[str, tuple[str, ...]] = {
    "open": CLOSED[:1],
    "open-short": CLOSED[:1],
    "any-key": CLOSED[1:],
    "dify-errors": (*CLOSED, NOT_SERVED, "test_a_chat_is_not_fetched"),
    "tells-strangers": ("test_answers_to_strangers_tell_no_key",),
    "reflects": ("test_pages_at_other_origins_may_not",),
    "few-headers": ("test_pages_at_allowed_origins_may_ask",),
    "more-models": (SEEN,),
    "any-model": (NOT_SERVED,),
    "any-method": ("test_a_chat_is_not_fetched",),
    "leaks": (SEEN, CHATS[0]),
    "repeats": (SEEN, CHATS[0]),
    "says-nothing": CHATS[:1],
    "cuts": CHATS[1:],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Outcome]:
    """The runs of all defects."""
    every = [RIGHT, *(f"{PREFIX}{defect}" for defect in DEFECTS)]
    return outcomes(tmp_path_factory.mktemp("runs"), every, "--llm-chat", MODELS[0], seconds=RUNS_SECONDS)


def test_a_right_environment_passes(runs: Mapping[str, Outcome]) -> None:
    outcome = runs[RIGHT]

    assert outcome.code == 0, outcome.output[-4000:]
    assert len(outcome.results) == 10


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_noticed_by_its_tests(runs: Mapping[str, Outcome], defect: str) -> None:
    outcome = runs[f"{PREFIX}{defect}"]

    assert outcome.code == 1, outcome.output[-4000:]
    assert outcome.differences(DEFECTS[defect]) == {"missed": [], "unexpected": []}, outcome.output[-4000:]
    assert CALLER_KEY not in outcome.output
    assert UPSTREAM_KEY not in outcome.output


def test_what_a_token_opens_is_noticed(tmp_path_factory: pytest.TempPathFactory) -> None:
    defects = [f"{TOKEN_PREFIX}{name}" for name in ("any-scope", "closed")]
    runs = outcomes(tmp_path_factory.mktemp("tokens"), [TOKEN_RIGHT, *defects], seconds=RUNS_SECONDS)

    assert runs[TOKEN_RIGHT].code == 0, runs[TOKEN_RIGHT].output[-4000:]
    assert runs[TOKEN_RIGHT].results[TOKENS] == ""
    for defect in defects:
        assert runs[defect].differences([TOKENS]) == {"missed": [], "unexpected": []}, defect


def test_no_model_is_asked_by_default(tmp_path_factory: pytest.TempPathFactory) -> None:
    outcome = outcomes(tmp_path_factory.mktemp("default"), [RIGHT], seconds=RUNS_SECONDS)[RIGHT]

    assert outcome.code == 0, outcome.output[-4000:]
    assert SEEN in outcome.results
    assert not set(CHATS) & set(outcome.results)
    assert "--llm-chat" in outcome.output
