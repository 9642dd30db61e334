"""Three replicas of the edge count as one: whichever the requests hit, the limits are those of one."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.integration.edge import oauth as with_oauth
from tests.integration.edge.container import ALLOWED, PLAIN
from tests.integration.edge.oauth import CHAT, INVALID, OAuthEdge
from tests.integration.edge.replicas import COUNT, Replicas
from tests.integration.edge.test_limits import A_DROP, FIVE_A_MINUTE, bearer

LIMITS = {
    "v1": FIVE_A_MINUTE,
    "api": {**FIVE_A_MINUTE, "addressRequests": 20, "addressSeconds": 60, "addressConcurrent": 0},
    "console": FIVE_A_MINUTE,
    "openapi": {"requests": 0, "concurrent": 5, "addressConcurrent": 8},
    "files": FIVE_A_MINUTE,
    "login": FIVE_A_MINUTE,
}
CREDENTIALS = 12
STAYED, MOVED = {0, 1, 2}, {5, 6}
REVOKED_SECONDS = 5


@pytest.fixture(scope="module")
def replicas(open_directory: Callable[[], Path]) -> Iterator[Replicas]:
    """Three replicas."""
    one = Replicas(open_directory(), {**PLAIN, "rateLimits": LIMITS})
    try:
        yield one
    finally:
        one.remove()


@pytest.fixture(scope="module")
def oauth(open_directory: Callable[[], Path]) -> Iterator[OAuthEdge]:
    """Three replicas with OAuth, and the gateway behind them."""
    one = with_oauth.start(open_directory, Replicas)
    try:
        yield one
    finally:
        one.remove()


def ask(client: httpx.Client, token: str) -> httpx.Response:
    """Send a request with a token; repeat it while introspection takes too long on a busy machine."""
    deadline = time.monotonic() + with_oauth.PATIENCE_SECONDS
    headers = {"Authorization": f"Bearer {token}"}
    while (answer := client.post(CHAT, headers=headers)).status_code == 503 and time.monotonic() < deadline:
        time.sleep(0.1)
    return answer


def seen(answer: httpx.Response) -> dict[str, str]:
    """Return the headers that the service saw, by their names in lower case."""
    return {name.lower(): value for name, value in answer.json()["seen"]}


def test_exactly_five_of_twenty_pass_whatever_replica_they_hit(replicas: Replicas) -> None:
    mine, other = bearer(), bearer()

    found = replicas.spread("/v1/200", mine, 20)
    refused = replicas.clients[1].get("/v1/200", headers={**mine, "Origin": ALLOWED})
    received_at = time.monotonic()

    assert found == [200] * 5 + [429] * 15
    assert replicas.spread("/v1/200", other, 5) == [200] * 5
    assert refused.headers["retry-after"] == str(A_DROP)
    assert refused.json() == {"error": "rate_limit_exceeded", "retry_after": A_DROP}
    assert refused.headers.get_list("access-control-allow-origin") == [ALLOWED]
    assert refused.headers.get_list("x-request-id") == [refused.headers["x-request-id"]]
    assert not [name for name in refused.headers if name.startswith("x-ring")]
    time.sleep(max(0, A_DROP - (time.monotonic() - received_at)))
    assert replicas.spread("/v1/200", mine, 2) == [200, 429]


def test_at_once_is_the_same(replicas: Replicas) -> None:
    mine = bearer()

    with ThreadPoolExecutor(20) as pool:
        found = list(
            pool.map(
                lambda number: replicas.clients[number % COUNT].get("/v1/200", headers=mine).status_code,
                range(20),
            )
        )

    assert sorted(found) == [200] * 5 + [429] * 15


def test_each_user_has_a_limit_of_their_own(replicas: Replicas) -> None:
    for number in range(3):
        session = {"Cookie": f"locale=en; access_token={'s' * 90}{number}{'t' * 40}; csrf_token=x"}
        passport = {"X-App-Passport": f"{'p' * 90}{number}{'q' * 40}"}
        assert replicas.spread("/console/api/200", session, 7) == [200] * 5 + [429] * 2
        if number < 2:
            assert replicas.spread("/api/200", passport, 7) == [200] * 5 + [429] * 2


def test_an_address_counts_once_for_all_replicas(replicas: Replicas) -> None:
    tries = [
        replicas.clients[number % COUNT].post("/console/api/login", json={}).status_code
        for number in range(7)
    ]

    assert replicas.spread("/files/200", {}, 20) == [200] * 5 + [429] * 15
    assert tries == [200] * 5 + [429] * 2
    # A limit for both: what reads only is not counted as an attempt.
    assert replicas.spread("/console/api/setup/200", bearer(), 4) == [200] * 4
    # Ten of twenty are left: a request that its own limit refuses does not count for its address.
    made_up = [
        replicas.clients[number % COUNT].get("/api/200", headers=self_made(number)).status_code
        for number in range(15)
    ]
    assert made_up == [200] * 10 + [429] * 5


def self_made(number: int) -> dict[str, str]:
    """Return a passport that nobody issued."""
    return {"X-App-Passport": "m" * 120 + f"{number:03}"}


def test_open_requests_are_counted_while_they_are_under_way(replicas: Replicas) -> None:
    mine, other = bearer(), bearer()

    with ExitStack() as streams:
        open_ones = [
            streams.enter_context(
                replicas.clients[number % COUNT].stream("GET", "/openapi/hold", headers=mine)
            )
            for number in range(5)
        ]
        lines = [one.iter_lines() for one in open_ones]
        first = [next(events) for events in lines]
        refused = replicas.clients[1].get("/openapi/200", headers=mine)
        others = replicas.clients[2].get("/openapi/200", headers=other)
        rest = [len([line for line in events if line.startswith("data: ")]) for events in lines]

    assert [one.status_code for one in open_ones] == [200] * 5
    assert all(line.startswith("data: ") for line in first)
    assert rest == [29] * 5
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "2")
    assert others.status_code == 200
    with ExitStack() as streams:
        found = [
            streams.enter_context(
                replicas.clients[number % COUNT].stream("GET", "/openapi/hold", headers=bearer())
            ).status_code
            for number in range(10)
        ]
    assert found == [200] * 8 + [429] * 2


def test_a_stream_arrives_as_it_is_produced(replicas: Replicas) -> None:
    # The service sends five events 0.2 s apart.
    for client in replicas.clients:
        with client.stream("GET", "/v1/stream", headers=bearer()) as answer:
            arrived = [time.monotonic() for line in answer.iter_lines() if line.startswith("data: ")]
        assert len(arrived) == 5
        assert arrived[-1] - arrived[0] > 0.4


def test_bodies_arrive_whole_and_too_large_ones_are_refused(replicas: Replicas) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(30):
            yield b"x" * 30_000

    for client in replicas.clients:
        whole = client.post("/v1/200", headers=bearer(), content=b"x" * 900_000)
        chunked = client.post("/v1/200", headers=bearer(), content=pieces())
        assert [whole.json()["length"], chunked.json()["length"]] == [900_000] * 2
    assert replicas.announce("/v1/200", bearer(), 3_000_000).status_code == 413


def test_a_client_cannot_pretend_to_be_a_replica(replicas: Replicas) -> None:
    forged = {
        "X-Ring-Address": "198.51.100.9",
        "X-Ring-Limit": "files-address",
        "X-Ring-Key": "another",
        "X-Ring-Next-Limit": "v1-token",
        "X-Ring-Next-Key": "another",
        "X-Ring-Service": "web",
        "X-Ring-Call": "v1",
        "X-Forwarded-For": "198.51.100.9",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "evil.example",
        "X-Real-IP": "198.51.100.9",
    }
    honest = seen(replicas.clients[0].get("/e/200"))
    mine = bearer()
    found = []
    for number in range(20):
        forged["X-Ring-Key"] = f"key-{number}"
        found.append(replicas.clients[number % COUNT].get("/v1/200", headers={**mine, **forged}))

    assert [one.status_code for one in found] == [200] * 5 + [429] * 15
    for one in (*found[:5], replicas.clients[1].get("/triggers/200", headers=forged)):
        headers = seen(one)
        assert headers["x-real-ip"] == headers["x-forwarded-for"] == honest["x-real-ip"]
        assert headers["x-forwarded-proto"] == "http"
        assert (
            headers["x-forwarded-host"]
            == headers["host"]
            == honest["host"].replace(honest["host"].rpartition(":")[2], headers["host"].rpartition(":")[2])
        )
        assert headers["x-request-id"] == one.headers["x-request-id"]
        assert not [name for name in headers if name.startswith("x-ring")]


def test_one_entry_in_the_log_for_each_request(replicas: Replicas) -> None:
    mine = bearer()
    answers = [replicas.clients[0].get("/v1/200", headers=mine) for _ in range(6)]

    entries = [json.loads(replicas.logged(one.headers["x-request-id"])) for one in answers]

    assert [one["rate_limit"] for one in entries] == ["PASSED"] * 5 + ["REJECTED"]
    assert [one["status"] for one in entries] == ["200"] * 5 + ["429"]
    last = answers[-1].headers["x-request-id"]
    assert sum(container.logs().decode().count(last) for container in replicas.replicas) == 1


def test_the_limits_of_a_tenant_hold_on_all_replicas(oauth: OAuthEdge) -> None:
    edge = replicas_of(oauth)
    tokens = [oauth.token("five"), oauth.token("five")]

    found = [ask(edge.clients[number % COUNT], tokens[number % 2]) for number in range(20)]

    assert [one.status_code for one in found] == [200] * 5 + [429] * 15
    assert found[0].json()["seen"]
    assert found[-1].json()["error"] == "rate_limit_exceeded"
    assert found[-1].headers["retry-after"] == str(A_DROP)
    assert [ask(client, oauth.token("also-five")).status_code for client in edge.clients] == [200] * 3


def test_the_key_of_the_tenant_reaches_the_service_and_the_token_does_not(oauth: OAuthEdge) -> None:
    token = oauth.token()

    headers = seen(ask(replicas_of(oauth).clients[2], token))

    assert headers["authorization"] == f"Bearer {with_oauth.app_key('acme')}"
    assert headers["x-auth-tenant"] == "acme"
    assert token not in json.dumps(headers)


def test_a_revoked_token_is_refused_by_all_replicas_within_five_seconds(oauth: OAuthEdge) -> None:
    edge = replicas_of(oauth)
    token = oauth.token()
    assert [ask(client, token).status_code for client in edge.clients] == [200] * 3

    oauth.revoke(token)
    revoked_at = time.monotonic()
    time.sleep(max(0, REVOKED_SECONDS - (time.monotonic() - revoked_at)))
    refused = [ask(client, token) for client in edge.clients]

    assert [one.status_code for one in refused] == [401] * 3
    assert [one.json() for one in refused] == [INVALID] * 3
    assert refused[0].headers["www-authenticate"].startswith("Bearer")


def replicas_of(oauth: OAuthEdge) -> Replicas:
    """Return the replicas of an edge with OAuth."""
    assert isinstance(oauth.edge, Replicas)
    return oauth.edge


def test_a_lost_replica_costs_no_request_and_no_count_of_the_others(
    open_directory: Callable[[], Path],
) -> None:
    # Five at once, and then one a minute.
    limits = {"requests": 1, "seconds": 60, "burst": 5, "concurrent": 0}
    edge = Replicas(open_directory(), {**PLAIN, "rateLimits": {"v1": limits}})
    try:
        # The owner of a key depends on key and names alone, so these have owners among all three in each run.
        everyone = [bearer(f"app-of-the-lost-replica-{number:02}") for number in range(CREDENTIALS)]
        for one in everyone:
            assert edge.spread("/v1/200", one, 6) == [200] * 5 + [429]

        edge.replicas[2].kill()
        # Every other request changes something: it must arrive all the same.
        found = [posts_and_gets(edge, one, [0, 1]) for one in everyone]

        assert {status for statuses in found for status in statuses} == {200, 429}
        passed = [statuses.count(200) for statuses in found]
        # A count is where it was, as far as it has not drained, or starts anew at the next owner.
        assert all(count in STAYED or count in MOVED for count in passed), passed
        assert any(count in STAYED for count in passed)
        assert any(count in MOVED for count in passed)
    finally:
        edge.remove()


def posts_and_gets(edge: Replicas, headers: dict[str, str], left: list[int]) -> list[int]:
    """Return the statuses of six requests to the replicas that are left."""
    return [
        edge.clients[left[number % len(left)]]
        .request("POST" if number % 2 else "GET", "/v1/200", headers=headers)
        .status_code
        for number in range(6)
    ]
