"""The gate at the edge: which locations are behind it, and what else the templates read.

nginx asks the gateway about each request (`/gate`, a port of its own) and decides alone what an answer means: a page
leads to the sign-in, a call hears 401 in the shape of its route group.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from dify_gateway.gate_config import PREFIX
from infra.edge.limits import ADDRESS_KEY, Counted
from infra.edge.oauth import GATEWAY, GATEWAY_INTERNAL, MAX_BODY_KILOBYTES
from infra.edge.routes import EdgeRoute
from infra.settings.gate import Gate
from infra.settings.rate_limits import Bucket, GroupLimits

# The route group of the sign-in's pages.
GROUP = "gate"
# Route groups of published web apps: their pages, and the API that these call.
WEB_APP_GROUPS = ("api", "web")
# A sign-in waits for the provider up to three times: its documents, the code, what it tells besides.
SIGN_IN_SECONDS = 20
# Each begun sign-in is kept for ten minutes. An office behind one address begins its day at the same time.
SIGN_IN_LIMITS = GroupLimits(rate=Bucket(requests=10, seconds=1, burst=200), concurrent=50)
# Sessions that nginx asks about, by address: a page of the console loads a hundred files at once.
ASKED = "gate_asked"
ASKED_LIMITS = GroupLimits(rate=Bucket(requests=1000, seconds=1, burst=2000))


@dataclass(frozen=True, kw_only=True)
class EdgeGate:
    """The gate as the templates read it, as `edge.gate`. `cookie` is the name of the session's cookie."""

    cookie: str
    groups: tuple[str, ...]
    prefix: str = PREFIX
    gateway: str = GATEWAY
    internal: str = GATEWAY_INTERNAL
    asked: str = ASKED
    seconds: int = 2

    def guards(self, *, group: str, console: bool) -> bool:
        """Tell whether a location is behind the gate."""
        return console or group in self.groups


def edge_gate(gate: Gate | None) -> EdgeGate | None:
    """Return what the edge needs for the gate, None without one."""
    if gate is None:
        return None
    return EdgeGate(
        # The gateway names it in the same way.
        cookie=f"{'__Host-' if gate.secure else ''}dify_gate",
        groups=WEB_APP_GROUPS if gate.web_app else (),
    )


def gate_routes(gate: Gate | None) -> tuple[EdgeRoute, ...]:
    """Return the routes of the sign-in's pages, none without a gate."""
    if gate is None:
        return ()
    return (
        EdgeRoute(
            prefix=f"{PREFIX}/",
            group=GROUP,
            service=GATEWAY,
            max_body_megabytes=None,
            max_body_kilobytes=MAX_BODY_KILOBYTES,
            read_timeout_seconds=SIGN_IN_SECONDS,
        ),
    )


def gate_limits(gate: Gate | None) -> Mapping[str, Counted]:
    """Return what is counted because of the gate, by the name under which it applies; nothing without one."""
    if gate is None:
        return MappingProxyType({})
    by_address = {GROUP: SIGN_IN_LIMITS, ASKED: ASKED_LIMITS}
    return MappingProxyType(
        {name: Counted(key=ADDRESS_KEY, limits=limits) for name, limits in by_address.items()}
    )
