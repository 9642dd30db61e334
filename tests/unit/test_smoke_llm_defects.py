"""Each smoke test of the LLM proxy detects its defects, and a model is prompted only with an option."""

from collections.abc import Mapping

import pytest

from tests.unit.smoke_defects import Failures, PlantedDefects, fails
from tests.unit.smoke_llm_upstream import CALLER_KEY, MODELS, UPSTREAM_KEY
from tests.unit.smoke_runs import NO_DEFECT, Outcome, outcomes

CHATS = ("test_a_model_answers", "test_a_model_answers_as_a_stream")
CLOSED = ("test_a_request_without_a_key_is_refused", "test_an_unknown_key_is_refused")
NOT_SERVED = "test_a_model_that_is_not_served_is_refused"
TOKENS = "test_a_token_needs_the_llm_scope"
SEEN = "test_a_caller_lists_the_served_models"

DEFECTS: Mapping[str, Failures] = {
    "open": fails(*CLOSED[:1]),
    "open-short": fails(*CLOSED[:1]),
    "any-caller-key": fails(*CLOSED[1:]),
    "dify-errors": fails(*CLOSED, NOT_SERVED, "test_chat_completions_refuse_get"),
    "key-in-refusals": fails("test_refusals_contain_no_key"),
    "any-origin": fails("test_other_origins_fail_the_preflight"),
    "no-sdk-headers": fails("test_allowed_origins_pass_the_preflight"),
    "more-models": fails(SEEN),
    "any-model": fails(NOT_SERVED),
    "any-method": fails("test_chat_completions_refuse_get"),
    "leaks": fails(SEEN, CHATS[0]),
    "repeats": fails(SEEN, CHATS[0]),
    "says-nothing": fails(*CHATS[:1]),
    "cuts": fails(*CHATS[1:]),
}
TOKEN_DEFECTS: Mapping[str, Failures] = {
    "llm-without-scope": fails(TOKENS),
    "closed-to-tokens": fails(TOKENS),
}


class TestLlm(PlantedDefects):
    """Dify with an LLM proxy beside it."""

    environment, defects, tests = "llm", DEFECTS, 10
    options = ("--llm-chat", MODELS[0])
    secrets = (CALLER_KEY, UPSTREAM_KEY)


class TestLlmTokens(PlantedDefects):
    """The same, and access tokens open it too."""

    environment, defects, tests = "llm-tokens", TOKEN_DEFECTS, 9
    secrets = (CALLER_KEY, UPSTREAM_KEY)

    def test_a_token_is_used(self, runs: Mapping[str, Outcome]) -> None:
        assert TOKENS in runs[self.right].results


def test_no_model_is_prompted_by_default(tmp_path_factory: pytest.TempPathFactory) -> None:
    outcome = outcomes(tmp_path_factory.mktemp("default"), "llm", [NO_DEFECT], seconds=120)[NO_DEFECT]

    assert outcome.code == 0, outcome.output[-4000:]
    assert SEEN in outcome.results
    assert not set(CHATS) & set(outcome.results)
    assert "--llm-chat" in outcome.output
