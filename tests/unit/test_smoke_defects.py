"""Each smoke test notices what it is for: a right environment passes, one with a defect fails by that test."""

from collections.abc import Mapping

import pytest

from tests.unit.smoke_runs import RIGHT, Outcome, outcomes
from tests.unit.smoke_upstream import KEY

RUNS_SECONDS = 300

# Defect -> the tests that have to fail, all of them and no other. [ is escaped as [[] in patterns.
DEFECTS: Mapping[str, tuple[str, ...]] = {
    "any-host": ("test_an_unknown_host_gets_no_answer",),
    "unclaimed": ("test_the_instance_is_claimed",),
    "open-console": ("test_the_console_api_is_closed_to_strangers*",),
    "no-request-id": (
        "test_every_answer_has_a_request_id*",
        "test_a_body_over_the_limit_is_refused_in_json",
    ),
    "one-id": ("test_every_answer_has_a_request_id*",),
    "own-404": ("test_an_unknown_route_gets_difys_own_404",),
    "open-schema": ("test_no_schema_of_the_api_is_served",),
    "schema-spelled": ("test_no_schema_of_the_api_is_served",),
    "any-page-joins": ("test_pages_of_others_do_not_join_the_consoles_rooms*",),
    "console-shut-out": ("test_the_console_may_join_its_rooms",),
    "html-413": ("test_a_body_over_the_limit_is_refused_in_json",),
    "own-401": (
        "test_other_credentials_get_difys_own_401*",
        "test_an_apps_key_does_not_open_the_knowledge_api",
    ),
    "no-challenge": ("test_other_credentials_get_difys_own_401*",),
    "any-key": (
        "test_other_credentials_get_difys_own_401[[]wrong-key]",
        "test_other_credentials_get_difys_own_401[[]wrong-key-lower-case-scheme]",
        "test_what_looks_like_a_token_and_is_none_is_refused",
        "test_a_refused_key_carries_the_headers",
    ),
    "repeats-key": ("test_no_answer_repeats_the_key",),
    "says-something-else": ("test_blocking", "test_streaming", "test_follow_up_in_the_same_conversation"),
    "forgets": ("test_follow_up_in_the_same_conversation",),
    "keeps-conversations": ("test_a_deleted_conversation_is_gone",),
    "buffers": ("test_a_stream_arrives_while_it_is_made",),
    "stream-breaks-off": ("test_streaming",),
    "stream-fails": ("test_streaming",),
    "stream-loses-text": ("test_streaming",),
    "stream-changes-ids": ("test_streaming",),
    "stream-without-workflow-end": ("test_streaming",),
    # No defect: Dify 1.14 and later send this, a ping may come anywhere.
    "order-of-newer-releases": (),
    "preflight-by-dify": ("test_preflight*",),
    "few-headers": ("test_preflight[[]v1-allowed-1]",),
    "reflects": (
        *(
            f"test_{kind}[[]{group}-{who}]"
            for kind in ("preflight", "request")
            for group in ("v1", "console", "api")
            for who in ("null", "stranger")
        ),
        *(
            f"test_preflight[[]*-{who}]"
            for who in ("suffix", "prefix", "subdomain", "other-port", "other-scheme")
        ),
        *(
            f"test_preflight[[]*-{who}]"
            for who in ("upper-case", "trailing-dot", "trailing-slash", "user-name")
        ),
        "test_*[[]v1-*]",
        "test_preflight[[]*-dot-as-any]",
    ),
    "prefix-match": tuple(
        f"test_{kind}[[]v1-{who}]"
        for kind in ("preflight", "request")
        for who in ("suffix", "other-port", "trailing-dot", "trailing-slash", "user-name")
    ),
    "suffix-match": tuple(
        f"test_{kind}[[]v1-{who}]"
        for kind in ("preflight", "request")
        for who in ("prefix", "subdomain", "other-scheme")
    ),
    "ignores-case": ("test_preflight[[]v1-upper-case]", "test_request[[]v1-upper-case]"),
    "unescaped-dot": ("test_preflight[[]v1-dot-as-any]", "test_request[[]v1-dot-as-any]"),
    "allows-null": ("test_preflight[[]v1-null]", "test_request[[]v1-null]"),
    "doubled": (
        "test_preflight[[]v1-allowed-1]",
        "test_request[[]v1-allowed-1]",
        "test_a*_carries_the_headers",
    ),
    "credentials": (
        "test_preflight[[]v1-allowed-1]",
        "test_request[[]v1-allowed-1]",
        "test_a*_carries_the_headers",
    ),
    "not-on-errors": (
        "test_request[[]v1-allowed-1]",
        "test_a_refused_key_carries_the_headers",
        "test_an_unknown_route_carries_the_headers",
        "test_a_body_over_the_limit_carries_the_headers",
    ),
    "no-vary": (
        "test_preflight*",
        "test_request*",
        "test_a*_carries_the_headers",
        "test_a_request_without_origin_is_told_nothing",
    ),
    "limits-now-and-then": (),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Outcome]:
    """The runs of all defects, about half a second each."""
    every = [RIGHT, "limits-for-ever", *DEFECTS]
    return outcomes(tmp_path_factory.mktemp("runs"), every, seconds=RUNS_SECONDS)


def test_a_right_environment_passes(runs: Mapping[str, Outcome]) -> None:
    outcome = runs[RIGHT]

    assert outcome.code == 0, outcome.output[-4000:]
    assert len(outcome.results) > 80
    assert outcome.failed == []
    assert outcome.left == 0, "conversations left behind"


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_noticed_by_its_tests(runs: Mapping[str, Outcome], defect: str) -> None:
    outcome, patterns = runs[defect], DEFECTS[defect]

    assert outcome.code == (1 if patterns else 0), outcome.output[-4000:]
    assert outcome.differences(patterns) == {"missed": [], "unexpected": []}, outcome.output[-4000:]
    assert KEY not in outcome.output


def test_limits_in_between_are_waited_for(runs: Mapping[str, Outcome]) -> None:
    outcome = runs["limits-now-and-then"]

    assert outcome.refused > 5
    assert outcome.failed == []


def test_conversations_are_deleted_after_a_failure(runs: Mapping[str, Outcome]) -> None:
    outcome = runs["says-something-else"]

    assert "test_blocking" in outcome.failed
    assert outcome.left == 0


def test_limits_without_an_end_fail_the_run(runs: Mapping[str, Outcome]) -> None:
    outcome = runs["limits-for-ever"]

    assert outcome.code == 1
    assert "the limits of this environment leave no room" in outcome.output
    assert "--patience" in outcome.output
