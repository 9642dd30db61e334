"""The LLM proxy behind a company's proxy: nginx opens tunnels, and verifies what the proxy shows."""

import json
import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.catalogue import ports
from infra.catalogue.releases import RELEASES
from infra.edge.context import EdgeContext, edge_context
from infra.settings import proxy_keys
from support import llm_upstream
from support.certificates import issue
from support.configuration import settings
from support.images import image_of
from support.stacks import wait_until
from tests.integration.company_proxy import CompanyProxy
from tests.integration.edge.container import LOG_SECONDS
from tests.integration.edge.llm import EdgeWithLlm

KEYS = {name: f"sk-{name}-{'k' * 30}" for name in ("outside", "closed", "near")}


class TunnelEdge(EdgeWithLlm):
    """An edge with three upstreams: one outside, one whose port is closed, and one inside that needs no proxy."""

    _company: CompanyProxy | None = None

    @property
    def company(self) -> CompanyProxy:
        """The company's proxy, once `start_upstream` has made it."""
        assert self._company is not None
        return self._company

    def __init__(self, directory: Path, *, credentials: str | None = None, trusting: bool = True) -> None:
        self.credentials, self.trusting = credentials, trusting
        self.key, self.caller = proxy_keys.issue("alice", datetime.now(UTC))
        super().__init__(directory, {}, change=self._context, published=(ports.EDGE_HTTP,))

    def start_upstream(self) -> Any:
        place = self.directory / "company"
        place.mkdir()
        place.chmod(0o755)
        self._company = CompanyProxy(name=self.name, inside=self.name, directory=place)
        self.company.start()
        authority = self.company.public
        made = {
            "outside": issue(["llm.outside.test"], issuer=authority),
            # Inside, nothing decrypts: its certificate is that of the company's own CA.
            "near": issue(["llm.corp.test"], issuer=self.company.inspector),
        }
        answers = []
        for number, (name, pair) in enumerate(made.items()):
            for suffix, text in (("pem", pair.pem), ("key", pair.key_pem)):
                (place / f"{name}.{suffix}").write_text(text, encoding="ascii")
            answers.append(
                {
                    "name": name,
                    "port": 8443 + number,
                    "secrets": [KEYS[name]],
                    "certificate": f"/company/{name}.pem",
                    "key": f"/company/{name}.key",
                }
            )
        container = self.client.containers.create(
            image_of("api"),
            entrypoint=["python3", "-c", Path(llm_upstream.__file__).read_text(encoding="utf-8")],
            command=[json.dumps({"verifier": ports.GATEWAY_INTERNAL, "upstreams": answers})],
            network_mode="none",
            volumes={str(place): {"bind": "/company", "mode": "ro"}},
        )
        self.things.append(container)
        self.client.networks.get("none").disconnect(container)
        # The name of the first exists outside alone.
        self.company.join(container, ["llm.outside.test"])
        self.network.connect(container, aliases=["llm.corp.test"])
        container.start()
        return super().start_upstream()

    def _context(self, _: EdgeContext) -> EdgeContext:
        outbound: dict[str, Any] = {"proxy": self.company.url, "noProxy": ["corp.test"]}
        if self.trusting:
            outbound["caFile"] = str(self.company.ca_file)
        plain = {
            "outbound": outbound,
            "llm": {
                "enabled": True,
                "upstreams": {
                    "outside": {"baseUrl": "https://llm.outside.test:8443/v1", "timeoutSeconds": 5},
                    "closed": {"baseUrl": "https://llm.outside.test:9/v1", "timeoutSeconds": 5},
                    "near": {"baseUrl": "https://llm.corp.test:8444/v1", "timeoutSeconds": 5},
                },
                "models": {
                    "gpt-4.1": ["outside"],
                    "after-closed": ["closed", "outside"],
                    "near": ["near"],
                },
            },
        }
        hidden = {
            "llmKeys": json.dumps(KEYS),
            "outboundCredentials": self.credentials or self.company.credentials,
        }
        found = settings(plain, hidden)
        assert found.llm is not None
        self.settings = replace(found, llm=replace(found.llm, keys=(self.caller,)))
        return edge_context(self.settings, RELEASES[found.release])

    def chat(self, model: str, **more: Any) -> httpx.Response:
        """Send a chat as the caller."""
        body = {"model": model, "messages": [{"role": "user", "content": "hello"}], **more}
        return self.http.post(
            "/llm/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {self.key}"}
        )

    def remove(self) -> None:
        """Remove everything, however far the start came."""
        for container in self.things:
            container.remove(force=True)
        if self._company is not None:
            self._company.remove()
        self.network.remove()


@pytest.fixture(scope="module")
def tunnel(open_directory: Callable[[], Path]) -> Iterator[TunnelEdge]:
    """The edge, with the user name, the password and the CA of the company's proxy."""
    one = TunnelEdge(open_directory())
    try:
        yield one
    finally:
        one.remove()


def test_chat_goes_through_the_proxy_and_its_certificate_is_trusted(tunnel: TunnelEdge) -> None:
    answer = tunnel.chat("gpt-4.1")

    assert answer.status_code == 200, (answer.text, tunnel.nginx.logs().decode()[-2000:])
    assert answer.json()["choices"][0]["message"]["content"].startswith("The quick brown")
    assert tunnel.company.came("https://llm.outside.test:8443/v1/chat/completions 200"), (
        tunnel.company.asked()
    )


def test_stream_arrives_whole(tunnel: TunnelEdge) -> None:
    answer = tunnel.chat("gpt-4.1", stream=True)

    assert answer.status_code == 200, answer.text
    pieces = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    text = "".join(one["choices"][0]["delta"].get("content") or "" for one in pieces if one["choices"])
    assert text == "The quick brown 狐 jumps"
    assert answer.text.rstrip().endswith("data: [DONE]")


def test_large_body_passes_through_the_tunnel(tunnel: TunnelEdge) -> None:
    text = "x" * 3_000_000

    answer = tunnel.chat("gpt-4.1", user="outside=echo", messages=[{"role": "user", "content": text}])

    assert answer.status_code == 200, answer.text[:500]
    came = json.loads(answer.json()["choices"][0]["message"]["content"])
    assert came["body"]["messages"][0]["content"] == text


def test_upstream_that_the_proxy_cannot_reach_is_followed_by_the_next(tunnel: TunnelEdge) -> None:
    answer = tunnel.chat("after-closed")

    assert answer.status_code == 200, answer.text
    # The proxy opens every tunnel that it decrypts, and answers in it.
    assert "upstream closed failed with 503, trying the next" in tunnel.nginx.logs(stdout=False).decode()


def test_host_of_no_proxy_is_reached_directly(tunnel: TunnelEdge) -> None:
    before = len(tunnel.company.asked())
    answer = tunnel.chat("near")
    # The proxy's log is current once it has a later request.
    assert tunnel.chat("gpt-4.1").status_code == 200
    wait_until(
        lambda: len(tunnel.company.asked()) > before,
        seconds=LOG_SECONDS,
        what="the proxy logs the second chat",
    )

    assert answer.status_code == 200, (answer.text, tunnel.nginx.logs().decode()[-2000:])
    assert not [line for line in tunnel.company.asked() if "corp.test" in line]


def test_wrong_password_at_the_proxy_is_named_in_the_log_and_not_shown(
    open_directory: Callable[[], Path],
) -> None:
    wrong = f"kit:{secrets.token_urlsafe(16)}"
    edge = TunnelEdge(open_directory(), credentials=wrong)
    try:
        answer = edge.chat("gpt-4.1")

        assert answer.status_code == 502
        # The log has the whole request: its last entry is the one of its answer.
        edge.logged(answer.headers["x-request-id"])
        logged = edge.nginx.logs().decode()
        assert "HTTP/1.1 407 Proxy Authentication Required" in logged
        assert wrong.partition(":")[2] not in logged + answer.text
    finally:
        edge.remove()


def test_certificate_of_the_proxy_is_rejected_without_its_ca(open_directory: Callable[[], Path]) -> None:
    edge = TunnelEdge(open_directory(), trusting=False)
    try:
        answer = edge.chat("gpt-4.1")

        assert answer.status_code == 502
        assert "upstream SSL certificate verify error" in edge.nginx.logs(stdout=False).decode()
    finally:
        edge.remove()
