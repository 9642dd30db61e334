"""The volumes of a stack, and how long each lasts. A volume belongs to the tier of the first service that mounts it."""

from collections.abc import Mapping
from types import MappingProxyType

from infra.catalogue.service import Keep

VOLUMES: Mapping[str, Keep] = MappingProxyType(
    {
        "app_storage": Keep.DATA,
        "postgres": Keep.DATA,
        "redis": Keep.DATA,
        "vector": Keep.DATA,
        "plugin_storage": Keep.DATA,
        "sandbox_dependencies": Keep.DATA,
        "local_sandbox_home": Keep.DATA,
        "local_sandbox_workspace": Keep.DATA,
        # Revoked tokens, and who is signed in.
        "gateway_redis": Keep.RECORDS,
        # The token counts of the LLM proxy's callers, for their budgets.
        "llm_usage": Keep.RECORDS,
        # The ACME account and its certificates, of which a CA issues a limited number.
        "acme": Keep.RECORDS,
        # Configurations, request bodies in transit, copies of certificates.
        "gateway": Keep.EPHEMERAL,
        "litellm": Keep.EPHEMERAL,
        "edge": Keep.EPHEMERAL,
        "edge_temp": Keep.EPHEMERAL,
        "certificates": Keep.EPHEMERAL,
        "challenges": Keep.EPHEMERAL,
    }
)
