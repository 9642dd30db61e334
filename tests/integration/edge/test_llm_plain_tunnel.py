"""The LLM proxy behind a company's proxy, with an upstream without TLS and one to which no tunnel opens."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any

import httpx
import pytest

from infra.catalogue import ports
from infra.catalogue.releases import RELEASES
from infra.edge.context import EdgeContext, edge_context
from infra.settings import proxy_keys
from support.configuration import settings
from tests.integration.bridge import bridge
from tests.integration.edge.container import START_SECONDS
from tests.integration.edge.llm import EdgeWithLlm

MEGABYTES = 4
# Long enough for nginx to send a body before the tunnel is open.
OPENING_SECONDS = 0.5
# What a request would take without a deadline of the tunnel.
TIMEOUT_SECONDS = 300
PIECE = 65536


class Upstream(BaseHTTPRequestHandler):
    """Answers a chat with the length of its first message."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Answer."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        said = {"role": "assistant", "content": str(len(asked["messages"][0]["content"]))}
        body = json.dumps({"choices": [{"index": 0, "message": said, "finish_reason": "stop"}]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class SlowProxy(StreamRequestHandler):
    """Opens tunnels to addresses after a while, and none to names, without an answer."""

    def handle(self) -> None:
        """Answer one CONNECT."""
        target = self.rfile.readline().split()[1].decode()
        while self.rfile.readline().strip():
            pass
        host, _, port = target.rpartition(":")
        if not host[0].isdigit():
            # Until nginx gives up.
            self.rfile.read()
            return
        time.sleep(OPENING_SECONDS)
        with socket.create_connection((host, int(port))) as upstream:
            self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=self._back, args=(upstream,), daemon=True)
            back.start()
            # What was buffered with the head comes first.
            with suppress(OSError):
                while piece := self.rfile.read1(PIECE):
                    upstream.sendall(piece)
                upstream.shutdown(socket.SHUT_WR)
            back.join()

    def _back(self, upstream: socket.socket) -> None:
        with suppress(OSError):
            while piece := upstream.recv(PIECE):
                self.wfile.write(piece)
            self.connection.shutdown(socket.SHUT_WR)


class Proxies(ThreadingTCPServer):
    """A server whose connections end with the test."""

    daemon_threads = True
    allow_reuse_address = True


class PlainTunnelEdge(EdgeWithLlm):
    """An edge with an upstream without TLS behind the slow proxy, and two to which it opens no tunnel."""

    def __init__(self, directory: Path, proxy: tuple[str, int], upstream: tuple[str, int]) -> None:
        self.proxy, self.behind = proxy, upstream
        self.key, self.caller = proxy_keys.issue("alice", datetime.now(UTC))
        super().__init__(directory, {}, change=self._context, published=(ports.EDGE_HTTP,))

    def start_upstream(self) -> None:
        """Start nothing: the upstream is on this machine, and Dify is not asked."""

    def wait(self) -> None:
        """Wait until the LLM proxy answers."""
        deadline, last = time.monotonic() + START_SECONDS, "nothing"
        while time.monotonic() < deadline:
            try:
                last = str(self.http.get("/llm/v1/models").status_code)
            except httpx.TransportError as problem:
                last = repr(problem)
            if last == "401":
                return
            time.sleep(0.3)
        raise AssertionError(f"the edge did not come up; last: {last}; {self.nginx.logs().decode()[-2000:]}")

    def chat(self, model: str, text: str) -> httpx.Response:
        """Send a chat as the caller."""
        return self.http.post(
            "/llm/v1/chat/completions",
            json={"model": model, "messages": [{"role": "user", "content": text}]},
            headers={"Authorization": f"Bearer {self.key}"},
        )

    def logged_error(self, part: str) -> bool:
        """Tell whether nginx logged an error with `part`, or does soon."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if part in self.nginx.logs(stdout=False).decode():
                return True
            time.sleep(0.2)
        return False

    def _context(self, _: EdgeContext) -> EdgeContext:
        addresses = {
            "plain": f"http://{self.behind[0]}:{self.behind[1]}/v1",
            "silent": "http://silent:8000/v1",
            "silent_tls": "https://silent.example/v1",
        }
        plain: dict[str, Any] = {
            "outbound": {"proxy": f"http://{self.proxy[0]}:{self.proxy[1]}"},
            "llm": {
                "enabled": True,
                "upstreams": {
                    name: {"baseUrl": url, "timeoutSeconds": TIMEOUT_SECONDS}
                    for name, url in addresses.items()
                },
                "models": {
                    "plain": ["plain"],
                    "after-silent": ["silent", "plain"],
                    "after-silent-tls": ["silent_tls", "plain"],
                },
                "maxBodyMegabytes": MEGABYTES,
            },
        }
        found = settings(plain, {"llmKeys": json.dumps(dict.fromkeys(addresses, f"sk-{'k' * 30}"))})
        assert found.llm is not None
        self.settings = replace(found, llm=replace(found.llm, keys=(self.caller,)))
        return edge_context(self.settings, RELEASES[found.release])


@pytest.fixture(scope="module")
def tunnel(open_directory: Callable[[], Path]) -> Iterator[PlainTunnelEdge]:
    """The edge, with proxy and upstream in this process."""
    with (
        ThreadingHTTPServer((bridge(), 0), Upstream) as upstream,
        Proxies((bridge(), 0), SlowProxy) as proxy,
    ):
        for server in (upstream, proxy):
            threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            edge = PlainTunnelEdge(
                open_directory(),
                *((str(one[0]), one[1]) for one in (proxy.server_address, upstream.server_address)),
            )
            try:
                yield edge
            finally:
                edge.remove()
        finally:
            for server in (upstream, proxy):
                server.shutdown()


# In memory, and in a file.
@pytest.mark.parametrize("size", [100, 100_000, 900_000, 3_900_000])
def test_whole_request_waits_for_the_tunnel(tunnel: PlainTunnelEdge, size: int) -> None:
    answer = tunnel.chat("plain", "x" * size)

    assert answer.status_code == 200, (answer.text, tunnel.nginx.logs(stdout=False).decode()[-2000:])
    assert answer.json()["choices"][0]["message"]["content"] == str(size)


@pytest.mark.parametrize("model", ["after-silent", "after-silent-tls"])
def test_next_upstream_answers_when_no_tunnel_opens(tunnel: PlainTunnelEdge, model: str) -> None:
    answer = tunnel.chat(model, "hello")

    assert answer.status_code == 200, (answer.text, tunnel.nginx.logs(stdout=False).decode()[-2000:])
    target = "silent.example:443" if model.endswith("tls") else "silent:8000"
    assert tunnel.logged_error(f"no tunnel to {target} through ")
    assert tunnel.logged_error("the proxy did not answer in time")
