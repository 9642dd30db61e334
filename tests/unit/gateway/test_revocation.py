"""Revocation (RFC 7009), introspection (RFC 7662), and what a Redis that lost its data means for older tokens."""

import json
import time
from typing import Any

import fakeredis
import pytest
import redis

from dify_gateway.state import sealed
from support.gateway import AUDIENCE, ISSUER, OTHER_SECRET, SEAL_KEY, SECRET
from support.tokens import N, b64, es256, unb64
from tests.unit.gateway.world import MEMORY_SINCE, World


def revoke(world: World, token: str, client: str = "acme-app", secret: str = SECRET, **form: str) -> Any:
    data = {"token": token, "client_id": client, "client_secret": secret, **form}
    return world.public.post("/oauth/revoke", data=data)


def introspect(world: World, token: str, client: str = "acme-app", secret: str = SECRET, **form: str) -> Any:
    data = {"token": token, "client_id": client, "client_secret": secret, **form}
    return world.public.post("/oauth/introspect", data=data)


def test_a_revoked_token_is_refused_at_once(world: World) -> None:
    token = world.issued()
    assert world.verify(f"Bearer {token}").status == 200

    answer = revoke(world, token)

    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-store")
    assert world.verify(f"Bearer {token}").status == 401


def test_other_tokens_of_the_client_live_on(world: World) -> None:
    token, other = world.issued(), world.issued()

    revoke(world, token)

    assert world.verify(f"Bearer {other}").status == 200


def test_a_revoked_token_in_its_other_spelling_is_refused(world: World) -> None:
    """(r, -s) signs what (r, s) signs, so the same token can be written a second way."""
    signed = world.forge.unsigned(world.forge.header, world.forge.claims)
    low = es256(world.forge.key, signed.encode())
    revoke(world, f"{signed}.{b64(low)}")

    high = low[:32] + (N - int.from_bytes(low[32:], "big")).to_bytes(32, "big")

    assert world.verify(f"Bearer {signed}.{b64(high)}").status == 401


def test_revocations_are_forgotten_when_the_token_is_over(world: World) -> None:
    token = world.issued()
    claims = json.loads(unb64(token.split(".")[1]))

    revoke(world, token)

    left = world.redis.ttl(f"dify-gateway:revoked:{claims['jti']}")
    assert 3590 < left <= 3602


def test_revoking_twice_is_no_error(world: World) -> None:
    token = world.issued()

    assert [revoke(world, token).status_code for _ in range(2)] == [200, 200]


@pytest.mark.parametrize("token", ["nonsense", "a.b.c", "app-0123456789"])
def test_revoking_what_is_no_token_is_no_error(world: World, token: str) -> None:
    assert revoke(world, token).status_code == 200


def test_an_expired_token_needs_no_revocation(world: World) -> None:
    expired = world.forge.with_claims(iat=world.forge.now - 100, exp=world.forge.now - 50)

    assert revoke(world, expired).status_code == 200
    assert not world.redis.keys("dify-gateway:revoked:*")


def test_a_client_cannot_revoke_another_ones_token(world: World) -> None:
    token = world.issued()

    answer = revoke(world, token, "globex-app", OTHER_SECRET)

    assert (answer.status_code, answer.json["error"]) == (400, "invalid_grant")
    assert world.verify(f"Bearer {token}").status == 200


def test_revocation_needs_a_client(world: World) -> None:
    token = world.issued()

    assert revoke(world, token, secret=OTHER_SECRET).status_code == 401
    assert world.public.post("/oauth/revoke", data={"token": token}).status_code == 401
    assert world.verify(f"Bearer {token}").status == 200


@pytest.mark.parametrize("call", [revoke, introspect])
def test_parameters(world: World, call: Any) -> None:
    token = world.issued()

    assert call(world, token, token_type_hint="access_token").status_code == 200
    unknown = call(world, token, token_type_hint="saml")
    assert (unknown.status_code, unknown.json["error"]) == (400, "unsupported_token_type")


@pytest.mark.parametrize("path", ["/oauth/revoke", "/oauth/introspect"])
def test_token_missing(world: World, path: str) -> None:
    answer = world.public.post(path, data={"client_id": "acme-app", "client_secret": SECRET})

    assert answer.status_code == 400
    assert answer.json is not None
    assert answer.json["error"] == "invalid_request"


def test_introspection_of_an_own_token(world: World) -> None:
    token = world.issued(scope="chat")
    claims = json.loads(unb64(token.split(".")[1]))

    answer = introspect(world, token)

    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.json == {
        "active": True,
        "token_type": "Bearer",
        "client_id": "acme-app",
        "sub": "acme-app",
        "tenant": "acme",
        "scope": "chat",
        "iss": ISSUER,
        "aud": AUDIENCE,
        "iat": claims["iat"],
        "exp": claims["exp"],
        "jti": claims["jti"],
    }


def test_introspection_tells_nothing_about_anything_else(world: World) -> None:
    revoked, foreign = world.issued(), world.issued("globex-app", OTHER_SECRET)
    revoke(world, revoked)
    expired = world.forge.with_claims(iat=world.forge.now - 100, exp=world.forge.now - 50)

    answers = [introspect(world, token).json for token in (revoked, foreign, expired, "nonsense")]

    assert answers == [{"active": False}] * 4


def test_introspection_needs_a_client(world: World) -> None:
    answer = introspect(world, world.issued(), secret=OTHER_SECRET)

    assert (answer.status_code, answer.json["error"]) == (401, "invalid_client")


def test_a_token_of_our_key_for_another_issuer_is_not_ours(world: World) -> None:
    foreign = world.forge.with_claims(iss="https://staging.dify.example.com")

    assert introspect(world, foreign).json == {"active": False}


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        ({"maxmemory": 0, "maxmemory_policy": "allkeys-lru"}, ""),
        ({"maxmemory": 1000, "maxmemory_policy": "noeviction"}, ""),
        ({}, ""),
        ({"maxmemory": 1000, "maxmemory_policy": "volatile-lru"}, "maxmemory-policy volatile-lru"),
    ],
)
def test_a_redis_that_may_forget_is_a_problem(
    world: World, monkeypatch: pytest.MonkeyPatch, message: dict[str, Any], advice: str
) -> None:
    monkeypatch.setattr(redis.Redis, "info", lambda *_args: message)

    world.service._remember()

    problems = world.verify(None, "/healthz").body["problems"]
    assert [advice in problem for problem in problems] == [True] * bool(advice)


class TestLostMemory:
    """Redis restarts empty: which tokens were revoked is unknown."""

    def test_tokens_from_before_are_refused(self, world: World) -> None:
        token = world.issued()
        revoke(world, token)
        other = world.issued()
        assert world.verify(f"Bearer {other}").status == 200

        world.redis.flushall()

        assert world.verify(f"Bearer {token}").status == 401
        assert world.verify(f"Bearer {other}").status == 401

    def test_tokens_from_after_are_let_in_by_every_worker(self, world: World) -> None:
        world.redis.flushall()

        token = world.issued()

        assert world.verify(f"Bearer {token}").status == 200
        revoke(world, token)
        assert world.verify(f"Bearer {token}").status == 401

    def test_a_token_of_the_second_of_the_loss_is_refused(self, world: World) -> None:
        world.redis.flushall()
        token = world.forge.with_claims(iat=int(time.time()))

        assert world.verify(f"Bearer {token}").status == 401

    def test_no_token_is_issued_that_could_not_be_revoked(self, world: World) -> None:
        """Another machine's clock is ahead: what is issued now would be refused at once."""
        world.redis.set(MEMORY_SINCE, sealed(SEAL_KEY, MEMORY_SINCE, str(int(time.time()) + 60)))

        assert world.token().status_code == 503

    def test_a_restart_that_kept_the_data_changes_nothing(self, world: World) -> None:
        revoked, kept = world.issued(), world.issued()
        revoke(world, revoked)
        data = {key: world.redis.get(key) for key in world.redis.keys("dify-gateway:*")}
        world.redis.flushall()

        for key, value in data.items():
            world.redis.set(key, value or b"")

        assert isinstance(world.redis, fakeredis.FakeRedis)
        assert world.verify(f"Bearer {revoked}").status == 401
        assert world.verify(f"Bearer {kept}").status == 200
