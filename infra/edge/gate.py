"""The gate at the edge: which locations are behind it, and what else the templates read.

nginx sends a subrequest to the gateway for each request (`/gate`, on a port of its own) and acts on its result: without
a session, a page is redirected to the sign-in, and any other request gets a 401 in the shape of its route group.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from dify_gateway.gate_config import PREFIX
from infra.catalogue import route_groups
from infra.catalogue.services import GATEWAY
from infra.edge.limits import ADDRESS_KEY, ExtraLimits
from infra.edge.oauth import GATEWAY_INTERNAL
from infra.settings.gate import Gate
from infra.settings.rate_limits import Bucket, GroupLimits

# A sign-in that has begun is stored for ten minutes. All users of an office may share one address, and sign in at the
# same time.
SIGN_IN_LIMITS = GroupLimits(rate=Bucket(requests=10, seconds=1, burst=200), concurrent=50)
# Checks of sessions, by address: a page of the console loads a hundred files at the same time.
SESSIONS = "gate_sessions"
SESSION_LIMITS = GroupLimits(rate=Bucket(requests=1000, seconds=1, burst=2000))


@dataclass(frozen=True, kw_only=True)
class EdgeGate:
    """The gate as the templates read it, as `edge.gate`.

    `cookie` is the name of the session's cookie, `groups` are the route groups behind the gate besides the console's.
    """

    cookie: str
    groups: tuple[str, ...]
    prefix: str = PREFIX
    gateway: str = GATEWAY
    internal: str = GATEWAY_INTERNAL
    sessions: str = SESSIONS
    seconds: int = 2

    def guards(self, *, group: str, console: bool) -> bool:
        """Tell whether a location is behind the gate."""
        return console or group in self.groups


def edge_gate(gate: Gate | None) -> EdgeGate | None:
    """Return what the edge needs for the gate, None without one."""
    if gate is None:
        return None
    return EdgeGate(
        # The gateway derives the same name.
        cookie=f"{'__Host-' if gate.secure else ''}dify_gate",
        groups=tuple(one.name for one in route_groups.TABLE if one.web_app) if gate.web_app else (),
    )


def gate_limits(gate: Gate | None) -> Mapping[str, ExtraLimits]:
    """Return the limits of the gate by their names, empty without one."""
    if gate is None:
        return MappingProxyType({})
    by_address = {route_groups.GATE: SIGN_IN_LIMITS, SESSIONS: SESSION_LIMITS}
    return MappingProxyType(
        {name: ExtraLimits(key=ADDRESS_KEY, limits=limits) for name, limits in by_address.items()}
    )
