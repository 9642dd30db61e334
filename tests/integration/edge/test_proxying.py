"""What passes the edge and how: errors, identities, streams, recreated upstreams, the log."""

import json
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
import pytest

from support.images import image_of
from tests.integration.edge.container import ALLOWED, Edge


def test_own_errors_are_json_and_upstreams_pass(edge: Edge) -> None:
    passed = edge.http.get("/v1/404")
    own = edge.announce("/v1/x", {}, 100 * 1024 * 1024)

    assert passed.headers["x-from-upstream"] == "1"
    assert own.json() == {
        "code": "request_too_large",
        "message": "The request body is larger than this server accepts.",
        "status": 413,
    }


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        ("GET /" + "a" * 70_000 + " HTTP/1.1", 414),
        ("GET / HTTP/9.9", 505),
        ("NONSENSE", 400),
        ("GET /%zz HTTP/1.1", 400),
    ],
)
def test_malformed_requests_get_json(edge: Edge, request_line: str, status: int) -> None:
    host = edge.url.removeprefix("http://")
    answer = edge.raw(f"{request_line}\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())

    assert answer.status == status


def test_client_cannot_claim_an_identity(edge: Edge) -> None:
    claimed = {
        "X-Real-IP": "1.2.3.4",
        "X-Forwarded-For": "1.2.3.4",
        "X-Forwarded-Proto": "https",
        "X-Auth-Tenant": "other",
        "Forwarded": "for=1.2.3.4",
        "Dify-Hook-Url": "https://evil.example",
    }

    seen = dict(edge.http.get("/v1/200", headers=claimed).json()["seen"])

    assert "1.2.3.4" not in json.dumps(seen)
    assert seen["X-Forwarded-Proto"] == "http"
    assert not {"X-Auth-Tenant", "Forwarded", "Dify-Hook-Url"} & set(seen)


def test_plugin_endpoint_learns_its_address(edge: Edge) -> None:
    seen = dict(edge.http.get("/e/hook/200?x=1").json()["seen"])

    assert seen["Dify-Hook-Url"] == f"{edge.url}/e/hook/200?x=1"


def test_stream_arrives_piece_by_piece(edge: Edge) -> None:
    with edge.http.stream("GET", "/v1/stream") as answer:
        arrived = [
            time.time() - json.loads(line.removeprefix("data: "))["sent"]
            for line in answer.iter_lines()
            if line.startswith("data: ")
        ]

    assert len(arrived) == 5
    # Held back until the end, the first piece would be 0.8 s old.
    assert sorted(arrived)[2] < 0.2


def test_unknown_host_gets_no_answer(edge: Edge) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(edge.url, headers={"Host": "stranger.test"})
    assert edge.http.get("/healthz", headers={"Host": "dify.test"}).json() == {"status": "ok"}


def test_recreated_upstream_is_found_at_its_new_address(edge: Edge) -> None:
    old = edge.upstream
    # A placeholder takes the old address, so that the new upstream gets another one.
    old.reload()
    address = old.attrs["NetworkSettings"]["Networks"][edge.name]["IPAddress"]
    old.remove(force=True)
    edge.things.remove(old)
    placeholder = edge.client.containers.create(image_of("api"), entrypoint=["sleep", "300"], command=[])
    edge.things.append(placeholder)
    edge.network.connect(placeholder, ipv4_address=None)
    placeholder.start()
    gone = edge.http.get("/v1/200")
    edge.upstream = edge.start_upstream()
    edge.upstream.reload()

    edge.wait()

    assert (gone.status_code, gone.headers["retry-after"]) == (503, "5")
    assert edge.upstream.attrs["NetworkSettings"]["Networks"][edge.name]["IPAddress"] != address


def test_an_answer_that_comes_too_late_stays_504(start_edge: Callable[..., Edge]) -> None:
    edge = start_edge(change=lambda context: replace(context, read_timeout_seconds=1))

    answers = [edge.http.post("/v1/slow", json={}, headers={"Origin": ALLOWED}) for _ in range(3)]

    # A repeated request may have its effect twice, so there is no Retry-After.
    assert [answer.status_code for answer in answers] == [504] * 3
    assert not [answer for answer in answers if "retry-after" in answer.headers]
    assert answers[0].json()["code"] == "gateway_timeout"
    assert answers[0].headers["access-control-allow-origin"] == ALLOWED


def test_many_requests_at_once_lose_none(edge: Edge) -> None:
    def ask(number: int) -> int:
        # Ten credentials, each well below the limits of a new stack.
        headers = {"Authorization": f"Bearer app-credential-number-{number % 10}"}
        return edge.http.get("/v1/200", headers=headers).status_code

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(400)))

    assert set(answers) == {200}


def test_log_is_json_without_queries_and_credentials(edge: Edge) -> None:
    secret = secrets.token_hex(8)
    answer = edge.http.get(
        f"/v1/200?api_key={secret}",
        headers={
            "Authorization": f"Bearer {secret}",
            "Cookie": f"access_token={secret}",
            "Referer": f"http://x/?{secret}",
        },
    )

    entry = json.loads(edge.logged(answer.headers["x-request-id"]))

    assert secret not in edge.nginx.logs().decode()
    assert (entry["path"], entry["status"], entry["group"]) == ("/v1/200", "200", "v1")
    assert {"request_id", "client", "upstream_seconds"} <= set(entry)
