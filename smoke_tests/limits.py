"""The limits that a stack exports."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

# Limits of other settings than dify:rateLimits, by the name that this module gives them.
OAUTH, REFUSED_TOKENS, NEW_TOKENS, LLM = "oauth", "oauth-refused", "oauth-new", "llm"
SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        OAUTH: "dify:oauth.limits.address",
        REFUSED_TOKENS: "dify:oauth.limits.refusedTokens",
        NEW_TOKENS: "dify:oauth.limits.newTokens",
        LLM: "dify:llm.limits",
    }
)

Bucket = Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class RateLimits:
    """The edge's rate limits by route group; members as in `infra/exports.py`, 0 without a limit.

    `others` are limits of OAuth and of the LLM proxy. `failures` is how many wrong secrets a client may send before it
    is refused; None when unknown.
    """

    dry_run: bool
    groups: Mapping[str, Bucket]
    others: Mapping[str, Bucket] = field(default_factory=dict)
    failures: int | None = None

    def bucket(self, name: str) -> Bucket:
        """Return a limit by the name of its group, or by one of this module; empty when there is none."""
        if name in self.groups:
            return {} if self.dry_run else self.groups[name]
        return self.others.get(name, {})


def setting_of(name: str) -> str:
    """Return the setting of a limit."""
    return SETTINGS.get(name, f"dify:rateLimits.{name}")


def read_limits(
    exported: Mapping[str, Any], oauth: Mapping[str, Any] | None, llm: Mapping[str, Any] | None
) -> RateLimits:
    """Return the limits of the exports `rateLimits`, `oauth` and `llm`. Earlier versions of the kit export fewer."""
    of_oauth = (oauth or {}).get("limits", {})
    others = {
        OAUTH: of_oauth.get("address"),
        REFUSED_TOKENS: of_oauth.get("refusedTokens"),
        NEW_TOKENS: of_oauth.get("newTokens"),
        LLM: (llm or {}).get("limits"),
    }
    failures = of_oauth.get("failures", {}).get("client")
    return RateLimits(
        dry_run=bool(exported["dryRun"]),
        groups={name: _whole(limits) for name, limits in exported["groups"].items()},
        others={name: _whole(limits) for name, limits in others.items() if limits},
        failures=None if failures is None else int(failures),
    )


def _whole(limits: Mapping[str, Any]) -> Bucket:
    """Return a limit with integers: Pulumi's numbers are floats."""
    return {name: int(value) for name, value in limits.items()}
