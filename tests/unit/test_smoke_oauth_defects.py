"""Each smoke test of OAuth notices what it is for: a right environment passes, one with a defect fails by that test."""

from collections.abc import Mapping

from tests.unit.smoke_defects import Failures, PlantedDefects, fails
from tests.unit.smoke_oauth_upstream import SECRET

DEFECTS: Mapping[str, Failures] = {
    "any-secret": fails("test_a_wrong_secret_gets_no_token", "test_nobody_learns_which_clients_there_are"),
    "tells-clients": fails("test_nobody_learns_which_clients_there_are"),
    "any-scope": fails("test_an_unknown_scope_is_refused"),
    "no-scopes": fails(
        "test_a_route_outside_of_the_scope_stays_closed",
        "test_a_route_that_no_scope_lists_stays_closed",
    ),
    "any-token": fails(
        "test_a_token_of_somebody_else_is_refused",
        "test_a_changed_token_is_refused",
        "test_a_revoked_token_is_refused",
        "test_what_looks_like_a_token_and_is_none_is_refused",
        # Such an edge grants every token the scope chat alone.
        "test_a_token_opens_the_chat",
    ),
    "keeps-revoked": fails("test_a_revoked_token_is_refused"),
    "no-token-challenge": fails(
        "test_a_token_of_somebody_else_is_refused",
        "test_a_changed_token_is_refused",
        "test_a_revoked_token_is_refused",
        "test_what_looks_like_a_token_and_is_none_is_refused",
    ),
    "cached": fails("test_a_token_is_issued"),
    "open-verify": fails("test_the_verdict_about_a_token_is_for_nginx_alone*"),
}


class TestOAuth(PlantedDefects):
    """Dify with OAuth in front of it."""

    environment, defects, tests = "oauth", DEFECTS, 25
    # Every token begins with the second one.
    secrets = (SECRET, "eyJ")
    # Such an edge grants the scope chat alone, so deleting the conversation is refused.
    leaving = ("any-token",)
