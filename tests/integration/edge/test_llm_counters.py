"""Counters of usage in a zone that is full: a budget is kept, and what has its counter goes on."""

import base64
import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from infra.edge.context import EdgeContext
from tests.integration.edge.llm import LlmEdge

CHAT = "/llm/v1/chat/completions"
ASKED = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 20}
# The smallest zone that nginx accepts. It is full after some dozen callers.
SMALLEST = "32k"
MOST_CALLERS = 400
FULL = "usage was not counted"


class SmallCounters(LlmEdge):
    """An edge whose zone of counters is as small as possible."""

    def _context(self, context: EdgeContext) -> EdgeContext:
        found = super()._context(context)
        assert found.llm is not None
        return dataclasses.replace(found, llm=dataclasses.replace(found.llm, counters_size=SMALLEST))


@pytest.fixture(scope="module")
def small(open_directory: Callable[[], Path]) -> Iterator[SmallCounters]:
    one = SmallCounters(open_directory())
    try:
        yield one
    finally:
        one.remove()


def by_key(small: SmallCounters, caller: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {small.keys[caller]}"}
    return small.http.post(CHAT, json=ASKED, headers=headers, timeout=30)


def by_token(small: SmallCounters, subject: str) -> httpx.Response:
    """Send a request with the token of a subject of its own, which the gateway's stand-in accepts."""
    claims = json.dumps({"Sub": subject, "Tenant": "acme", "Scopes": "chat llm"}).encode()
    token = f"x.{base64.urlsafe_b64encode(claims).decode().rstrip('=')}.200"
    return small.http.post(CHAT, json=ASKED, headers={"Authorization": f"Bearer {token}"}, timeout=30)


def said(small: SmallCounters) -> str:
    """Return what nginx has logged on stderr."""
    return str(small.nginx.logs(stdout=False).decode())


def test_a_full_zone_refuses_new_budgets_and_keeps_those_it_has(small: SmallCounters) -> None:
    assert by_key(small, "judy").status_code == 200
    for number in range(MOST_CALLERS):
        # Without a budget a caller is served in any case.
        assert by_token(small, f"caller-{number}").status_code == 200
        if FULL in said(small):
            break
    assert FULL in said(small)

    refused = by_key(small, "carol")
    judys = [by_key(small, "judy") for _ in range(60)]

    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "usage_not_counted")
    assert refused.headers["Retry-After"] == "5"
    # Her budget of one dollar ends, although nothing new fits: each answer costs 2.5 cents.
    codes = [one.json()["error"]["code"] for one in judys if one.status_code != 200]
    assert judys[0].status_code == 200
    assert codes
    assert set(codes) <= {"budget_exceeded", "budget_reserved"}
    assert judys[-1].status_code == 429
