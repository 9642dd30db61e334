"""The networks of a stack, and who may leave them.

They isolate as Dify's own compose file does, and more: the data tier has a network that the edge and the web
frontend are not on.
"""

from infra.releases import Release

APP = "app"
DATA = "data"
SSRF_PROXY = "ssrf_proxy"
AGENT_SANDBOX = "agent_sandbox"
LOCAL_SANDBOX_PROXY = "local_sandbox_proxy"
ACME = "acme"


def networks(release: Release, *, acme: bool = False) -> dict[str, bool]:
    """Return the networks a release needs; the value says whether one is internal, without a way out.

    With `acme`, certbot reaches the internet and none of the others.
    """
    agent = {AGENT_SANDBOX: True, LOCAL_SANDBOX_PROXY: True} if release.has("local_sandbox") else {}
    return {APP: False, DATA: True, SSRF_PROXY: True, **agent, **({ACME: False} if acme else {})}
