"""The time that a run may wait for limits comes from the exported limits."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from infra.catalogue.releases import RELEASES
from infra.catalogue.route_groups import SERVICE_API
from infra.exports import limit_facts, llm_facts, oauth_facts
from smoke_tests.limits import LLM, NEW_TOKENS, OAUTH, REFUSED_TOKENS, RateLimits, read_limits
from smoke_tests.masking import Redactor
from smoke_tests.room import (
    LONGEST_SECONDS,
    REQUESTS,
    SPARE_SECONDS,
    no_room,
    patience_for,
    seconds_for,
)
from smoke_tests.run import Run
from smoke_tests.selection import left_out
from smoke_tests.target import Target, from_exports
from support.configuration import settings
from tests.unit.smoke_runs import CHECKOUT
from tests.unit.smoke_upstream import ALLOWED, KEY, Handler, serving
from tests.unit.test_smoke_target import EXPORTS, SMOKE, FakeItem, chosen


def limits(v1: Mapping[str, int], *, dry_run: bool = False) -> RateLimits:
    return RateLimits(dry_run=dry_run, groups={SERVICE_API: v1})


def target(v1: Mapping[str, int], *, dry_run: bool = False) -> Target:
    found = from_exports(EXPORTS, chosen())
    assert found.deployment
    return replace(found, deployment=replace(found.deployment, rate_limits=limits(v1, dry_run=dry_run)))


GUIDE = {"requests": 5, "seconds": 60, "burst": 5}
MINUTE = {"requests": 1, "seconds": 60, "burst": 1}


@pytest.mark.parametrize(
    ("v1", "seconds"),
    [
        pytest.param(GUIDE, (REQUESTS[SERVICE_API] - 5) * 12, id="the-guides-example"),
        pytest.param({"requests": 200, "seconds": 2, "burst": 200}, 0, id="default"),
        pytest.param({"requests": 0, "seconds": 0, "burst": 0}, 0, id="none"),
        pytest.param(
            {**GUIDE, "burst": 60, "addressRequests": 1, "addressSeconds": 1, "addressBurst": 10},
            REQUESTS[SERVICE_API] - 10,
            id="address",
        ),
    ],
)
def test_the_wait_is_what_the_bucket_takes(v1: dict[str, int], seconds: float) -> None:
    assert seconds_for(limits(v1), SERVICE_API) == seconds
    assert patience_for(target(v1), None) == SPARE_SECONDS + seconds


def test_the_guide_names_the_largest_limit_that_leaves_tests_out() -> None:
    page = (CHECKOUT / "docs" / "guides" / "smoke-tests.md").read_text(encoding="utf-8")
    [named] = re.findall(r"\((\d+) requests a minute or fewer on `/v1`\)", page)
    largest, next_one = (
        {"requests": count, "seconds": 60, "burst": count} for count in (int(named), int(named) + 1)
    )

    assert no_room(target(largest), "chat", None)
    assert no_room(target(next_one), "chat", None) == ""


def test_what_was_given_goes_before() -> None:
    assert patience_for(target(GUIDE), 7) == 7
    assert patience_for(None, None) == SPARE_SECONDS


def test_a_dry_run_limits_nothing() -> None:
    assert seconds_for(limits(MINUTE, dry_run=True), SERVICE_API) == 0


def test_a_limit_without_room_leaves_its_tests_out() -> None:
    narrow = target(MINUTE)
    reason = no_room(narrow, "chat", None)

    assert "1 requests in 60 s (dify:rateLimits.v1)" in reason
    assert f"{LONGEST_SECONDS:.0f} s at most: give --patience" in reason
    assert no_room(narrow, "console", None) == ""
    assert no_room(narrow, "chat", 10_000) == ""
    assert no_room(target(GUIDE), "chat", None) == ""
    # What cannot be waited for does not make the other tests wait.
    assert patience_for(narrow, None) == SPARE_SECONDS


@pytest.mark.parametrize(
    ("file", "markers", "left"),
    [("chat", (), True), ("cors", ("needs_key",), True), ("cors", (), False), ("tls", (), False)],
)
def test_the_file_of_a_test_says_what_it_needs(file: str, markers: tuple[str, ...], *, left: bool) -> None:
    class Item(FakeItem):
        path = SMOKE / f"test_{file}.py"

    run = Run(options=replace(chosen(), patience=None), redact=Redactor(), target=target(MINUTE))

    assert bool(left_out(run, Item("test_it", *markers))) == left  # type: ignore[arg-type]


EXPORTED = {"dryRun": True, "groups": {SERVICE_API: {"requests": 5.0, "seconds": 60.0, "burst": 5.0}}}
OAUTH_LIMITS = {
    "address": {"requests": 1.0, "seconds": 60.0, "burst": 1.0},
    "newTokens": {"requests": 0.0, "seconds": 0.0, "burst": 0.0},
    "failures": {"client": 2.0, "address": 2.0, "seconds": 60.0},
}


def test_limits_of_oauth_and_of_the_proxy_count_too() -> None:
    found = read_limits(
        EXPORTED,
        {"limits": OAUTH_LIMITS},
        {"limits": {"requests": 6.0, "seconds": 60.0, "burst": 2.0}},
    )

    # A dry run is that of dify:rateLimits alone.
    assert seconds_for(found, SERVICE_API) == 0
    assert seconds_for(found, OAUTH) == (REQUESTS[OAUTH] - 1) * 60
    assert seconds_for(found, NEW_TOKENS) == 0
    assert seconds_for(found, LLM) == (REQUESTS[LLM] - 2) * 10
    assert found.failures == 2
    assert read_limits(EXPORTED, None, None).failures is None


def test_the_program_exports_what_the_settings_say() -> None:
    narrow = {"requests": 3, "seconds": 60, "burst": 2}
    made = settings(
        {
            "oauth": {
                "enabled": True,
                "tenants": {"acme": {"app": "echo-chat"}},
                "limits": {
                    "address": narrow,
                    "refusedTokens": narrow,
                    "newTokens": narrow,
                    "failures": {"client": 2, "address": 2, "seconds": 60},
                },
            },
            "llm": {"enabled": True, "limits": narrow},
        },
        {"llmKeys": json.dumps({"holysheep": "hs-" + "k" * 40})},
    )
    found = read_limits(
        limit_facts(made.rate_limits, RELEASES["1.17.1"]), oauth_facts(made.oauth), llm_facts(made)
    )

    assert found.others == dict.fromkeys((OAUTH, REFUSED_TOKENS, NEW_TOKENS, LLM), narrow)
    assert found.failures == 2
    assert found.bucket(SERVICE_API)["requests"] == 200


@pytest.mark.parametrize(("failures", "left"), [(1, True), (2, True), (3, False), (None, False)])
def test_wrong_secrets_are_sent_where_the_client_may_send_them(failures: int | None, *, left: bool) -> None:
    found = target(GUIDE)
    assert found.deployment
    limited = replace(found.deployment, rate_limits=replace(found.deployment.rate_limits, failures=failures))
    run = Run(options=chosen(), redact=Redactor(), target=replace(found, deployment=limited))

    reason = left_out(run, FakeItem("test_it", "needs_failures"))  # type: ignore[arg-type]

    assert bool(reason) == left
    assert ("dify:oauth.limits.failures" in reason) == left


def test_a_limit_of_oauth_leaves_its_tests_out() -> None:
    found = target(GUIDE)
    assert found.deployment
    narrow = read_limits(EXPORTED, {"limits": OAUTH_LIMITS}, None)
    reason = no_room(replace(found, deployment=replace(found.deployment, rate_limits=narrow)), "oauth", None)

    assert "1 requests in 60 s (dify:oauth.limits.address)" in reason


def test_the_reason_names_the_bucket_that_decides() -> None:
    of_the_address = {"addressRequests": 2, "addressSeconds": 90, "addressBurst": 1}
    wide = {"requests": 200, "seconds": 2, "burst": 200}

    reason = no_room(target({**wide, **of_the_address}), "chat", None)

    assert "for the limit of 2 requests in 90 s for one address (dify:rateLimits.v1)" in reason


class CountingHandler(Handler):
    """Counts requests to /v1 as the edge does: by key, and by address without one."""

    counted: ClassVar[Counter[str]] = Counter()

    def limits(self) -> None:
        if self.path.startswith("/v1/"):
            scheme, _, token = self.headers.get("Authorization", "").partition(" ")
            self.counted[token if scheme.lower() == "bearer" and len(token) > 16 else "address"] += 1
        super().limits()


def test_a_run_sends_no_more_requests_than_are_reckoned_with(tmp_path: Path) -> None:
    CountingHandler.counted.clear()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DIFY_", "PULUMI_"))}
    with serving(kind=CountingHandler) as upstream:
        arguments: list[Any] = [
            *(sys.executable, "-m", "pytest", "smoke_tests", "--url", upstream.url),
            *("--allowed-origin", ALLOWED, "--browser", "none", "-p", "no:cacheprovider"),
            *("--reports", tmp_path),
        ]
        done = subprocess.run(
            arguments,
            cwd=CHECKOUT,
            env=kept | {"DIFY_API_KEY": KEY},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    assert done.returncode == 0, done.stdout[-3000:]
    assert CountingHandler.counted[KEY] > 20
    # Through a browser come about ten more of each.
    assert max(CountingHandler.counted.values()) + 10 <= REQUESTS[SERVICE_API], CountingHandler.counted
