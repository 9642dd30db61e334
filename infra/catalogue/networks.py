"""The networks of a stack.

They isolate as those of Dify's own compose file do, and more: the data tier has a network that the edge and the web
frontend are not on. certbot reaches the internet and no other network. nginx reaches the OAuth gateway, and the gateway
a Redis of its own. LiteLLM reaches its upstreams; of the stack's services, only nginx reaches LiteLLM. On a cluster
the owner of the LLM proxy's counts is in nginx's place for both. External data
services are reached through two stream proxies: the network of the first one stays internal.
"""

from collections.abc import Mapping
from types import MappingProxyType

from infra.catalogue.service import Network, Part

APP = "app"
DATA = "data"
DATA_PROXY = "data_proxy"
DATA_EGRESS = "data_egress"
SSRF_PROXY = "ssrf_proxy"
AGENT_SANDBOX = "agent_sandbox"
LOCAL_SANDBOX_PROXY = "local_sandbox_proxy"
ACME = "acme"
OAUTH = "oauth"
OAUTH_DATA = "oauth_data"
ISSUERS = "issuers"
LLM_EDGE = "llm_edge"
LITELLM = "litellm"
LITELLM_UPSTREAMS = "litellm_upstreams"

NETWORKS: Mapping[str, Network] = MappingProxyType(
    {
        APP: Network(internal=False, compose="default"),
        DATA: Network(internal=True),
        DATA_PROXY: Network(internal=True, service="data-proxy"),
        DATA_EGRESS: Network(internal=False, service="data-egress"),
        SSRF_PROXY: Network(internal=True, compose="ssrf_proxy_network"),
        AGENT_SANDBOX: Network(internal=True, service="local-sandbox", compose="agent_sandbox_network"),
        LOCAL_SANDBOX_PROXY: Network(
            internal=True, service="local-sandbox", compose="local_sandbox_proxy_network"
        ),
        ACME: Network(internal=False, service="certbot"),
        OAUTH: Network(internal=True, service="gateway"),
        OAUTH_DATA: Network(internal=True, service="gateway-redis"),
        ISSUERS: Network(internal=False, service="gateway", part=Part.ISSUERS),
        LLM_EDGE: Network(internal=False, service="llm-edge"),
        LITELLM: Network(internal=True, service="litellm"),
        LITELLM_UPSTREAMS: Network(internal=False, service="litellm"),
    }
)
