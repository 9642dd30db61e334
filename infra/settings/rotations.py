"""Which secrets of the data tier and of Dify's services `dify-kit keys rotate` replaces, and how often it did.

The numbers are settings, so that plain Pulumi knows a rotation as well. The program exports them once every service
has the new value: a number that is higher in the settings than in the exports is a rotation that is not complete.
"""

from collections.abc import Mapping
from types import MappingProxyType

from infra.settings.reader import Section

ROTATIONS = "secretRotations"
# The names that the command takes, and the secrets that each replaces together.
ROTATED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "database": ("postgresPassword",),
        "redis": ("redisPassword",),
        "sandbox": ("sandboxApiKey",),
        "plugin": ("pluginDaemonKey", "pluginInnerApiKey"),
        "agent": ("agentServerSecretKey", "agentApiToken", "agentSandboxToken"),
        "vector-store": ("vectorStoreApiKey",),
        "admin": ("adminPassword",),
        "init": ("initPassword",),
    }
)
_MOST = 1_000_000_000


def read_rotations(top: Section) -> dict[str, int]:
    """Read how often each secret was rotated; those that never were are left out."""
    numbers = top.section(ROTATIONS, dict.fromkeys(ROTATED, 0))
    return {name: number for name in ROTATED if (number := numbers.integer(name, 0, _MOST))}
