"""The rate limits that are in force, as a deployed stack exports them, each in a few words."""

from collections.abc import Mapping
from typing import Any


def limits_of(outputs: Mapping[str, Any]) -> dict[str, str]:
    """Return the limits by what they hold for; those that are off are left out."""
    rates = outputs.get("rateLimits") or {}
    dry = " (only counted: rateLimits.dryRun)" if rates.get("dryRun") else ""
    found = {
        str(group): f"{words}{dry}"
        for group, one in (rates.get("groups") or {}).items()
        if (words := _group(one))
    }
    of_oauth = (outputs.get("oauth") or {}).get("limits") or {}
    if words := _bucket(of_oauth.get("address") or {}, *BUCKET):
        found["oauth"] = f"{words} for an address"
    if words := _bucket((outputs.get("llm") or {}).get("limits") or {}, *BUCKET):
        found["llm"] = f"{words} for a caller"
    return found


# The members of an exported rate, and of the one for addresses.
BUCKET = ("requests", "seconds", "burst")
ADDRESS_BUCKET = ("addressRequests", "addressSeconds", "addressBurst")


def _group(one: Mapping[str, Any]) -> str:
    parts = [
        _bucket(one, *BUCKET),
        f"{one['concurrent']:.0f} at a time" if one.get("concurrent") else "",
        f"{of_address} for an address" if (of_address := _bucket(one, *ADDRESS_BUCKET)) else "",
        f"{one['addressConcurrent']:.0f} at a time for an address" if one.get("addressConcurrent") else "",
    ]
    return ", ".join(part for part in parts if part)


def _bucket(one: Mapping[str, Any], requests: str, seconds: str, burst: str) -> str:
    # Numbers of the state are floats.
    if not one.get(requests):
        return ""
    more = f" + {one[burst]:.0f}" if one.get(burst) else ""
    return f"{one[requests]:.0f}{more} in {one.get(seconds) or 0:.0f} s"
