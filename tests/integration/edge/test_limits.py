"""Limits: what passes, which keys are counted, and the answers beyond a limit."""

import json
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from tests.integration.edge.container import ALLOWED, Edge

FIVE_A_MINUTE = {"requests": 5, "seconds": 60, "concurrent": 0}
# nginx counts thousandths of a request a second: 5r/m are 83 of them.
A_DROP = 13


def bearer(token: str = "") -> dict[str, str]:
    """Return the header of a credential, of a new one by default."""
    return {"Authorization": f"Bearer {token or 'app-' + secrets.token_urlsafe(18)}"}


def statuses(edge: Edge, path: str, headers: dict[str, str], count: int) -> list[int]:
    """Return the statuses of requests one after another."""
    return [edge.http.get(path, headers=headers).status_code for _ in range(count)]


@pytest.fixture(scope="module")
def limited(start_edge: Callable[..., Edge]) -> Edge:
    """An edge where five requests in 60 s pass on /v1, and five a minute may log in."""
    return start_edge(
        plain={
            "rateLimits": {
                "v1": FIVE_A_MINUTE,
                "openapi": {"requests": 0, "concurrent": 5, "addressConcurrent": 8},
                "console": FIVE_A_MINUTE,
                "api": FIVE_A_MINUTE,
                "login": FIVE_A_MINUTE,
            }
        }
    )


def test_exactly_five_of_twenty_pass_and_waiting_as_told_is_enough(limited: Edge) -> None:
    mine, other = bearer(), bearer()

    found = statuses(limited, "/v1/200", mine, 20)
    refused = limited.http.get("/v1/200", headers={**mine, "Origin": ALLOWED})
    received_at = time.monotonic()

    assert found == [200] * 5 + [429] * 15
    assert statuses(limited, "/v1/200", other, 5) == [200] * 5
    assert refused.headers["retry-after"] == str(A_DROP)
    assert refused.json() == {"error": "rate_limit_exceeded", "retry_after": A_DROP}
    assert refused.headers.get_list("content-type") == ["application/json"]
    assert refused.headers["access-control-allow-origin"] == ALLOWED
    assert "Retry-After" in refused.headers["access-control-expose-headers"]
    assert refused.headers["x-request-id"]

    time.sleep(A_DROP - (time.monotonic() - received_at))
    assert statuses(limited, "/v1/200", mine, 2) == [200, 429]


def test_at_once_or_one_after_another_is_the_same(limited: Edge) -> None:
    mine = bearer()

    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(lambda _: limited.http.get("/v1/200", headers=mine).status_code, range(20)))

    assert sorted(found) == [200] * 5 + [429] * 15


def test_a_reads_only_visitor_of_the_login_pages_is_not_counted(start_edge: Callable[..., Edge]) -> None:
    edge = start_edge(plain={"rateLimits": {"login": FIVE_A_MINUTE}})

    assert statuses(edge, "/console/api/setup/200", {}, 20) == [200] * 20
    tries = [edge.http.post("/console/api/login", json={}).status_code for _ in range(7)]
    assert tries == [200] * 5 + [429] * 2
    # Making up a session, or a credential, opens no new bucket.
    for made_up in (bearer(), {"Cookie": f"access_token={'x' * 60}"}, {"X-Forwarded-For": "198.51.100.7"}):
        assert edge.http.post("/console/api/login", json={}, headers=made_up).status_code == 429
    assert edge.http.post("/console/api/forgot-password/validity", json={}).status_code == 429
    assert edge.http.post("/api/login", json={}).status_code == 429
    # Steps of a sign-in by a provider are reads, and are counted apart.
    assert statuses(edge, "/console/api/oauth/login/200", {}, 7) == [200] * 5 + [429] * 2
    refused = edge.http.post("/console/api/login", json={})
    assert (refused.headers["retry-after"], refused.json()["code"]) == (str(A_DROP), "too_many_requests")
    # Everything else of the console goes on.
    assert edge.http.post("/console/api/apps", json={}).status_code == 200


def test_made_up_credentials_meet_the_limit_of_their_address(start_edge: Callable[..., Edge]) -> None:
    limits = {**FIVE_A_MINUTE, "addressRequests": 20, "addressSeconds": 60, "addressConcurrent": 0}
    edge = start_edge(plain={"rateLimits": {"v1": limits}})
    mine = bearer()

    # Requests that one's own limit refuses do not use up the limit of the address.
    assert statuses(edge, "/v1/200", mine, 30) == [200] * 5 + [429] * 25
    found = [edge.http.get("/v1/200", headers=bearer()).status_code for _ in range(20)]

    assert found == [200] * 15 + [429] * 5


def test_one_credential_written_in_many_ways_is_one(limited: Edge) -> None:
    token = "app-" + secrets.token_urlsafe(18)
    written = [f"Bearer {token}", f"bearer {token}", f"BEARER   {token}"]

    found = [limited.http.get("/v1/200", headers={"Authorization": one}).status_code for one in written * 3]

    assert found == [200] * 5 + [429] * 4


def test_session_and_passport_are_credentials(limited: Edge) -> None:
    def session() -> dict[str, str]:
        return {"Cookie": f"locale=en; access_token={secrets.token_urlsafe(120)}; csrf_token=x"}

    def passport() -> dict[str, str]:
        return {"X-App-Passport": secrets.token_urlsafe(120)}

    for path, make in (("/console/api/200", session), ("/api/200", passport)):
        one, other = make(), make()
        assert statuses(limited, path, one, 7) == [200] * 5 + [429] * 2
        assert statuses(limited, path, other, 5) == [200] * 5


def test_preflights_are_never_limited(limited: Edge) -> None:
    asked = {"Origin": ALLOWED, "Access-Control-Request-Method": "POST", **bearer()}
    statuses(limited, "/v1/200", asked, 7)

    found = {limited.http.options("/v1/200", headers=asked).status_code for _ in range(40)}

    assert found == {204}


def test_upstreams_429_passes_with_no_wait_of_ours(limited: Edge) -> None:
    answer = limited.http.get("/v1/429", headers=bearer())

    assert answer.headers["x-from-upstream"] == "1"
    assert "retry-after" not in answer.headers


def test_sixth_stream_is_refused_while_five_go_on(limited: Edge) -> None:
    mine, other = bearer(), bearer()
    url = "/openapi/hold"

    with ExitStack() as streams:
        open_ones = [streams.enter_context(limited.http.stream("GET", url, headers=mine)) for _ in range(5)]
        lines = [one.iter_lines() for one in open_ones]
        first = [next(events) for events in lines]
        refused = limited.http.get("/openapi/200", headers=mine)
        others = limited.http.get("/openapi/200", headers=other)
        rest = [len([line for line in events if line.startswith("data: ")]) for events in lines]

    assert [one.status_code for one in open_ones] == [200] * 5
    assert all(line.startswith("data: ") for line in first)
    assert rest == [29] * 5
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "2"
    assert refused.json()["code"] == "too_many_requests"
    assert others.status_code == 200
    # Their places are free again after Retry-After.
    assert limited.http.get("/openapi/200", headers=mine).status_code == 200


def test_requests_that_concurrency_refuses_leave_the_rate_alone(start_edge: Callable[..., Edge]) -> None:
    limits = {"requests": 6, "seconds": 60, "concurrent": 2, "addressRequests": 60, "addressSeconds": 60}
    edge = start_edge(plain={"rateLimits": {"v1": limits}})
    mine = bearer()

    with ExitStack() as streams:
        for _ in range(2):
            streams.enter_context(edge.http.stream("GET", "/v1/hold", headers=mine))
        refused = [edge.http.get("/v1/200", headers=mine) for _ in range(80)]

    assert {one.status_code for one in refused} == {429}
    # For the other limit, which does not know when there is room: neither rate was touched.
    assert {one.headers["retry-after"] for one in refused} == {"2"}
    deadline = time.monotonic() + 10
    while (
        first := edge.http.get("/v1/200", headers=mine)
    ).status_code != 200 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert first.status_code == 200
    assert statuses(edge, "/v1/200", mine, 4) == [200] * 3 + [429]


def test_streams_of_made_up_credentials_meet_the_limit_of_their_address(limited: Edge) -> None:
    with ExitStack() as streams:
        found = [
            streams.enter_context(limited.http.stream("GET", "/openapi/hold", headers=bearer())).status_code
            for _ in range(10)
        ]

    assert found == [200] * 8 + [429] * 2


def test_dry_run_only_logs(start_edge: Callable[..., Edge]) -> None:
    edge = start_edge(plain={"rateLimits": {"dryRun": True, "v1": FIVE_A_MINUTE}})
    mine = bearer()

    answers = [edge.http.get("/v1/200", headers=mine) for _ in range(7)]

    assert {answer.status_code for answer in answers} == {200}
    assert not [answer for answer in answers if "retry-after" in answer.headers]
    entry = json.loads(edge.logged(answers[-1].headers["x-request-id"]))
    assert entry["rate_limit"] == "REJECTED_DRY_RUN"
    assert json.loads(edge.logged(answers[0].headers["x-request-id"]))["rate_limit"] == "PASSED"


def test_keys_are_in_no_log(limited: Edge) -> None:
    token = secrets.token_urlsafe(40)
    for headers in (bearer(token), {"Cookie": f"access_token={token}"}, {"X-App-Passport": token}):
        for path in ("/v1/200", "/console/api/200", "/api/200"):
            last = [limited.http.get(path, headers=headers) for _ in range(7)][-1]

    limited.logged(last.headers["x-request-id"])
    logs = limited.nginx.logs().decode()

    assert token not in logs
    assert token[-30:] not in logs
