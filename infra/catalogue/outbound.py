"""How each service that has a route to the outside uses `dify:outbound`, or why it does not.

`tests/unit/test_outbound.py` holds the table to the services: one that joins a network with a route out has its row.
"""

from collections.abc import Mapping
from enum import Flag, auto
from types import MappingProxyType

from infra.catalogue import data_services, services


class Way(Flag):
    """What a service gets of `dify:outbound`."""

    # Nothing: it sends no request to the outside.
    NONE = 0
    # The proxy in HTTP_PROXY, HTTPS_PROXY and NO_PROXY.
    VARIABLES = auto()
    # The public authorities and the CA in one file, named by variables.
    ROOTS = auto()
    # The proxy, or proxy and CA, in its own configuration.
    CONFIGURATION = auto()


_BOTH = Way.VARIABLES | Way.ROOTS

WAYS: Mapping[str, Way] = MappingProxyType(
    {
        services.API: _BOTH,
        "api-websocket": _BOTH,
        "worker": _BOTH,
        "worker-beat": _BOTH,
        "plugin-daemon": _BOTH,
        "agent-backend": _BOTH,
        services.GATEWAY: _BOTH,
        services.CERTBOT: _BOTH,
        # It concatenates its roots at its start, with those of its upstreams.
        services.LITELLM: Way.VARIABLES | Way.CONFIGURATION,
        services.NGINX: Way.CONFIGURATION,
        services.LLM_EDGE: Way.CONFIGURATION,
        "ssrf-proxy": Way.CONFIGURATION,
        "agent-ssrf-proxy": Way.CONFIGURATION,
        # It passes connections to the servers of dify:database, dify:redis and dify:vectorServer, by no proxy.
        data_services.DATA_EGRESS: Way.NONE,
        # Pages and their scripts run in the visitor's browser.
        "web": Way.NONE,
        # Its way out is agent-ssrf-proxy.
        "local-sandbox": Way.ROOTS,
    }
)


def way_of(service: str) -> Way:
    """Return what a service gets; nothing, for one without a route to the outside."""
    return WAYS.get(service, Way.NONE)
