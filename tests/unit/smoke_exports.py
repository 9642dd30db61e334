"""A pytest plugin: the smoke tests find a stack that exists only on paper."""

import pytest

from tests.unit.test_smoke_target import EXPORTS


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main() -> None:
    """Replace the reading of exports before anything is configured."""
    containers = dict.fromkeys(("api", "nginx", "sandbox", "local_sandbox", "gateway"), "dify-nowhere")
    tls = EXPORTS["tls"] | {"mode": "files", "httpsPort": 8443}
    oauth = {"oauth": {"issuer": "http://localhost:8080"}}
    canary = {"oauthCanary": {"clientId": "canary", "clientSecret": "dks_on-paper"}}
    llm = {"url": "http://localhost:8080/llm/v1", "models": ["gpt-4.1"], "embeddings": [], "corsOrigins": []}
    exports = EXPORTS | {"containers": containers, "tls": tls, "llm": llm} | oauth | canary
    pytest.MonkeyPatch().setattr("smoke_tests.target.read_exports", lambda _stack: exports)
