"""Entries in Redis that the gateway did not write grant no access."""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import fakeredis
import pytest
import redis

from dify_gateway import config
from dify_gateway.gate_config import GateSettings
from dify_gateway.gate_sessions import Sessions, _digest
from dify_gateway.state import State, sealed
from support.gateway import SEAL_KEY, documents
from tests.unit.gateway.world import MEMORY_SINCE, World, make_world, write_revision

SESSION = {"subject": "mallory", "email": "mallory@example.com", "expires_at": 4_000_000_000, "id_token": ""}
COOKIE = "A" * 43
OTHER_KEY = "another-key-of-thirty-two-letters!"


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A gateway that remembers."""
    return make_world(tmp_path)


def a_state(world: World, seal_key: str = SEAL_KEY) -> State:
    settings = dataclasses.replace(world.service.loaded.configuration.settings, seal_key=seal_key)

    def pool(_url: str) -> redis.ConnectionPool:
        return fakeredis.FakeRedis(server=world.redis_server, db=5).connection_pool

    return State(settings, connect=pool)


def test_what_was_kept_is_found_and_taken_once(world: World) -> None:
    state = a_state(world)
    state.keep("gate", "session", value="text.with.dots", seconds=60)

    assert a_state(world).find("gate", "session") == "text.with.dots"
    assert state.take("gate", "session") == "text.with.dots"
    assert state.find("gate", "session") is None


FORGED: dict[str, str] = {
    "bare": "{value}",
    "empty seal": ".{value}",
    "some seal": "0" * 64 + ".{value}",
    "not ASCII": "\u00e9.{value}",
    "no value": "",
}


@pytest.mark.parametrize("case", FORGED)
def test_forged_entry_is_none(world: World, case: str) -> None:
    name = f"dify-gateway:gate:rules:session:{_digest(COOKIE)}"
    world.redis.set(name, FORGED[case].format(value=json.dumps(SESSION)))

    assert a_state(world).find("gate", "rules", "session", _digest(COOKIE)) is None
    assert a_state(world).take("gate", "rules", "session", _digest(COOKIE)) is None


def test_entry_of_another_key_or_under_another_name_is_none(world: World) -> None:
    a_state(world, OTHER_KEY).keep("gate", "one", value="theirs", seconds=60)
    a_state(world).keep("gate", "two", value="ours", seconds=60)
    # An own entry, copied to where it says something else: another person's session.
    world.redis.set("dify-gateway:gate:three", world.redis.get("dify-gateway:gate:two"))

    assert a_state(world).find("gate", "one") is None
    assert a_state(world).find("gate", "two") == "ours"
    assert a_state(world).find("gate", "three") is None


def test_forged_session_signs_nobody_in(world: World) -> None:
    settings: Any = type("Rules", (), {"rules": "rules", "session_seconds": 60, "client_secret": "s" * 32})()
    rules: GateSettings = settings
    sessions = Sessions(a_state(world), rules)
    name = f"dify-gateway:gate:rules:session:{_digest(COOKIE)}"
    world.redis.set(name, json.dumps(SESSION))

    assert sessions.find(COOKIE) is None
    world.redis.set(name, sealed(SEAL_KEY, name, json.dumps(SESSION)))
    found = sessions.find(COOKIE)
    assert found is not None
    assert found.subject == "mallory"


def test_forged_memory_revives_no_token(world: World) -> None:
    token = world.issued()
    assert world.verify(f"Bearer {token}").status == 200
    # As if Redis had always remembered: whatever was revoked and is lost would pass again.
    world.redis.set(MEMORY_SINCE, "0")

    assert world.verify(f"Bearer {token}").status == 401
    since = world.redis.get(MEMORY_SINCE).decode().rpartition(".")[2]
    assert int(since) > time.time() - 60


def test_revocation_that_somebody_overwrites_still_counts(world: World) -> None:
    state = a_state(world)
    now = int(time.time())
    state.revoke("jti", now, now + 60)
    world.redis.set("dify-gateway:revoked:jti", "whatever")

    assert state.is_revoked("jti", now)


def test_another_seal_is_another_connection(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    before = world.service.loaded.state
    files = documents()
    files["config.json"]["redis"]["seal_key"] = OTHER_KEY

    assert world.switch("2", files)
    assert world.service.loaded.state is not before


def test_seal_is_never_told(tmp_path: Path) -> None:
    files = documents()
    files["config.json"]["redis"]["seal_key"] = "short-and-secret"
    write_revision(tmp_path, "1", files)

    with pytest.raises(Exception, match="seal_key") as problem:
        config.load(tmp_path / "releases" / "1", "1")

    assert "short-and-secret" not in str(problem.value)
