"""Each smoke test through a browser notices what it is for, as tests/unit/test_smoke_defects.py has it for the rest."""

from collections.abc import Mapping

import pytest

from tests.unit.smoke_defects import Failures, PlantedDefects, fails
from tests.unit.smoke_runs import Outcome
from tests.unit.smoke_upstream import KEY

pytestmark = pytest.mark.browser

# A run costs a browser, so defects that different tests notice share one.
DEFECTS: Mapping[str, Failures] = {
    "reflects+hides-headers+buffers+stream-breaks-off": fails(
        "test_another_origin_reads_no_answer",
        "test_another_origins_preflight_is_refused",
        "test_another_origin_cannot_chat",
        "test_a_page_reads_a_401",
        "test_a_page_reads_a_stream",
        "test_a_page_reads_server_sent_events",
    ),
    "few-headers+credentials": fails(
        "test_a_page_reads_a_401_after_a_preflight",
        "test_a_page_gets_an_answer",
        "test_a_page_reads_a_stream",
        "test_a_page_reads_server_sent_events",
        "test_a_page_cannot_send_cookies_along",
    ),
    "not-on-errors+preflight-by-dify": fails(
        "test_a_page_reads_a_401*",
        "test_a_page_cannot_send_cookies_along",
        "test_a_page_gets_an_answer",
        "test_a_page_reads_server_sent_events",
        "test_another_origins_preflight_is_refused",
        "test_another_origin_cannot_chat",
    ),
    "doubled": fails("test_a_page_*"),
}


class TestBrowser(PlantedDefects):
    """What a web page sees."""

    environment, defects, tests = "dify", DEFECTS, 10
    options = ("-k", "test_browser", "--browser", "")
    # It refuses every fifth request, and says that it may be sent again at once.
    right = "limits-now-and-then"
    secrets = (KEY,)
    seconds = 200

    def test_a_page_reads_a_429(self, runs: Mapping[str, Outcome]) -> None:
        assert "browser: Chromium" in runs[self.right].output
        # A page reads status and Retry-After, else it could not have waited.
        assert runs[self.right].refused > 1
