"""The settings of the edge's rate and concurrency limits: `dify:rateLimits`.

nginx counts by a leaky bucket: `burst` requests immediately, then one each time a drop has left. It knows whole
requests a second or a minute, and works with thousandths of them; this module computes with nginx's numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from infra.catalogue import route_groups
from infra.settings.reader import Section

MAX_REQUESTS = 1_000_000
MAX_SECONDS = 3600
# nginx counts connections in 16 bits.
MAX_CONCURRENT = 65_535
MINUTE = 60
THOUSANDTHS = 1000


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """`requests` in `seconds`, `burst` of them together after a pause. All three are positive."""

    requests: int
    seconds: int
    burst: int

    @property
    def per_minute(self) -> int:
        """Requests a minute, rounded down."""
        return self.requests * MINUTE // self.seconds

    @property
    def expressible(self) -> bool:
        """Whether nginx knows this rate."""
        return self.per_minute * self.seconds == self.requests * MINUTE

    @property
    def rate(self) -> str:
        """The rate as nginx reads it. Raises ValueError when it is not expressible."""
        if not self.expressible:
            raise ValueError(f"{self.requests} requests in {self.seconds} s is not a whole number a minute")
        per_second, rest = divmod(self.requests, self.seconds)
        return f"{self.per_minute}r/m" if rest else f"{per_second}r/s"

    @property
    def retry_seconds(self) -> int:
        """Whole seconds after which a client that received a 429 is admitted.

        nginx rounds the rate down to thousandths of a request a second. 5r/m are 83 of them, so that a drop
        leaves in 12.05 s: after 12 s it is still there.
        """
        thousandths = self.requests * THOUSANDTHS // self.seconds
        return -(-THOUSANDTHS // thousandths)


@dataclass(frozen=True, kw_only=True)
class GroupLimits:
    """Limits of a route group; None and 0 mean that there is none.

    `rate` and `concurrent` hold for a credential, or for an address where no credential counts; `address_rate`
    and `address_concurrent` for all credentials of one address together.
    """

    rate: Bucket | None = None
    concurrent: int = 0
    address_rate: Bucket | None = None
    address_concurrent: int = 0

    @property
    def retry_seconds(self) -> int:
        """The wait in seconds after which both rates admit a request; 1 without a rate."""
        return max([1, *(bucket.retry_seconds for bucket in (self.rate, self.address_rate) if bucket)])


@dataclass(frozen=True, kw_only=True)
class RateLimits:
    """Limits by group; with `dry_run` they are only logged."""

    dry_run: bool
    groups: Mapping[str, GroupLimits]


def read_rate_limits(section: Section, *, active_requests: int) -> RateLimits:
    """Read `dify:rateLimits`.

    `active_requests` is Dify's own limit of an app, 0 without one. Dify answers it with a 400 and no
    Retry-After, so the edge does not let one credential reach it.
    """
    groups = {}
    table = route_groups.groups()
    for name in route_groups.limited_groups():
        given = section.section(name, section.defaults[name])
        counted_by_dify = name in table and table[name].app_limit
        groups[name] = read_group(given, active_requests if counted_by_dify else 0)
    return RateLimits(dry_run=section.boolean("dryRun"), groups=MappingProxyType(groups))


def read_group(section: Section, active_requests: int) -> GroupLimits:
    """Read the limits of one group; those of an address only where the section's defaults have them."""
    rate = _bucket(section, "requests", "seconds", "burst")
    concurrent = section.integer("concurrent", 0, MAX_CONCURRENT)
    if active_requests:
        concurrent = min(concurrent or active_requests, active_requests)
    if "addressRequests" not in section.defaults:
        return GroupLimits(rate=rate, concurrent=concurrent)
    address = _bucket(section, "addressRequests", "addressSeconds", None)
    address_concurrent = section.integer("addressConcurrent", 0, MAX_CONCURRENT)
    if rate and address and (address.burst < rate.burst or address.per_minute < rate.per_minute):
        section.problems.add(
            section.key("addressRequests"),
            address.requests,
            "less than one credential may send",
            "it holds for all credentials of an address together: raise it, lower addressSeconds, or use 0 for none",
        )
    if address_concurrent and concurrent > address_concurrent:
        section.problems.add(
            section.key("addressConcurrent"),
            address_concurrent,
            "less than one credential may have open",
            "it holds for all credentials of an address together: raise it, or use 0 for none",
        )
    return GroupLimits(
        rate=rate, concurrent=concurrent, address_rate=address, address_concurrent=address_concurrent
    )


def read_rate(section: Section) -> Bucket | None:
    """Read a rate that stands alone: `requests`, `seconds`, `burst`. None when it is off, or reported."""
    return _bucket(section, "requests", "seconds", "burst")


def _bucket(section: Section, requests: str, seconds: str, burst: str | None) -> Bucket | None:
    """Read a rate; None when it is off, or reported."""
    count = section.integer(requests, 0, MAX_REQUESTS)
    period = section.integer(seconds, 1, MAX_SECONDS)
    at_once = section.integer(burst, 0, MAX_REQUESTS) if burst else 0
    if not count:
        if burst and at_once:
            section.problems.add(
                section.key(burst),
                at_once,
                f"there is no rate ({requests} is 0)",
                f"set {requests}, or 0 here",
            )
        return None
    bucket = Bucket(requests=count, seconds=period, burst=at_once or count)
    if bucket.expressible:
        return bucket
    low = bucket.per_minute
    nearest = f"{low} or {low + 1}" if low else "1"
    keeping = f" and {burst} {bucket.burst}" if burst else ""
    section.problems.add(
        section.key(requests),
        f"{count} in {period} s",
        "nginx counts whole requests a second or a minute",
        f"use {requests} {nearest} with {seconds} {MINUTE}{keeping}",
    )
    return None
