"""How long the rate limits of a stack make a run wait, and which tests a limit leaves no room for.

The edge counts by credential, and by address where there is none. A run has one key and one address, so its requests
share two buckets of a route group, and the exported limits tell how fast those drain.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from infra.catalogue.route_groups import CONSOLE, SERVICE_API, WEB_APP_API, limited_groups
from smoke_tests.limits import LLM, NEW_TOKENS, OAUTH, REFUSED_TOKENS, RateLimits, setting_of
from smoke_tests.target import Target

# For limits without exports: those of an address that is tested from outside, of OAuth and of the LLM proxy.
SPARE_SECONDS = 120.0
# A limit that makes the run wait longer leaves its tests out.
LONGEST_SECONDS = 900.0
# About as many requests of a run share a bucket, with some to spare; counted in tests/unit/test_smoke_room.py.
REQUESTS: Mapping[str, int] = MappingProxyType(
    {
        **dict.fromkeys(limited_groups(), 2),
        SERVICE_API: 60,
        CONSOLE: 14,
        WEB_APP_API: 4,
        OAUTH: 24,
        REFUSED_TOKENS: 8,
        NEW_TOKENS: 12,
        LLM: 12,
    }
)
# The file of a test -> the limits that it needs room in.
NEEDED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        **dict.fromkeys(("authentication", "chat", "parts", "browser"), (SERVICE_API,)),
        **dict.fromkeys(("console", "gate"), (CONSOLE,)),
        "oauth": (SERVICE_API, OAUTH, REFUSED_TOKENS, NEW_TOKENS),
        "llm": (LLM,),
    }
)


@dataclass(frozen=True, kw_only=True)
class Wait:
    """The wait for a bucket in seconds at most, and its rate: `requests` in `per` seconds, with `scope` in words."""

    seconds: float = 0.0
    requests: int = 0
    per: int = 0
    scope: str = ""


def longest_wait(limits: RateLimits, group: str) -> Wait:
    """Return the longer wait of a limit's two buckets: that of a credential, and that of the address."""
    found, count = limits.bucket(group), REQUESTS.get(group, 0)
    waits = [Wait()]
    for requests, seconds, burst, scope in (
        ("requests", "seconds", "burst", ""),
        ("addressRequests", "addressSeconds", "addressBurst", " for one address"),
    ):
        if rate := found.get(requests, 0):
            waiting, per = max(0, count - found.get(burst, 0)), found.get(seconds, 1)
            waits.append(Wait(seconds=waiting * max(per / rate, 0.0), requests=rate, per=per, scope=scope))
    return max(waits, key=lambda one: one.seconds)


def seconds_for(limits: RateLimits, group: str) -> float:
    """Return how long the run waits for a limit, in seconds at most; 0 without one."""
    return longest_wait(limits, group).seconds


def patience_for(target: Target | None, given: float | None) -> float:
    """Return the seconds that a run may wait for limits: those given, else what the target's limits require."""
    if given is not None:
        return given
    if target is None or target.deployment is None:
        return SPARE_SECONDS
    limits = target.deployment.rate_limits
    needed = (seconds_for(limits, group) for group in REQUESTS)
    return SPARE_SECONDS + sum(one for one in needed if one <= LONGEST_SECONDS)


def no_room(target: Target, part: str, given: float | None) -> str:
    """Return why the limits leave no room for the tests of a file; empty when they do."""
    if target.deployment is None:
        return ""
    limits, most = target.deployment.rate_limits, max(LONGEST_SECONDS, given or 0.0)
    for name in NEEDED.get(part, ()):
        wait = longest_wait(limits, name)
        if wait.seconds > most:
            return (
                f"they would wait {wait.seconds:.0f} s for the limit of {wait.requests} requests in {wait.per} s"
                f"{wait.scope} ({setting_of(name)}), {most:.0f} s at most: give "
                f"--patience {wait.seconds + SPARE_SECONDS:.0f}"
            )
    return ""
