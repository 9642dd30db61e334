"""The settings of OAuth's limits that are not a tenant's: `dify:oauth.limits`.

nginx counts requests by address; wrong secrets are counted by the gateway, which alone knows that they are wrong.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from infra.catalogue.project import declared
from infra.settings.rate_limits import MAX_SECONDS, Bucket, GroupLimits, read_group, read_rate
from infra.settings.reader import Problems, Section

# What the gateway takes (dify_gateway.config).
MOST_OF_CLIENT, MOST_OF_ADDRESS = 10_000, 100_000


@dataclass(frozen=True, kw_only=True)
class Failures:
    """Failed authentications within `seconds`: of one client at one address, and of an address."""

    client: int
    address: int
    seconds: int

    def document(self) -> Mapping[str, int]:
        """Return them as the gateway's config.json has them."""
        return {
            "failures_per_client": self.client,
            "failures_per_address": self.address,
            "window_seconds": self.seconds,
        }


@dataclass(frozen=True, kw_only=True)
class OAuthLimits:
    """Limits by address; None means that there is none.

    `address` holds for the public endpoints under `/oauth/`, `refused` for answers to tokens that are not valid,
    `unknown` for tokens whose introspection result nginx does not have yet. `failures` are wrong secrets at the
    endpoints.
    """

    address: GroupLimits
    refused: Bucket | None
    unknown: Bucket | None
    failures: Failures


def read_oauth_limits(section: Section) -> OAuthLimits:
    """Read `dify:oauth.limits`."""

    def part(name: str) -> Section:
        return section.section(name, section.defaults[name])

    return OAuthLimits(
        address=read_group(part("address"), 0),
        refused=read_rate(part("refusedTokens")),
        unknown=read_rate(part("newTokens")),
        failures=_failures(part("failures")),
    )


def default_oauth_limits() -> OAuthLimits:
    """Return the limits of a stack that sets none."""
    given: Mapping[str, Any] = declared()["oauth"]["default"]["limits"]
    return read_oauth_limits(Section(Problems(), {}, given))


def _failures(section: Section) -> Failures:
    found = Failures(
        client=section.integer("client", 1, MOST_OF_CLIENT),
        address=section.integer("address", 1, MOST_OF_ADDRESS),
        seconds=section.integer("seconds", 1, MAX_SECONDS),
    )
    if found.address < found.client:
        section.problems.add(
            section.key("address"),
            found.address,
            "less than one client may fail",
            f"it holds for all clients of an address together: use {found.client} or more, or lower client",
        )
    return found
