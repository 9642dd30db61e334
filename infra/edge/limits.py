"""The zones of nginx that implement the limits: each has a key to count by, and applies to some locations."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from infra.catalogue.route_groups import SIGN_IN_LIMIT, LimitKey, limit_keys
from infra.settings.rate_limits import Bucket, GroupLimits, RateLimits

# Variables of http/limits.conf. An empty key is not counted at all.
ADDRESS_KEY = "$limit_address"
# The address, except for requests that only read.
ATTEMPT_KEY = "$limit_attempt"
KEYS: Mapping[LimitKey, str] = MappingProxyType(
    {
        LimitKey.TOKEN: "$limit_token",
        LimitKey.PASSPORT: "$limit_passport",
        LimitKey.SESSION: "$limit_session",
        LimitKey.ADDRESS: ADDRESS_KEY,
    }
)
# The limit on attempts to sign in where GET requests count too: the steps of a sign-in by a provider are GET requests.
SIGN_IN_BY_GET = f"{SIGN_IN_LIMIT} by GET"
# About 32 000 keys of at most 48 bytes; the oldest is dropped for a new one.
RATE_ZONE_SIZE = "4m"
# It holds requests under way only: room for more of them than the workers have connections.
CONNECTION_ZONE_SIZE = "4m"
# The wait after a refusal for concurrency: when one of the requests under way ends is unknown.
CONNECTION_RETRY_SECONDS = 2


@dataclass(frozen=True, kw_only=True)
class RateZone:
    """A zone of limit_req. `burst` is nginx's: how many requests besides the first are let through without delay."""

    name: str
    key: str
    rate: str
    burst: int
    size: str = RATE_ZONE_SIZE


@dataclass(frozen=True, kw_only=True)
class ConnectionZone:
    """A zone of limit_conn, and `most`: how many requests of one key may be under way."""

    name: str
    key: str
    most: int
    size: str = CONNECTION_ZONE_SIZE


@dataclass(frozen=True, kw_only=True)
class ExtraLimits:
    """Limits besides those of `dify:rateLimits`. `key` is the nginx variable to count by, `size` that of each zone."""

    key: str
    limits: GroupLimits
    size: str = RATE_ZONE_SIZE


@dataclass(frozen=True, kw_only=True)
class EdgeLimits:
    """Zones by the limit they implement: a limit's name, or `SIGN_IN_BY_GET`.

    The zone of the address comes first: a request above the address's limit adds no entry for a made-up credential.
    `retry_seconds` are the waits after which the rates of a limit let a request through.
    """

    rates: Mapping[str, tuple[RateZone, ...]]
    connections: Mapping[str, tuple[ConnectionZone, ...]]
    retry_seconds: Mapping[str, int]
    dry_run: bool = False
    connection_retry_seconds: int = CONNECTION_RETRY_SECONDS

    @property
    def rate_zones(self) -> tuple[RateZone, ...]:
        """Every zone of limit_req."""
        return tuple(zone for zones in self.rates.values() for zone in zones)

    @property
    def connection_zones(self) -> tuple[ConnectionZone, ...]:
        """Every zone of limit_conn."""
        return tuple(zone for zones in self.connections.values() for zone in zones)

    def rates_at(self, names: Iterable[str], *, verified: bool = False) -> tuple[RateZone, ...]:
        """Return the zones of limit_req where all of `names` apply.

        `verified` leaves out those of the address: they exist because an unverified credential can be made up.
        """
        found = (zone for name in names for zone in self.rates[name])
        return tuple(zone for zone in found if not (verified and zone.key == ADDRESS_KEY))

    def connections_at(self, names: Iterable[str], *, verified: bool = False) -> tuple[ConnectionZone, ...]:
        """Return the zones of limit_conn where all of `names` apply; `verified` as in `rates_at`."""
        found = (zone for name in names for zone in self.connections[name])
        return tuple(zone for zone in found if not (verified and zone.key == ADDRESS_KEY))

    def two_steps(self, names: Iterable[str], *, verified: bool = False) -> bool:
        """Tell whether `names` limit both rate and concurrency; `verified` as in `rates_at`."""
        names = tuple(names)
        return bool(self.rates_at(names, verified=verified) and self.connections_at(names, verified=verified))

    def retry_at(self, names: Iterable[str]) -> int:
        """Return the wait, in seconds, after which every rate of `names` lets a request through."""
        return max(self.retry_seconds[name] for name in names)


def edge_limits(limits: RateLimits, extra: Mapping[str, ExtraLimits] = MappingProxyType({})) -> EdgeLimits:
    """Return the zones of all limits that are on; `extra` are limits besides those of `dify:rateLimits`, by name."""
    rates: dict[str, tuple[RateZone, ...]] = {}
    connections: dict[str, tuple[ConnectionZone, ...]] = {}
    retry: dict[str, int] = {}
    for name, limit in limits.groups.items():
        for place, key in _places(name):
            buckets = (("address_rate", ADDRESS_KEY, limit.address_rate), ("rate", key, limit.rate))
            counts = (
                ("address_connections", ADDRESS_KEY, limit.address_concurrent),
                ("connections", key, limit.concurrent),
            )
            rates[place] = tuple(
                _rate_zone(f"{kind}_{name}", counted_by, bucket)
                for kind, counted_by, bucket in buckets
                if bucket
            )
            connections[place] = tuple(
                ConnectionZone(name=_name(f"{kind}_{name}", counted_by), key=counted_by, most=most)
                for kind, counted_by, most in counts
                if most
            )
            retry[place] = limit.retry_seconds
    for name, one in extra.items():
        rate, most = one.limits.rate, one.limits.concurrent
        rates[name] = (_rate_zone(f"rate_{name}", one.key, rate, one.size),) if rate else ()
        zone = _name(f"connections_{name}", one.key)
        connections[name] = (
            (ConnectionZone(name=zone, key=one.key, most=most, size=one.size),) if most else ()
        )
        retry[name] = one.limits.retry_seconds
    return EdgeLimits(rates=rates, connections=connections, retry_seconds=retry, dry_run=limits.dry_run)


def _places(name: str) -> Iterator[tuple[str, str]]:
    """Yield where a limit applies, each with the key to count by."""
    if name == SIGN_IN_LIMIT:
        yield name, ATTEMPT_KEY
        yield SIGN_IN_BY_GET, ADDRESS_KEY
    else:
        yield name, KEYS[limit_keys()[name]]


def _rate_zone(name: str, key: str, bucket: Bucket, size: str = RATE_ZONE_SIZE) -> RateZone:
    return RateZone(name=_name(name, key), key=key, rate=bucket.rate, burst=bucket.burst - 1, size=size)


def _name(name: str, key: str) -> str:
    """Return a zone's name with a digest of its key: nginx refuses to reload a zone whose key changed."""
    return f"{name}_{hashlib.sha256(key.encode()).hexdigest()[:6]}"
