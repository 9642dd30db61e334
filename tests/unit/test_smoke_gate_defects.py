"""Each smoke test of the gate detects its defects; tests of the console are deselected behind a gate."""

from collections.abc import Mapping

from tests.unit.smoke_defects import Failures, PlantedDefects, fails
from tests.unit.smoke_runs import Outcome

PAGES, CALLS = "test_pages_redirect_to_the_sign_in", "test_calls_get_401"
CLAIM, SIGN_IN = "test_a_claimed_identity_is_ignored", "test_the_sign_in_redirects_to_the_provider"

DEFECTS: Mapping[str, Failures] = {
    "api-open": fails(CALLS, f"{CLAIM}*"),
    "pages-open": fails(PAGES),
    "no-redirect": fails(PAGES),
    "forgets-the-page": fails(PAGES),
    "leads-calls": fails(CALLS, f"{CLAIM}*", "test_the_console_api_requires_a_session*"),
    "html-401": fails(CALLS, f"{CLAIM}*"),
    "any-cookie": fails(f"{CLAIM}[[]cookie]"),
    "believes-headers": fails(f"{CLAIM}[[]identity]"),
    "short-state": fails(SIGN_IN),
    "no-pkce": fails(SIGN_IN),
    "callback-elsewhere": fails(SIGN_IN),
    "provider-away": fails(SIGN_IN),
    "script-reads-cookie": fails(SIGN_IN),
    "any-state": fails("test_an_unsolicited_callback_opens_no_session"),
    "files-inside": fails("test_routes_outside_the_gate_stay_open[[]/files/smoke-test]"),
}


class TestGate(PlantedDefects):
    """Dify with a gate in front of its console."""

    environment, defects, tests = "gate", DEFECTS, 28

    def test_tests_of_the_console_are_left_out(self, runs: Mapping[str, Outcome]) -> None:
        assert "test_the_environment_answers" in runs[self.right].results
        assert (
            "they call the console without a session, and it is behind the gate here"
            in runs[self.right].output
        )
