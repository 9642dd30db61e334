"""Limits of the edge. They are exhausted with made-up credentials, never with one that is in use."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from infra.catalogue.route_groups import SERVICE_API
from infra.edge.paths import CURRENT
from smoke_tests.client import TOO_MANY_REQUESTS, Answer, Client, made_up
from smoke_tests.inside import host_of
from smoke_tests.limits import RateLimits
from smoke_tests.target import Deployment, Target
from smoke_tests.untested import leave_out

# The most requests that are sent to reach a limit: more would load a busy stack.
MOST = 30
UNAUTHORIZED = 401
# As many concurrent requests as a page sends.
AT_ONCE = 10
# Seconds of network time that a comparison of clocks allows for.
ON_THE_WAY = 5


@dataclass(frozen=True, kw_only=True)
class Exhausted:
    """Requests up to those that brought a 429: all other answers, a 429 (None without one), and the seconds."""

    accepted: tuple[Answer, ...]
    refused: Answer | None
    seconds: float


def at_once(send: Callable[[], Answer], count: int) -> list[Answer]:
    """Send `count` requests at the same time; return the answers."""
    with ThreadPoolExecutor(count) as pool:
        return [one.result() for one in [pool.submit(send) for _ in range(count)]]


def exhaust(send: Callable[[], Answer], most: int, together: int) -> Exhausted:
    """Send `together` requests at the same time until an answer is a 429, about `most` in all.

    One after the other, they could be slower than the limit, which then is never reached.
    """
    answers: list[Answer] = []
    refused: list[Answer] = []
    started = time.monotonic()
    while len(answers) < most and not refused:
        answers += at_once(send, together)
        refused = [one for one in answers if one.status == TOO_MANY_REQUESTS]
    return Exhausted(
        accepted=tuple(one for one in answers if one.status != TOO_MANY_REQUESTS),
        refused=refused[0] if refused else None,
        seconds=time.monotonic() - started,
    )


def together(mine: Mapping[str, int]) -> int:
    """Return how many requests of a credential go at the same time: below the limits of concurrent requests."""
    limits = [mine.get(name, 0) for name in ("concurrent", "addressConcurrent")]
    return min([AT_ONCE, *(limit for limit in limits if limit)])


def can_be_reached(limits: RateLimits) -> bool:
    """Return whether MOST requests reach the rate of a credential on /v1, and not that of the whole address."""
    mine = limits.groups[SERVICE_API]
    shared = mine.get("addressBurst", 0)
    return not limits.dry_run and 0 < mine["burst"] <= MOST and not 0 < shared < mine["burst"] + 2 * MOST


def drained(mine: Mapping[str, int], seconds: float) -> float:
    """Return how many further requests a rate admits in this time."""
    return mine["requests"] / mine["seconds"] * seconds


@pytest.mark.needs_stack
def test_usual_traffic_is_not_limited(target: Target, deployment: Deployment, visitor: Client) -> None:
    limits, url, headers = deployment.rate_limits, f"{target.service_url}/v1/info", made_up()
    mine = limits.groups[SERVICE_API]
    count = min(AT_ONCE, mine["burst"]) if can_be_reached(limits) else AT_ONCE
    if 0 < mine.get("addressBurst", 0) < MOST + AT_ONCE or 0 < mine["burst"] < count:
        # The tests before this one may have used up what the address may send, so a wait is usual here.
        assert visitor.ask("GET", url, headers=headers).status == UNAUTHORIZED
        return

    answers = at_once(lambda: visitor.once("GET", url, headers=headers), min(count, together(mine)))

    assert {answer.status for answer in answers} == {UNAUTHORIZED}


@pytest.mark.needs_stack
def test_a_429_carries_retry_after(target: Target, deployment: Deployment, visitor: Client) -> None:
    limits = deployment.rate_limits
    mine = limits.groups[SERVICE_API]
    headers, url = made_up(), f"{target.service_url}/v1/info"
    if not can_be_reached(limits):
        leave_out(
            f"a 429 of /v1 takes more than the {MOST} requests that are sent for it, or none is sent "
            "(dify:rateLimits); nginx's configuration was checked instead"
        )
    reached = exhaust(lambda: visitor.once("GET", url, headers=headers), mine["burst"] + MOST, together(mine))
    if reached.refused is None and drained(mine, reached.seconds) >= len(reached.accepted) - mine["burst"]:
        leave_out(
            f"this machine sends {len(reached.accepted)} requests in {reached.seconds:.1f} s, more slowly than "
            "dify:rateLimits.v1 admits; nginx's configuration was checked instead"
        )

    refused, received = reached.refused, time.monotonic()

    assert {answer.status for answer in reached.accepted} == {UNAUTHORIZED}
    assert mine["burst"] <= len(reached.accepted) <= mine["burst"] + drained(mine, reached.seconds) + 1
    assert refused is not None
    assert refused.header("retry-after") == str(mine["retryAfter"])
    assert refused.json() == {"error": "rate_limit_exceeded", "retry_after": mine["retryAfter"]}
    assert refused.header("content-type") == "application/json"
    assert refused.header("x-request-id")
    # Another credential is not limited.
    assert visitor.once("GET", url, headers=made_up()).status == UNAUTHORIZED
    # After Retry-After, within this run's patience, the request is accepted.
    assert visitor.ask("GET", url, headers=headers).status == UNAUTHORIZED
    assert time.monotonic() - received < mine["retryAfter"] + ON_THE_WAY


@pytest.mark.needs_stack
@pytest.mark.needs_shell
def test_nginx_has_the_limits_of_the_exports(deployment: Deployment) -> None:
    limits = deployment.rate_limits
    edge = host_of(deployment.containers[deployment.edge])
    # Several pods of nginx count in another server than one does.
    configuration = edge.check_output(f"cat {CURRENT}/http/limits.conf {CURRENT}/servers/*.conf")
    limited = {group for group, found in limits.groups.items() if found["requests"]}
    assert limited == {group for group in limits.groups if f"limit_req zone=rate_{group}_" in configuration}
    assert limits.dry_run == ("limit_req_dry_run on;" in configuration)
