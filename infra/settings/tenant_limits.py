"""Compares a tenant's limits with `dify:rateLimits.v1`, which holds for each of its tokens too."""

from infra.settings.rate_limits import Bucket, GroupLimits


def undercut(tenant: str, limits: GroupLimits, v1: GroupLimits) -> list[str]:
    """Return a warning for each limit of `v1` that one token of the tenant reaches before the tenant's own."""
    found = []
    if v1.rate and (limits.rate is None or _less(v1.rate, limits.rate)):
        found.append((_rate(v1.rate), _rate(limits.rate)))
    if v1.concurrent and (not limits.concurrent or v1.concurrent < limits.concurrent):
        found.append((f"{v1.concurrent} concurrent", f"{limits.concurrent or 'any number of'} concurrent"))
    return [
        f"dify:rateLimits.v1: {general} for each token is less than tenant {tenant} may have ({own}): one token cannot "
        f"use the tenant's limit; raise rateLimits.v1, or lower oauth.tenants.{tenant}"
        for general, own in found
    ]


def _less(one: Bucket, other: Bucket) -> bool:
    return one.per_minute < other.per_minute or one.burst < other.burst


def _rate(bucket: Bucket | None) -> str:
    if bucket is None:
        return "any number of requests"
    return f"{bucket.requests} requests in {bucket.seconds} s, {bucket.burst} of them together"
