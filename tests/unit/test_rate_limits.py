"""Rate limits: what nginx can count, what a 429 promises, and one clear error for what cannot be."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.catalogue.route_groups import SIGN_IN_LIMIT, TABLE, LimitKey, limited_groups
from infra.edge.limits import ADDRESS_KEY, SIGN_IN_BY_GET, ConnectionZone, RateZone, edge_limits
from infra.settings.rate_limits import Bucket
from support.configuration import settings
from tests.unit.test_settings import told

CREDENTIAL_GROUPS = [one.name for one in TABLE if one.limit_key not in {None, LimitKey.ADDRESS}]
ADDRESS_GROUPS = [one.name for one in TABLE if one.limit_key is LimitKey.ADDRESS] + [SIGN_IN_LIMIT]
CREDENTIAL = {"addressRequests": 0, "addressConcurrent": 0}


def milliseconds(bucket: Bucket) -> int:
    """Return after how many milliseconds nginx lets the next request of a full bucket through.

    This is nginx's own arithmetic (ngx_http_limit_req_module.c), in whole numbers as there.
    """
    number, unit = bucket.rate.split("r/")
    rate = int(number) * 1000 // {"s": 1, "m": 60}[unit]
    full = (bucket.burst - 1) * 1000
    waited = 0
    while full - rate * waited // 1000 + 1000 > full:
        waited += 1
    return waited


@pytest.mark.parametrize(
    ("requests", "seconds", "rate", "retry"),
    [
        (5, 60, "5r/m", 13),
        (6, 60, "6r/m", 10),
        (1, 60, "1r/m", 63),
        (60, 60, "1r/s", 1),
        (200, 2, "100r/s", 1),
        (1, 2, "30r/m", 2),
        (3, 2, "90r/m", 1),
        (10, 600, "1r/m", 63),
    ],
)
def test_rate_is_written_as_nginx_reads_it(requests: int, seconds: int, rate: str, retry: int) -> None:
    bucket = Bucket(requests=requests, seconds=seconds, burst=requests)

    assert (bucket.rate, bucket.retry_seconds) == (rate, retry)


@given(st.integers(1, 3000), st.integers(1, 3600), st.integers(1, 50))
def test_retry_after_is_long_enough_and_no_second_too_long(requests: int, seconds: int, burst: int) -> None:
    bucket = Bucket(requests=requests, seconds=seconds, burst=burst)
    if not bucket.expressible:
        with pytest.raises(ValueError, match="not a whole number"):
            _ = bucket.rate
        return

    needed = milliseconds(bucket)

    assert needed <= bucket.retry_seconds * 1000 < needed + 1000


def test_five_in_a_minute_and_five_at_once_can_be_said() -> None:
    limits = settings({"rateLimits": {"v1": {"requests": 5, "seconds": 60, "concurrent": 5}}}).rate_limits

    assert limits.groups["v1"].rate == Bucket(requests=5, seconds=60, burst=5)
    assert limits.groups["v1"].concurrent == 5
    zones = edge_limits(limits)
    assert [(zone.rate, zone.burst) for zone in zones.rates["v1"]] == [("400r/s", 799), ("5r/m", 4)]
    assert [zone.most for zone in zones.connections["v1"]] == [400, 5]


def test_a_new_stack_limits_every_group() -> None:
    limits = settings().rate_limits

    assert not limits.dry_run
    assert set(limits.groups) == set(limited_groups())
    assert all(group.rate and group.concurrent for group in limits.groups.values())
    assert all(limits.groups[name].address_rate for name in CREDENTIAL_GROUPS)
    assert not any(limits.groups[name].address_rate for name in ADDRESS_GROUPS)
    # The smoke tests send 170 requests in ten seconds, from one address.
    assert all(
        group.rate and group.rate.burst >= 170
        for name, group in limits.groups.items()
        if name in {"v1", "console"}
    )


def test_zero_turns_limits_off() -> None:
    off = {"requests": 0, "concurrent": 0}
    given_groups = {
        name: {**off, **(CREDENTIAL if name in CREDENTIAL_GROUPS else {})} for name in limited_groups()
    }

    zones = edge_limits(settings({"rateLimits": given_groups}).rate_limits)

    assert (zones.rate_zones, zones.connection_zones) == ((), ())


@pytest.mark.parametrize(("active", "given_count", "found"), [(0, 7, 7), (5, 7, 5), (5, 3, 3), (5, 0, 5)])
def test_the_edge_says_429_before_dify_says_400(active: int, given_count: int, found: int) -> None:
    plain = {
        "limits": {"activeRequests": active},
        "rateLimits": {group: {"concurrent": given_count} for group in ("v1", "api", "console")},
    }

    groups = settings(plain).rate_limits.groups

    assert [groups[group].concurrent for group in ("v1", "api", "console")] == [found, found, given_count]


def test_zones_are_named_after_group_and_key() -> None:
    zones = edge_limits(settings().rate_limits)
    every: list[RateZone | ConnectionZone] = [*zones.rate_zones, *zones.connection_zones]

    assert len({zone.name for zone in every}) == len(every)
    keys: dict[str, set[str]] = {}
    for zone in every:
        keys.setdefault(zone.name.rsplit("_", 1)[1], set()).add(zone.key)
    assert all(len(found) == 1 for found in keys.values())


def test_addresses_are_asked_before_credentials() -> None:
    zones = edge_limits(settings().rate_limits)

    for group in CREDENTIAL_GROUPS:
        assert [zone.key == ADDRESS_KEY for zone in zones.rates[group]] == [True, False]
        assert [zone.key == ADDRESS_KEY for zone in zones.connections[group]] == [True, False]


def test_the_longest_wait_of_all_that_applies_is_told() -> None:
    plain = {
        "rateLimits": {
            "console": {"requests": 5, "seconds": 60, "addressRequests": 100},
            "login": {"requests": 30, "seconds": 60},
        }
    }

    zones = edge_limits(settings(plain).rate_limits)

    assert zones.retry_at(("login",)) == 2
    assert zones.retry_at(("console", "login")) == 13
    assert zones.retry_at(("console", SIGN_IN_BY_GET)) == 13


MALFORMED: list[tuple[dict[str, Any], str, str]] = [
    (
        {"v1": {"requests": 7, "seconds": 45}},
        "v1.requests",
        "use requests 9 or 10 with seconds 60 and burst 7",
    ),
    (
        {"login": {"requests": 10, "seconds": 3600}},
        "login.requests",
        "use requests 1 with seconds 60 and burst 10",
    ),
    ({"v1": {"addressRequests": 7000, "addressSeconds": 13}}, "v1.addressRequests", "32307 or 32308"),
    ({"v1": {"requests": -1}}, "v1.requests", "0 to 1000000"),
    ({"v1": {"requests": "five"}}, "v1.requests", "whole number"),
    ({"v1": {"seconds": 0}}, "v1.seconds", "1 to 3600"),
    ({"v1": {"seconds": 86400}}, "v1.seconds", "1 to 3600"),
    ({"v1": {"requests": 0, "burst": 10}}, "v1.burst", "there is no rate"),
    ({"v1": {"concurrent": 70000}}, "v1.concurrent", "0 to 65535"),
    ({"v1": {"addressRequests": 10}}, "v1.addressRequests", "all credentials of an address together"),
    ({"v1": {"burst": 900}}, "v1.addressRequests", "raise it"),
    ({"v1": {"concurrent": 500}}, "v1.addressConcurrent", "or use 0 for none"),
    ({"login": {"addressRequests": 10}}, "login.addressRequests", "no such setting"),
    ({"v1": {"request": 10}}, "v1.request", "did you mean rateLimits.v1.requests, "),
    ({"v2": {}}, "v2", "did you mean rateLimits.v1, "),
    ({"v1": 5}, "v1", "not an object"),
    ({"dryRun": "maybe"}, "dryRun", "true or false"),
]


@pytest.mark.parametrize(("given_limits", "key", "hint"), MALFORMED)
def test_malformed_limit_gives_one_clear_error(given_limits: dict[str, Any], key: str, hint: str) -> None:
    problems = told({"rateLimits": given_limits})

    assert len(problems) == 1, problems
    assert problems[0].startswith(f"dify:rateLimits.{key}:")
    assert hint in problems[0]
