"""A pytest plugin: the smoke tests find a stack that exists only on paper."""

import os

import pytest

from tests.unit.test_smoke_target import EXPORTS, GATED, ON_CLUSTER


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main() -> None:
    """Replace the reading of exports before anything is configured."""
    containers = dict.fromkeys(
        (
            *("api", "api-websocket", "nginx", "sandbox", "local-sandbox", "gateway"),
            *("worker", "plugin-daemon", "ssrf-proxy"),
        ),
        "dify-nowhere",
    )
    tls = EXPORTS["tls"] | {"mode": "files", "httpsPort": 8443}
    oauth = {"oauth": {"issuer": "http://localhost:8080"}}
    canary = {"oauthCanary": {"clientId": "canary", "clientSecret": "dks_on-paper"}}
    llm = {"url": "http://localhost:8080/llm/v1", "models": ["gpt-4.1"], "embeddings": [], "corsOrigins": []}
    gate = {
        "clientId": "dify",
        "callbackUrls": ["https://console.example.com/oauth2/callback"],
        "webApp": True,
    }
    exports = EXPORTS | {"containers": containers, "tls": tls, "llm": llm} | oauth | canary
    exports |= {"oidcGate": gate if os.environ.get(GATED) else None}
    exports |= {"platform": "kubernetes"} if os.environ.get(ON_CLUSTER) else {}
    pytest.MonkeyPatch().setattr("smoke_tests.target.read_exports", lambda _stack: exports)
