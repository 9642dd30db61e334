"""The smoke tests of limits, against an edge with narrow ones: what holds passes, what does not fails."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra.catalogue.releases import RELEASES
from infra.edge.paths import CURRENT, EDGE_DIRECTORY
from infra.exports import limit_facts
from smoke_tests import test_limits as smoke
from smoke_tests.client import Client, Patience
from smoke_tests.limits import RateLimits
from smoke_tests.masking import Redactor
from smoke_tests.options import Options
from smoke_tests.target import Deployment, Target, from_exports
from support.configuration import settings
from tests.integration.edge.container import PLAIN, Edge
from tests.unit.test_smoke_target import EXPORTS, chosen

NARROW = {"rateLimits": {"v1": {"requests": 30, "seconds": 60, "burst": 5}}}


@pytest.fixture(scope="module")
def target(start_edge: Callable[..., Edge]) -> Target:
    """An edge with narrow limits, as a stack's exports describe it."""
    edge = start_edge(plain=NARROW)
    # In a deployment the configuration is below this link.
    place = edge.directory / EDGE_DIRECTORY.lstrip("/")
    (place / Path(CURRENT).name).symlink_to(".")
    exports: dict[str, Any] = {
        **EXPORTS,
        "serviceApiUrl": f"{edge.url}/v1",
        "containers": {"nginx": edge.nginx.name},
        "rateLimits": limit_facts(settings({**PLAIN, **NARROW}).rate_limits, RELEASES["1.17.1"]),
    }
    options: Options = chosen()
    return from_exports(exports, options)


@pytest.fixture
def visitor() -> Iterator[Client]:
    """A client with some patience."""
    client = Client(key=None, redact=Redactor(), patience=Patience(seconds=10), direct=True, verify=True)
    yield client
    client.close()


def deployment_of(target: Target, **promised: int) -> Deployment:
    """Return the deployment, whose exports may promise something else than what it does."""
    assert target.deployment
    limits = target.deployment.rate_limits
    groups = {**limits.groups, "v1": {**limits.groups["v1"], **promised}}
    return replace(target.deployment, rate_limits=RateLimits(dry_run=limits.dry_run, groups=groups))


def test_limits_that_hold_pass(target: Target, visitor: Client) -> None:
    smoke.test_usual_traffic_is_not_limited(target, deployment_of(target), visitor)
    smoke.test_a_429_carries_retry_after(target, deployment_of(target), visitor)
    smoke.test_nginx_has_the_limits_of_the_exports(deployment_of(target))


def test_a_limit_that_is_not_in_nginx_fails(target: Target) -> None:
    with pytest.raises(AssertionError):
        smoke.test_nginx_has_the_limits_of_the_exports(deployment_of(target, requests=0))


@pytest.mark.parametrize("promised", [{"burst": smoke.MOST + 1}, {"burst": 0}])
def test_a_limit_that_is_not_reached_is_left_out_with_the_reason(
    target: Target, visitor: Client, promised: dict[str, int]
) -> None:
    with pytest.raises(pytest.skip.Exception, match="a 429 of /v1 takes more than the 30 requests"):
        smoke.test_a_429_carries_retry_after(target, deployment_of(target, **promised), visitor)


@pytest.mark.parametrize("promised", [{"burst": 6}, {"burst": 1}, {"retryAfter": 1}])
def test_limits_that_differ_fail(target: Target, visitor: Client, promised: dict[str, int]) -> None:
    with pytest.raises(AssertionError):
        smoke.test_a_429_carries_retry_after(target, deployment_of(target, **promised), visitor)


def test_usual_traffic_that_is_refused_fails(target: Target, visitor: Client) -> None:
    with pytest.raises(AssertionError):
        smoke.test_usual_traffic_is_not_limited(target, deployment_of(target, burst=smoke.MOST), visitor)
