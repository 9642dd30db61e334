"""Three replicas of the edge and one owner of the LLM proxy's counts: clients see what one replica does."""

import base64
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.catalogue import ports
from tests.integration.edge.container import ALLOWED
from tests.integration.edge.llm import LlmEdge
from tests.integration.edge.owner import OwnedEdge
from tests.integration.edge.replicas import COUNT

CHAT = "/llm/v1/chat/completions"
HELLO: dict[str, Any] = {
    "model": "gpt-4.1",
    "messages": [{"role": "user", "content": "Hi"}],
    "max_tokens": 20,
}
# An answer costs 2.5 cents, and judy may spend a dollar.
PAID = 40
# What differs from one request to the next. One replica returns some errors before it has read a body, and closes then.
VOLATILE = frozenset({"date", "x-request-id", "connection"})
GONE_SECONDS = 6
# Between two requests of a load.
EVERY_SECONDS = 0.05


@pytest.fixture(scope="module")
def owned(open_directory: Callable[[], Path]) -> Iterator[OwnedEdge]:
    """Three edges and their owner."""
    one = OwnedEdge(open_directory())
    try:
        yield one
    finally:
        one.remove()


@pytest.fixture(scope="module")
def alone(open_directory: Callable[[], Path]) -> Iterator[LlmEdge]:
    """One edge that counts itself."""
    one = LlmEdge(open_directory())
    try:
        yield one
    finally:
        one.remove()


def by(edge: LlmEdge, caller: str) -> dict[str, str]:
    """Return the credential of a caller."""
    return {"Authorization": f"Bearer {edge.keys[caller]}"}


def token(status: str = "200", scopes: str = "chat llm") -> dict[str, str]:
    """Return a token about which the gateway's stand-in says this."""
    claims = {"Sub": "app1", "Tenant": "acme", "Scopes": scopes, "nonce": secrets.token_hex(4)}
    middle = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return {"Authorization": f"Bearer x.{middle}.{status}"}


def chats(owned: OwnedEdge, caller: str, count: int) -> list[httpx.Response]:
    """Send chats one after another, each to the next edge."""
    return [
        owned.clients[number % COUNT].post(CHAT, json=HELLO, headers=by(owned, caller))
        for number in range(count)
    ]


def spent(owned: OwnedEdge, caller: str) -> dict[str, Any]:
    """Return what the owner counted for a caller this month."""
    (month,) = json.loads(owned.status("/usage"))["months"].values()
    return dict(month[f"key:{caller}"]["gpt-4.1"])


def test_a_budget_is_exact_whichever_edge_is_asked(owned: OwnedEdge) -> None:
    answers = chats(owned, "judy", PAID + 5)

    assert [one.status_code for one in answers] == [200] * PAID + [429] * 5
    assert {one.json()["error"]["code"] for one in answers[PAID:]} == {"budget_exceeded"}
    assert {one.headers["x-should-retry"] for one in answers[PAID:]} == {"false"}
    counted = spent(owned, "judy")
    assert counted["requests"] == PAID
    assert counted["cost"] == pytest.approx(1)


def test_a_budget_is_exact_for_requests_at_the_same_time(owned: OwnedEdge) -> None:
    # Two answers cost the five cents that carol may spend.
    ask = {**HELLO, "user": "first=slow"}

    def send(number: int) -> int:
        return owned.clients[number % COUNT].post(CHAT, json=ask, headers=by(owned, "carol")).status_code

    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(send, range(20)))

    passed = found.count(200)
    assert set(found) == {200, 429}
    assert 1 <= passed <= 2
    rest = [one.status_code for one in chats(owned, "carol", 5)]
    assert rest == [200] * (2 - passed) + [429] * (3 + passed)


def test_rates_and_open_requests_count_once_for_all_edges(owned: OwnedEdge) -> None:
    assert [one.status_code for one in chats(owned, "bob", 9)] == [200] * 3 + [429] * 6

    with owned.clients[0].stream(
        "POST", CHAT, json={**HELLO, "user": "first=slow", "stream": True}, headers=by(owned, "frank")
    ) as answer:
        lines = answer.iter_lines()
        next(lines)
        others = [client.post(CHAT, json=HELLO, headers=by(owned, "frank")) for client in owned.clients[1:]]
        rest = [line for line in lines if line]
    assert [one.status_code for one in others] == [429, 429]
    assert rest[-1] == "data: [DONE]"


def test_a_stream_arrives_as_it_is_made(owned: OwnedEdge) -> None:
    for client in owned.clients:
        with client.stream(
            "POST", CHAT, json={**HELLO, "user": "first=slow", "stream": True}, headers=by(owned, "alice")
        ) as answer:
            arrived = [time.monotonic() for line in answer.iter_lines() if line.startswith("data: ")]
        assert len(arrived) > 3
        assert arrived[-1] - arrived[0] > 0.4


# What a client may send: method, path, who it is, and the rest of the request.
Sent = tuple[str, str, Callable[[LlmEdge], dict[str, str]], dict[str, Any]]
SENT: dict[str, Sent] = {
    "a chat": ("POST", CHAT, lambda edge: by(edge, "alice"), {"json": HELLO}),
    "a chat by the other path": ("POST", "/api/chat", lambda edge: by(edge, "alice"), {"json": HELLO}),
    "embeddings": (
        *("POST", "/llm/v1/embeddings", lambda edge: by(edge, "alice")),
        {"json": {"model": "text-embedding-3-small", "input": "Hi"}},
    ),
    "models": ("GET", "/llm/v1/models", lambda edge: by(edge, "alice"), {}),
    "one model": ("GET", "/llm/v1/models/gpt-4.1?x=1", lambda edge: by(edge, "alice"), {}),
    "a head": ("HEAD", "/llm/v1/models", lambda edge: by(edge, "alice"), {}),
    "no key": ("POST", CHAT, lambda _: {}, {"json": HELLO}),
    "a wrong key": ("POST", CHAT, lambda _: {"Authorization": "Bearer dkp_no"}, {"json": HELLO}),
    "an expired key": ("POST", CHAT, lambda edge: by(edge, "erin"), {"json": HELLO}),
    "a key for inside": ("POST", CHAT, lambda edge: by(edge, "dify"), {"json": HELLO}),
    "a key for another model": ("POST", CHAT, lambda edge: by(edge, "dave"), {"json": HELLO}),
    "a token": ("POST", CHAT, lambda _: token(), {"json": HELLO}),
    "a token without the scope": ("POST", CHAT, lambda _: token(scopes="chat"), {"json": HELLO}),
    "a refused token": ("POST", CHAT, lambda _: token("401"), {"json": HELLO}),
    "a gateway that fails": ("POST", CHAT, lambda _: token("503"), {"json": HELLO}),
    "an unknown model": ("POST", CHAT, lambda edge: by(edge, "alice"), {"json": {**HELLO, "model": "gpt-2"}}),
    "another method": ("GET", CHAT, lambda edge: by(edge, "alice"), {}),
    "no JSON": ("POST", CHAT, lambda edge: by(edge, "alice"), {"content": b"{"}),
    "a body that is too large": ("POST", CHAT, lambda edge: by(edge, "alice"), {"content": b"x" * 1_200_000}),
    "a large body": (
        *("POST", CHAT, lambda edge: by(edge, "alice")),
        {"json": {**HELLO, "messages": [{"role": "user", "content": "x" * 1_000_000}]}},
    ),
    "another path": ("POST", "/llm/v1/other", lambda edge: by(edge, "alice"), {"json": HELLO}),
    "a path with dots": ("POST", "/llm/v1/%2e%2e/v1/models", lambda edge: by(edge, "alice"), {}),
    "an upstream's 429": (
        *("POST", CHAT, lambda edge: by(edge, "alice")),
        {"json": {**HELLO, "model": "only-second", "user": "second=429"}},
    ),
    "an upstream that cannot be reached": (
        *("POST", CHAT, lambda edge: by(edge, "alice")),
        {"json": {**HELLO, "model": "only-refused"}},
    ),
    "an upstream that hangs": (
        *("POST", CHAT, lambda edge: by(edge, "alice")),
        {"json": {**HELLO, "model": "only-second", "user": "second=hang"}},
    ),
    "a preflight": (
        *("OPTIONS", CHAT, lambda _: {"Access-Control-Request-Method": "POST"}),
        {},
    ),
}


@pytest.mark.parametrize("origin", [ALLOWED, "https://other.example.com"])
@pytest.mark.parametrize("name", SENT)
def test_every_answer_is_that_of_one_replica(
    owned: OwnedEdge, alone: LlmEdge, name: str, origin: str
) -> None:
    method, path, credential, more = SENT[name]
    found = []
    for edge, client in ((alone, alone.http), (owned, owned.clients[1])):
        headers = {**credential(edge), "Origin": origin}
        answer = client.request(method, path, headers=headers, **more)
        kept = sorted((key, value) for key, value in answer.headers.multi_items() if key not in VOLATILE)
        assert len(answer.headers.get_list("x-request-id")) == 1
        found.append((answer.status_code, kept, answer.text))

    assert found[1] == found[0]


def test_each_request_has_one_entry_in_the_logs_with_its_client(owned: OwnedEdge) -> None:
    forged = {"X-Edge-Address": "198.51.100.9", "X-Edge-Peer": "198.51.100.9", "X-Edge-Request": "0" * 32}
    good = owned.clients[1].post(
        CHAT, json=HELLO, headers={**by(owned, "alice"), **forged, "Origin": ALLOWED}
    )
    refused = owned.clients[2].post(CHAT, json=HELLO, headers=forged)
    large = owned.clients[0].post(CHAT, content=b"x" * 1_200_000, headers=by(owned, "alice"))
    other = owned.clients[0].get("/e/200")

    client = json.loads(owned.logged(other.headers["x-request-id"]))["client"]
    entries = [json.loads(owned.logged(one.headers["x-request-id"])) for one in (good, refused, large)]
    assert [one["status"] for one in entries] == ["200", "401", "413"]
    assert {one["client"] for one in entries} == {one["peer"] for one in entries} == {client}
    assert (entries[0]["caller"], entries[0]["model"], entries[0]["origin"]) == (
        "key:alice",
        "gpt-4.1",
        ALLOWED,
    )
    assert entries[0]["path"] == CHAT
    for one in (good, refused, large):
        assert len(owned.entries(one.headers["x-request-id"])) == 1


def test_a_key_for_inside_is_accepted_inside(owned: OwnedEdge) -> None:
    inner = [
        httpx.post(
            f"{owned.address(index, ports.EDGE_LLM)}{CHAT}", json=HELLO, headers=by(owned, "dify"), timeout=30
        )
        for index in range(COUNT)
    ]

    assert [one.status_code for one in inner] == [200] * COUNT


def test_keys_are_with_the_owner_alone(owned: OwnedEdge) -> None:
    hidden = [*owned.upstream_keys.values(), *(key.sha256 for key in owned.callers)]
    for path in (owned.directory / "etc").rglob("*"):
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            assert not [one for one in hidden if one in text], path


@contextmanager
def load(send: Callable[[int], httpx.Response]) -> Iterator[list[tuple[str, float]]]:
    """Send requests one after another while the block runs; yield what came back, and after how many seconds."""
    found: list[tuple[str, float]] = []
    end = threading.Event()

    def run() -> None:
        number = 0
        while not end.wait(EVERY_SECONDS):
            began = time.monotonic()
            try:
                outcome = str(send(number).status_code)
            except httpx.TransportError as problem:
                outcome = repr(problem)
            found.append((outcome, time.monotonic() - began))
            number += 1

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield found
    finally:
        end.set()
        thread.join()


def test_another_owner_takes_its_place_without_an_error(owned: OwnedEdge) -> None:
    before = spent(owned, "judy")
    with (
        load(
            lambda number: owned.clients[number % COUNT].post(CHAT, json=HELLO, headers=by(owned, "grace"))
        ) as calls,
        load(lambda number: owned.clients[number % COUNT].get("/e/200")) as others,
    ):
        owned.stop_owner()
        gone = time.monotonic()
        while time.monotonic() < gone + GONE_SECONDS:
            owned.clients[0].get("/e/200")
        owned.start_owner()
        back = time.monotonic()
        while time.monotonic() < back + GONE_SECONDS:
            owned.clients[0].get("/e/200")

    assert {outcome for outcome, _ in others} == {"200"}
    assert {outcome for outcome, _ in calls} == {"200"}, calls
    # One call waited for the next owner; no other route did.
    assert GONE_SECONDS - 1 < max(seconds for _, seconds in calls) < 2 * GONE_SECONDS + 15
    assert max(seconds for _, seconds in others) < GONE_SECONDS - 1
    # Budgets go on where they ended.
    assert spent(owned, "judy") == before
    assert [one.status_code for one in chats(owned, "judy", COUNT)] == [429] * COUNT


def test_a_client_that_waits_no_longer_costs_nothing(owned: OwnedEdge) -> None:
    before = spent(owned, "alice")
    owned.owner.kill("SIGQUIT")
    owned.owner.wait(timeout=30)

    def impatient(number: int) -> str:
        try:
            url = f"{owned.address(number % COUNT)}{CHAT}"
            return str(httpx.post(url, json=HELLO, headers=by(owned, "alice"), timeout=1).status_code)
        except httpx.ReadTimeout:
            return "gone"

    with ThreadPoolExecutor(COUNT) as pool:
        assert set(pool.map(impatient, range(COUNT))) == {"gone"}
    owned.start_owner()
    after = [one.status_code for one in chats(owned, "alice", COUNT)]

    assert after == [200] * COUNT
    counted = spent(owned, "alice")
    assert counted["requests"] == before["requests"] + COUNT
    assert counted.get("estimated", 0) == before.get("estimated", 0)


def test_what_was_sent_to_a_lost_owner_is_not_sent_again(owned: OwnedEdge) -> None:
    before = spent(owned, "alice")["requests"]
    ask = {**HELLO, "user": "first=slow"}
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(owned.clients[0].post, CHAT, json=ask, headers=by(owned, "alice"))
        time.sleep(0.5)
        owned.owner.kill()
        owned.owner.wait(timeout=30)
        lost = sent.result()
        owned.start_owner()

    assert (lost.status_code, lost.headers["retry-after"]) == (503, "5")
    assert chats(owned, "alice", 1)[0].status_code == 200
    assert spent(owned, "alice")["requests"] <= before + 1
