"""Limits: what passes, who is counted, and what the others hear."""

import json
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

import httpx
import pytest

from tests.integration.edge.container import ALLOWED, GROUPS, Edge

FIVE_A_MINUTE = {"requests": 5, "seconds": 60, "concurrent": 0}
OPEN_ADDRESS = {"addressRequests": 0, "addressConcurrent": 0}
# nginx counts thousandths of a request a second: 5r/m are 83 of them.
A_DROP = 13


def bearer(token: str = "") -> dict[str, str]:
    """Return the header of a credential, of a new one by default."""
    return {"Authorization": f"Bearer {token or 'app-' + secrets.token_urlsafe(18)}"}


def statuses(edge: Edge, path: str, headers: dict[str, str], count: int) -> list[int]:
    """Return the statuses of requests one after another."""
    return [edge.http.get(path, headers=headers).status_code for _ in range(count)]


@pytest.fixture(scope="module")
def limited(start_edge: Callable[..., Edge]) -> Edge:
    """An edge where five requests in 60 s pass on /v1, and five a minute may log in."""
    return start_edge(
        plain={
            "rateLimits": {
                "v1": {**FIVE_A_MINUTE, "addressRequests": 60, "addressSeconds": 60},
                "openapi": {"requests": 0, "concurrent": 5, "addressConcurrent": 8},
                "console": {**FIVE_A_MINUTE, "addressRequests": 1000, "addressSeconds": 1},
                "api": {**FIVE_A_MINUTE, "addressRequests": 1000, "addressSeconds": 1},
                "login": FIVE_A_MINUTE,
            }
        }
    )


def test_exactly_five_of_twenty_pass_and_waiting_as_told_is_enough(limited: Edge) -> None:
    mine, other = bearer(), bearer()

    found = statuses(limited, "/v1/200", mine, 20)
    refused = limited.http.get("/v1/200", headers={**mine, "Origin": ALLOWED})
    heard = time.monotonic()

    assert found == [200] * 5 + [429] * 15
    assert statuses(limited, "/v1/200", other, 5) == [200] * 5
    assert refused.headers["retry-after"] == str(A_DROP)
    assert refused.json() == {"error": "rate_limit_exceeded", "retry_after": A_DROP}
    assert refused.headers.get_list("content-type") == ["application/json"]
    assert refused.headers["access-control-allow-origin"] == ALLOWED
    assert "Retry-After" in refused.headers["access-control-expose-headers"]
    assert refused.headers["x-request-id"]

    time.sleep(A_DROP - (time.monotonic() - heard))
    assert statuses(limited, "/v1/200", mine, 2) == [200, 429]


def test_at_once_or_one_after_another_is_the_same(limited: Edge) -> None:
    mine = bearer()

    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(lambda _: limited.http.get("/v1/200", headers=mine).status_code, range(20)))

    assert sorted(found) == [200] * 5 + [429] * 15
