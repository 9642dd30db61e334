"""Tokens and headers that must never be let in, and the ones beside them that must."""

import json
from typing import Any

import pytest

from support.gateway import ACME_KEY, GLOBEX_KEY
from tests.unit.gateway.hostile import CASES
from tests.unit.gateway.world import World

REFUSAL = {"error": "invalid_token", "error_description": "The access token is invalid or has expired"}


@pytest.mark.parametrize("name", CASES)
def test_hostile_header_is_refused(world: World, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    given = CASES[name](world.forge)

    result = world.verify(given)

    assert result.status == 401
    assert result.body == REFUSAL
    assert result.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
    assert result.headers["Cache-Control"] == "max-age=3"
    assert not {header for header in result.headers if header.startswith("X-Auth-")}
    logged = capsys.readouterr().out
    assert ACME_KEY not in logged
    assert GLOBEX_KEY not in logged
    # Nothing of the token is logged: neither its signature nor its claims as they stand in it.
    for part in [part for part in given.split(" ")[-1].split(".") if len(part) > 20]:
        assert part not in logged


def test_there_are_enough_hostile_headers() -> None:
    assert len(CASES) >= 60


def test_the_forge_can_make_a_token_that_is_let_in(world: World) -> None:
    """Without this, every hostile token might be refused for a mistake of the forge."""
    result = world.verify("Bearer " + world.forge.valid())

    assert result.status == 200
    assert result.body is None


@pytest.mark.parametrize(
    "change",
    [{"scope": "chat files"}, {"extra": {"nested": [1]}}, {"nbf": 0}],
    ids=["two scopes", "a claim of no concern", "an old nbf"],
)
def test_harmless_claims_are_let_in(world: World, change: dict[str, Any]) -> None:
    assert world.verify("Bearer " + world.forge.with_claims(**change)).status == 200


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_may_be_written_in_any_case(world: World, scheme: str) -> None:
    assert world.verify(f"{scheme} {world.forge.valid()}").status == 200


def test_a_missing_header_is_refused_without_an_error_code(world: World) -> None:
    result = world.verify(None)

    assert result.status == 401
    assert result.headers["WWW-Authenticate"] == "Bearer"


def test_refusals_say_why_in_the_log(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.verify("Bearer " + world.forge.with_claims(aud="https://other.example"))

    [line] = [json.loads(text) for text in capsys.readouterr().out.splitlines() if "token refused" in text]
    assert line["reason"] == "wrong audience"
    assert line["request_id"] == "test-request"
