"""Limits of the edge. A credential that nobody has is used up, never one that somebody works with."""

import secrets
import time

import pytest
import testinfra

from infra.catalogue.route_groups import SERVICE_API
from infra.edge.paths import CURRENT
from smoke_tests.client import Answer, Client
from smoke_tests.target import Deployment, RateLimits, Target

# More than this is not sent to find a limit: on a busy stack it would be load.
MOST = 30
UNAUTHORIZED = 401
# As fast as a page loads what it needs.
AT_ONCE = 10
# Between the edge's answer and its arrival here, and back.
ON_THE_WAY = 5


def tries(target: Target, visitor: Client, count: int) -> list[Answer]:
    """Ask as somebody new, as fast as answers come."""
    made_up = {"Authorization": f"Bearer app-smoke{secrets.token_urlsafe(18)}"}
    return [visitor.once("GET", f"{target.service_url}/v1/info", headers=made_up) for _ in range(count)]


def can_be_reached(limits: RateLimits) -> bool:
    """Tell whether a few requests are enough to meet the rate of a credential on /v1."""
    return not limits.dry_run and 0 < limits.groups[SERVICE_API]["burst"] <= MOST


@pytest.mark.needs_stack
def test_usual_traffic_meets_no_limit(target: Target, deployment: Deployment, visitor: Client) -> None:
    limits = deployment.rate_limits
    count = min(AT_ONCE, limits.groups[SERVICE_API]["burst"]) if can_be_reached(limits) else AT_ONCE

    assert {answer.status for answer in tries(target, visitor, count)} == {UNAUTHORIZED}


@pytest.mark.needs_stack
def test_too_many_requests_hear_when_to_come_again(
    target: Target, deployment: Deployment, visitor: Client
) -> None:
    limits = deployment.rate_limits
    if not can_be_reached(limits):
        # Going there would be load. What nginx was told is looked at instead.
        edge = testinfra.get_host(f"docker://{deployment.containers[deployment.edge]}")
        told = edge.run(f"cat {CURRENT}/http/limits.conf {CURRENT}/servers/dify.conf").stdout
        limited = {group for group, found in limits.groups.items() if found["requests"]}
        assert limited == {group for group in limits.groups if f"limit_req zone=rate_{group}_" in told}
        assert limits.dry_run == ("limit_req_dry_run on;" in told)
        return
    mine = limits.groups[SERVICE_API]
    headers = {"Authorization": f"Bearer app-smoke{secrets.token_urlsafe(18)}"}
    url = f"{target.service_url}/v1/info"

    answers = [visitor.once("GET", url, headers=headers) for _ in range(mine["burst"] + 3)]
    refused = answers[-1]
    heard = time.monotonic()

    assert [answer.status for answer in answers[: mine["burst"]]] == [UNAUTHORIZED] * mine["burst"]
    assert refused.status == 429
    assert refused.header("retry-after") == str(mine["retryAfter"])
    assert refused.json() == {"error": "rate_limit_exceeded", "retry_after": mine["retryAfter"]}
    assert refused.header("content-type") == "application/json"
    assert refused.header("x-request-id")
    # Somebody else is not concerned.
    assert tries(target, visitor, 1)[0].status == UNAUTHORIZED
    # It waits as it was told, within the patience of this run, and is let in.
    assert visitor.ask("GET", url, headers=headers).status == UNAUTHORIZED
    assert time.monotonic() - heard < mine["retryAfter"] + ON_THE_WAY
