"""Brute force on the token endpoint, and what happens without Redis."""

from typing import Any

import pytest
import redis

from dify_gateway import state
from support.gateway import OTHER_SECRET, SECRET
from tests.unit.gateway.world import World

PER_CLIENT, PER_ADDRESS = 5, 20


def attempt(world: World, client: str, secret: str, address: str) -> Any:
    data = {"grant_type": "client_credentials", "client_id": client, "client_secret": secret}
    return world.public.post("/oauth/token", data=data, headers={"X-Real-IP": address})


def test_guesses_for_a_client_are_limited(world: World) -> None:
    statuses = [
        attempt(world, "acme-app", OTHER_SECRET, "192.0.2.1").status_code for _ in range(PER_CLIENT + 3)
    ]

    assert statuses == [401] * PER_CLIENT + [429] * 3


def test_the_answer_says_when_to_try_again(world: World) -> None:
    for _ in range(PER_CLIENT):
        attempt(world, "acme-app", OTHER_SECRET, "192.0.2.1")

    answer = attempt(world, "acme-app", SECRET, "192.0.2.1")

    assert answer.status_code == 429
    wait = int(answer.headers["Retry-After"])
    assert 1 <= wait <= 60
    assert answer.json == {"error": "rate_limit_exceeded", "retry_after": wait}
    assert answer.headers["Cache-Control"] == "no-store"


def test_a_client_is_not_locked_out_from_elsewhere(world: World) -> None:
    for number in range(30):
        attempt(world, "acme-app", OTHER_SECRET, f"192.0.2.{number}")
    for _ in range(PER_CLIENT + 5):
        attempt(world, "acme-app", OTHER_SECRET, "192.0.2.200")

    assert attempt(world, "acme-app", SECRET, "198.51.100.7").status_code == 200


def test_another_client_at_the_address_goes_on(world: World) -> None:
    for _ in range(PER_CLIENT + 5):
        attempt(world, "acme-app", OTHER_SECRET, "192.0.2.1")

    assert attempt(world, "globex-app", OTHER_SECRET, "192.0.2.1").status_code == 200


def test_an_address_that_tries_many_clients_is_limited(world: World) -> None:
    statuses = [attempt(world, f"guess-{n}", SECRET, "192.0.2.1").status_code for n in range(PER_ADDRESS + 2)]

    assert statuses == [401] * PER_ADDRESS + [429] * 2
    assert attempt(world, "acme-app", SECRET, "192.0.2.1").status_code == 429
    assert attempt(world, "acme-app", SECRET, "192.0.2.2").status_code == 200


def test_addresses_of_one_ipv6_network_count_together(world: World) -> None:
    statuses = [
        attempt(world, "acme-app", OTHER_SECRET, f"2001:db8:1:2::{n:x}").status_code
        for n in range(PER_CLIENT + 1)
    ]

    assert statuses[-1] == 429
    assert attempt(world, "acme-app", SECRET, "2001:db8:1:3::1").status_code == 200


def test_an_ipv4_address_written_as_ipv6_is_the_same(world: World) -> None:
    for _ in range(PER_CLIENT):
        attempt(world, "acme-app", OTHER_SECRET, "192.0.2.1")

    assert attempt(world, "acme-app", SECRET, "::ffff:192.0.2.1").status_code == 429


def test_successes_do_not_count(world: World) -> None:
    statuses = {attempt(world, "acme-app", SECRET, "192.0.2.1").status_code for _ in range(PER_ADDRESS + 5)}

    assert statuses == {200}


@pytest.mark.parametrize("path", ["/oauth/revoke", "/oauth/introspect"])
def test_the_other_endpoints_count_as_well(world: World, path: str) -> None:
    data = {"token": "x", "client_id": "acme-app", "client_secret": OTHER_SECRET}
    statuses = [world.public.post(path, data=data).status_code for _ in range(PER_CLIENT + 1)]

    assert statuses == [401] * PER_CLIENT + [429]


class TestWithoutRedis:
    """Redis does not answer: no token is issued or verified."""

    @pytest.fixture(autouse=True)
    def stopped(self, world: World) -> None:
        world.service.loaded.configuration  # noqa: B018  # it is loaded before Redis goes away
        world.token()
        world.redis_server.connected = False

    def test_no_token_is_issued(self, world: World) -> None:
        answer = world.token()

        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "1"
        assert answer.json is not None
        assert answer.json["error"] == "temporarily_unavailable"

    @pytest.mark.parametrize("path", ["/oauth/revoke", "/oauth/introspect"])
    def test_nothing_is_revoked_or_told(self, world: World, path: str) -> None:
        data = {"token": world.forge.valid(), "client_id": "acme-app", "client_secret": SECRET}

        assert world.public.post(path, data=data).status_code == 503

    def test_a_token_check_fails_and_is_not_cached(self, world: World) -> None:
        result = world.verify("Bearer " + world.forge.valid())

        assert result.status == 503
        assert result.headers["Cache-Control"] == "no-store"
        assert result.headers["Retry-After"] == "1"
        assert not {name for name in result.headers if name.startswith("X-Auth")}

    def test_what_is_wrong_anyway_stays_wrong(self, world: World) -> None:
        assert world.verify("Bearer " + world.forge.with_claims(aud="other")).status == 401

    def test_health_says_so(self, world: World) -> None:
        result = world.verify(None, "/healthz")

        assert result.status == 503
        assert result.body["status"] == "down"
        assert any("Redis" in problem for problem in result.body["problems"])

    def test_all_is_well_again_without_help(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        assert world.verify("Bearer " + world.forge.valid()).status == 503
        monkeypatch.setattr(state, "PAUSE_SECONDS", 0)
        world.verify("Bearer " + world.forge.valid())

        world.redis_server.connected = True
        for each in world.states:
            each._paused_until = 0.0

        assert world.verify("Bearer " + world.forge.valid()).status == 200
        assert world.token().status_code == 200


def test_a_single_failure_does_not_affect_the_next_check(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    bearer = "Bearer " + world.forge.valid()
    with monkeypatch.context() as once:
        once.setattr(redis.Redis, "mget", _timeout)
        assert world.verify(bearer).status == 503

    assert world.verify(bearer).status == 200


def _timeout(*_args: Any) -> None:
    raise redis.TimeoutError


def test_a_redis_that_hangs_is_not_asked_by_every_request(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def hang(_self: redis.Redis, *args: Any, **_options: Any) -> None:
        asked.append(str(args[0]))
        raise redis.TimeoutError("Timeout reading from socket")

    monkeypatch.setattr(redis.Redis, "execute_command", hang)

    statuses = [world.verify("Bearer " + world.forge.valid()).status for _ in range(20)]

    assert statuses == [503] * 20
    assert len(asked) < 5
