"""The networks of a stack, and who may leave them.

They isolate as Dify's own compose file does, and more: the data tier has a network that the edge and the web
frontend are not on.
"""

from infra.catalogue.releases import Release
from infra.settings.stack import Settings

APP = "app"
DATA = "data"
SSRF_PROXY = "ssrf_proxy"
AGENT_SANDBOX = "agent_sandbox"
LOCAL_SANDBOX_PROXY = "local_sandbox_proxy"
ACME = "acme"
OAUTH = "oauth"
OAUTH_DATA = "oauth_data"
ISSUERS = "issuers"
LITELLM = "litellm"
LITELLM_UPSTREAMS = "litellm_upstreams"


def networks(settings: Settings, release: Release) -> dict[str, bool]:
    """Return the networks of a stack; the value says whether one is internal, without a way out.

    certbot reaches the internet and none of the other networks. nginx reaches the OAuth gateway, and that one
    a Redis of its own; the internet only to ask external issuers and the gate's provider. nginx reaches LiteLLM, and
    that its upstreams.
    """
    agent = {AGENT_SANDBOX: True, LOCAL_SANDBOX_PROXY: True} if release.has("local_sandbox") else {}
    acme = {ACME: False} if settings.tls.acme else {}
    oauth = {OAUTH: True, OAUTH_DATA: True} if settings.gateway else {}
    issuers = {ISSUERS: False} if asks_issuers(settings) else {}
    litellm = {LITELLM: True, LITELLM_UPSTREAMS: False} if settings.llm and settings.llm.litellm else {}
    return {APP: False, DATA: True, SSRF_PROXY: True, **agent, **acme, **oauth, **issuers, **litellm}


def asks_issuers(settings: Settings) -> bool:
    """Tell whether the gateway has to reach somebody outside: external issuers, or the gate's provider."""
    return settings.oidc_gate is not None or (settings.oauth is not None and bool(settings.oauth.issuers))
