"""Each smoke test of OAuth detects its defects."""

from collections.abc import Mapping

from tests.unit.smoke_defects import Failures, PlantedDefects, fails
from tests.unit.smoke_oauth_upstream import SECRET

DEFECTS: Mapping[str, Failures] = {
    "any-secret": fails(
        "test_a_wrong_secret_gets_no_token", "test_a_refusal_does_not_reveal_whether_the_client_exists"
    ),
    "reveals-clients": fails("test_a_refusal_does_not_reveal_whether_the_client_exists"),
    "any-scope": fails("test_an_unknown_scope_is_refused"),
    "no-scopes": fails(
        "test_a_route_outside_of_the_scope_stays_closed",
        "test_a_route_that_no_scope_lists_stays_closed",
    ),
    "any-token": fails(
        "test_a_token_signed_by_another_key_is_refused",
        "test_a_changed_token_is_refused",
        "test_a_revoked_token_is_refused",
        "test_a_malformed_token_is_refused",
        # Such an edge grants every token the scope chat alone.
        "test_a_token_opens_the_chat",
    ),
    "keeps-revoked": fails("test_a_revoked_token_is_refused"),
    "no-token-challenge": fails(
        "test_a_token_signed_by_another_key_is_refused",
        "test_a_changed_token_is_refused",
        "test_a_revoked_token_is_refused",
        "test_a_malformed_token_is_refused",
    ),
    "cached": fails("test_a_token_is_issued"),
    "open-verify": fails("test_the_token_check_is_internal*"),
}


class TestOAuth(PlantedDefects):
    """Dify with OAuth in front of it."""

    environment, defects, tests = "oauth", DEFECTS, 25
    # Every token begins with the second one.
    secrets = (SECRET, "eyJ")
    # Such an edge grants the scope chat alone, so deleting the conversation is refused.
    leaving = ("any-token",)
