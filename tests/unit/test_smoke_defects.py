"""Each smoke test detects its defects: a correct environment passes, and a defect fails exactly its tests."""

from collections.abc import Mapping

from tests.unit.smoke_defects import Failures, PlantedDefects, fails
from tests.unit.smoke_runs import Outcome
from tests.unit.smoke_upstream import KEY

DEFECTS: Mapping[str, Failures] = {
    "any-host": fails("test_an_unknown_host_gets_no_answer"),
    "unclaimed": fails("test_the_instance_is_claimed"),
    "open-console": fails("test_the_console_api_requires_a_session*"),
    "no-request-id": fails(
        "test_every_answer_has_a_request_id*",
        "test_a_body_over_the_limit_is_refused_in_json",
    ),
    "one-id": fails("test_every_answer_has_a_request_id*"),
    "own-404": fails("test_an_unknown_route_gets_difys_own_404"),
    "open-schema": fails("test_no_schema_of_the_api_is_served"),
    "schema-non-normalised": fails("test_no_schema_of_the_api_is_served"),
    "any-origin-connects": fails("test_other_origins_cannot_open_console_sockets*"),
    "console-refused": fails("test_the_console_can_open_its_sockets"),
    "html-413": fails("test_a_body_over_the_limit_is_refused_in_json"),
    "own-401": fails(
        "test_other_credentials_get_difys_own_401*",
        "test_an_apps_key_does_not_open_the_knowledge_api",
    ),
    "no-challenge": fails("test_other_credentials_get_difys_own_401*"),
    "any-key": fails(
        "test_other_credentials_get_difys_own_401[[]wrong-key]",
        "test_other_credentials_get_difys_own_401[[]wrong-key-lower-case-scheme]",
        "test_a_malformed_token_is_refused",
        "test_a_refused_key_carries_the_headers",
    ),
    "repeats-key": fails("test_no_answer_repeats_the_key"),
    "answers-something-else": fails(
        "test_blocking", "test_streaming", "test_follow_up_in_the_same_conversation"
    ),
    "forgets": fails("test_follow_up_in_the_same_conversation"),
    "keeps-conversations": fails("test_a_deleted_conversation_is_gone"),
    "buffers": fails("test_a_stream_arrives_while_it_is_made", message="a proxy buffers the stream"),
    # No workflow reports how long it took: a few milliseconds decide.
    "buffers+app-without-workflow": fails(
        "test_a_stream_arrives_while_it_is_made", message="a proxy buffers the stream"
    ),
    # No defect: an app of one prompt has no workflow.
    "app-without-workflow": fails(),
    "stream-breaks-off": fails("test_streaming"),
    "stream-fails": fails("test_streaming"),
    "stream-loses-text": fails("test_streaming"),
    "stream-changes-ids": fails("test_streaming"),
    "stream-without-workflow-end": fails("test_streaming"),
    # No defect: Dify 1.14 and later send this, a ping may come anywhere.
    "order-of-newer-releases": fails(),
    "preflight-by-dify": fails("test_preflight*"),
    "few-headers": fails("test_preflight[[]v1-allowed-1]"),
    "reflects": fails(
        *(
            f"test_{kind}[[]{group}-{who}]"
            for kind in ("preflight", "request")
            for group in ("v1", "console", "api")
            for who in ("null", "unrelated")
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
    "prefix-match": fails(
        *(
            f"test_{kind}[[]v1-{who}]"
            for kind in ("preflight", "request")
            for who in ("suffix", "other-port", "trailing-dot", "trailing-slash", "user-name")
        )
    ),
    "suffix-match": fails(
        *(
            f"test_{kind}[[]v1-{who}]"
            for kind in ("preflight", "request")
            for who in ("prefix", "subdomain", "other-scheme")
        )
    ),
    "ignores-case": fails("test_preflight[[]v1-upper-case]", "test_request[[]v1-upper-case]"),
    "unescaped-dot": fails("test_preflight[[]v1-dot-as-any]", "test_request[[]v1-dot-as-any]"),
    "allows-null": fails("test_preflight[[]v1-null]", "test_request[[]v1-null]"),
    "doubled": fails(
        "test_preflight[[]v1-allowed-1]",
        "test_request[[]v1-allowed-1]",
        "test_a*_carries_the_headers",
    ),
    "credentials": fails(
        "test_preflight[[]v1-allowed-1]",
        "test_request[[]v1-allowed-1]",
        "test_a*_carries_the_headers",
    ),
    "not-on-errors": fails(
        "test_request[[]v1-allowed-1]",
        "test_a_refused_key_carries_the_headers",
        "test_an_unknown_route_carries_the_headers",
        "test_a_body_over_the_limit_carries_the_headers",
    ),
    "no-vary": fails(
        "test_preflight*",
        "test_request*",
        "test_a*_carries_the_headers",
        "test_a_request_without_origin_gets_no_cors_headers",
    ),
    "limits-now-and-then": fails(),
}


class TestDify(PlantedDefects):
    """Dify behind an edge."""

    environment, defects, tests = "dify", DEFECTS, 90
    secrets = (KEY,)
    leaving = ("keeps-conversations",)
    more = ("limits-for-ever",)

    def test_limits_in_between_are_waited_for(self, runs: Mapping[str, Outcome]) -> None:
        assert runs["limits-now-and-then"].refused > 5

    def test_limits_without_an_end_fail_the_run(self, runs: Mapping[str, Outcome]) -> None:
        outcome = runs["limits-for-ever"]

        assert outcome.code == 1
        assert "the rate limits of this environment are exhausted" in outcome.output
        assert "--patience" in outcome.output
