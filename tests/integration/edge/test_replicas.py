"""Three replicas of the edge count as one."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.edge.container import ALLOWED, PLAIN
from tests.integration.edge.replicas import Replicas
from tests.integration.edge.test_limits import FIVE_A_MINUTE, bearer


@pytest.fixture(scope="module")
def replicas(open_directory: Callable[[], Path]) -> Iterator[Replicas]:
    """Three replicas; five requests in 60 s pass on /v1."""
    limits = {
        "v1": FIVE_A_MINUTE,
        "openapi": {"requests": 0, "concurrent": 5, "addressConcurrent": 8},
        "files": FIVE_A_MINUTE,
    }
    one = Replicas(open_directory(), {**PLAIN, "rateLimits": limits})
    try:
        yield one
    finally:
        one.remove()


def test_exactly_five_of_twenty_pass_whatever_replica_they_hit(replicas: Replicas) -> None:
    mine, other = bearer(), bearer()

    found = replicas.spread("/v1/200", mine, 20)
    refused = replicas.clients[1].get("/v1/200", headers={**mine, "Origin": ALLOWED})

    assert found == [200] * 5 + [429] * 15
    assert replicas.spread("/v1/200", other, 5) == [200] * 5
    assert refused.json()["error"] == "rate_limit_exceeded"
    assert refused.headers["access-control-allow-origin"] == ALLOWED
