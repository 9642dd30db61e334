"""From limits to nginx's zones: what is counted under which key, and where it applies."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from infra.settings.rate_limits import Bucket, GroupLimits, RateLimits

# Variables of http/limits.conf. An empty key is not counted at all.
ADDRESS_KEY = "$limit_address"
# The address, except for requests that only read.
ATTEMPT_KEY = "$limit_attempt"
KEYS: Mapping[str, str] = MappingProxyType(
    {
        "v1": "$limit_token",
        "openapi": "$limit_token",
        "api": "$limit_passport",
        "console": "$limit_session",
        "files": ADDRESS_KEY,
        "mcp": ADDRESS_KEY,
        "triggers": ADDRESS_KEY,
        "login": ATTEMPT_KEY,
    }
)
# Sign-in by a provider comes as GET.
READS = "login reads"
# About 32 000 keys of at most 48 bytes; the oldest makes room for a new one.
RATE_ZONE = "4m"
# Only requests under way are in it: more than the workers have connections.
BUSY_ZONE = "4m"
# How long until one of many requests is done cannot be known.
BUSY_RETRY_SECONDS = 2


@dataclass(frozen=True, kw_only=True)
class RateZone:
    """A zone of limit_req. `burst` is nginx's: what may come on top of one request."""

    name: str
    key: str
    rate: str
    burst: int
    size: str = RATE_ZONE


@dataclass(frozen=True, kw_only=True)
class BusyZone:
    """A zone of limit_conn, and how many requests of one key it lets in at the same time."""

    name: str
    key: str
    most: int
    size: str = BUSY_ZONE


@dataclass(frozen=True, kw_only=True)
class Counted:
    """Limits besides those of the route groups, with nginx's variable of who is counted and the zones' size."""

    key: str
    limits: GroupLimits
    size: str = RATE_ZONE


@dataclass(frozen=True, kw_only=True)
class EdgeLimits:
    """Zones by what they apply to: a limit group, or `READS`.

    Addresses come first in each: who is over the limit of the address leaves no trace of the made-up credential.
    `retry_seconds` are the waits after which the rates of one let a request through.
    """

    rates: Mapping[str, tuple[RateZone, ...]]
    busy: Mapping[str, tuple[BusyZone, ...]]
    retry_seconds: Mapping[str, int]
    dry_run: bool = False
    busy_retry_seconds: int = BUSY_RETRY_SECONDS

    @property
    def rate_zones(self) -> tuple[RateZone, ...]:
        """Every zone of limit_req."""
        return tuple(zone for zones in self.rates.values() for zone in zones)

    @property
    def busy_zones(self) -> tuple[BusyZone, ...]:
        """Every zone of limit_conn."""
        return tuple(zone for zones in self.busy.values() for zone in zones)

    def rates_at(self, names: Iterable[str], *, verified: bool = False) -> tuple[RateZone, ...]:
        """Return the zones of limit_req where all of `names` apply.

        `verified`: without those of the address, which are there because credentials can be made up.
        """
        found = (zone for name in names for zone in self.rates[name])
        return tuple(zone for zone in found if not (verified and zone.key == ADDRESS_KEY))

    def busy_at(self, names: Iterable[str], *, verified: bool = False) -> tuple[BusyZone, ...]:
        """Return the zones of limit_conn where all of `names` apply; `verified` as in `rates_at`."""
        found = (zone for name in names for zone in self.busy[name])
        return tuple(zone for zone in found if not (verified and zone.key == ADDRESS_KEY))

    def two_steps(self, names: Iterable[str], *, verified: bool = False) -> bool:
        """Tell whether both kinds of limits apply where all of `names` do; `verified` as in `rates_at`."""
        names = tuple(names)
        return bool(self.rates_at(names, verified=verified) and self.busy_at(names, verified=verified))

    def retry_at(self, names: Iterable[str]) -> int:
        """Return the wait, in seconds, after which every rate of `names` lets a request through."""
        return max(self.retry_seconds[name] for name in names)


def edge_limits(limits: RateLimits, more: Mapping[str, Counted] = MappingProxyType({})) -> EdgeLimits:
    """Return the zones of all limits that are on; `more` are limits besides those of the route groups, by name."""
    rates: dict[str, tuple[RateZone, ...]] = {}
    busy: dict[str, tuple[BusyZone, ...]] = {}
    retry: dict[str, int] = {}
    for group, limit in limits.groups.items():
        for place, key in _places(group):
            buckets = (("address_rate", ADDRESS_KEY, limit.address_rate), ("rate", key, limit.rate))
            counts = (
                ("address_busy", ADDRESS_KEY, limit.address_concurrent),
                ("busy", key, limit.concurrent),
            )
            rates[place] = tuple(
                _rate_zone(f"{kind}_{group}", under, bucket) for kind, under, bucket in buckets if bucket
            )
            busy[place] = tuple(
                BusyZone(name=_name(f"{kind}_{group}", under), key=under, most=most)
                for kind, under, most in counts
                if most
            )
            retry[place] = limit.retry_seconds
    for name, counted in more.items():
        rate, most = counted.limits.rate, counted.limits.concurrent
        rates[name] = (_rate_zone(f"rate_{name}", counted.key, rate, counted.size),) if rate else ()
        busy_name = _name(f"busy_{name}", counted.key)
        busy[name] = (
            (BusyZone(name=busy_name, key=counted.key, most=most, size=counted.size),) if most else ()
        )
        retry[name] = counted.limits.retry_seconds
    return EdgeLimits(rates=rates, busy=busy, retry_seconds=retry, dry_run=limits.dry_run)


def _places(group: str) -> Iterator[tuple[str, str]]:
    """Yield what a group's limits apply to, each with its key."""
    yield group, KEYS[group]
    if group == "login":
        yield READS, ADDRESS_KEY


def _rate_zone(name: str, key: str, bucket: Bucket, size: str = RATE_ZONE) -> RateZone:
    return RateZone(name=_name(name, key), key=key, rate=bucket.rate, burst=bucket.burst - 1, size=size)


def _name(name: str, key: str) -> str:
    """Name a zone after its key too: a reload does not take a known zone with another key."""
    return f"{name}_{hashlib.sha256(key.encode()).hexdigest()[:6]}"
