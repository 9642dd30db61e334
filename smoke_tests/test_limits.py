"""Limits of the edge. They are exhausted with made-up credentials, never with one that is in use."""

import secrets
import time

import pytest
import testinfra

from infra.edge.paths import CURRENT
from smoke_tests.client import Answer, Client
from smoke_tests.target import Deployment, RateLimits, Target

# The most requests that are sent to reach a limit: more would load a busy stack.
MOST = 30
UNAUTHORIZED = 401
# As many requests as a page sends at once.
AT_ONCE = 10
# Seconds of network time that a comparison of clocks allows for.
ON_THE_WAY = 5


def tries(target: Target, visitor: Client, count: int) -> list[Answer]:
    """Send requests with a new made-up credential, one after the other; return the answers."""
    made_up = {"Authorization": f"Bearer app-smoke{secrets.token_urlsafe(18)}"}
    return [visitor.once("GET", f"{target.service_url}/v1/info", headers=made_up) for _ in range(count)]


def can_be_reached(limits: RateLimits) -> bool:
    """Return whether MOST requests are enough to reach the rate limit of a credential on /v1."""
    return not limits.dry_run and 0 < limits.groups["v1"]["burst"] <= MOST


@pytest.mark.needs_stack
def test_usual_traffic_is_not_limited(target: Target, deployment: Deployment, visitor: Client) -> None:
    limits = deployment.rate_limits
    count = min(AT_ONCE, limits.groups["v1"]["burst"]) if can_be_reached(limits) else AT_ONCE

    assert {answer.status for answer in tries(target, visitor, count)} == {UNAUTHORIZED}


@pytest.mark.needs_stack
def test_a_429_carries_retry_after(target: Target, deployment: Deployment, visitor: Client) -> None:
    limits = deployment.rate_limits
    if not can_be_reached(limits):
        # Reaching the limit would load the stack, so nginx's configuration is read instead.
        edge = testinfra.get_host(f"docker://{deployment.containers[deployment.edge]}")
        configuration = edge.run(f"cat {CURRENT}/http/limits.conf {CURRENT}/servers/dify.conf").stdout
        limited = {group for group, found in limits.groups.items() if found["requests"]}
        assert limited == {
            group for group in limits.groups if f"limit_req zone=rate_{group}_" in configuration
        }
        assert limits.dry_run == ("limit_req_dry_run on;" in configuration)
        return
    mine = limits.groups["v1"]
    headers = {"Authorization": f"Bearer app-smoke{secrets.token_urlsafe(18)}"}
    url = f"{target.service_url}/v1/info"

    answers = [visitor.once("GET", url, headers=headers) for _ in range(mine["burst"] + 3)]
    refused = answers[-1]
    received = time.monotonic()

    assert [answer.status for answer in answers[: mine["burst"]]] == [UNAUTHORIZED] * mine["burst"]
    assert refused.status == 429
    assert refused.header("retry-after") == str(mine["retryAfter"])
    assert refused.json() == {"error": "rate_limit_exceeded", "retry_after": mine["retryAfter"]}
    assert refused.header("content-type") == "application/json"
    assert refused.header("x-request-id")
    # Another credential is not limited.
    assert tries(target, visitor, 1)[0].status == UNAUTHORIZED
    # After Retry-After, within this run's patience, the request is accepted.
    assert visitor.ask("GET", url, headers=headers).status == UNAUTHORIZED
    assert time.monotonic() - received < mine["retryAfter"] + ON_THE_WAY
