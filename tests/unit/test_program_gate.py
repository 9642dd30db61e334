"""The program with the gate: what it declares for the gateway, with OAuth and without."""

import json
from typing import Any

import pytest

from infra.resources.configuration import ConfigurationRejectedError
from infra.resources.gateway_config import GatewayConfigProvider
from infra.services.gateway_files import gateway_files
from infra.services.gateway_secrets import redis_password, seal_key
from support.configuration import SECRETS
from tests.unit.gate_settings import GATE, SECRET, gated
from tests.unit.recording import CONTAINER, DYNAMIC, NETWORK, run_program
from tests.unit.test_program import networks_of
from tests.unit.test_program_oauth import OAUTH

ALONE: dict[str, Any] = {"publicUrl": "https://dify.example.com", "oidcGate": dict(GATE)}


def test_the_gate_alone_runs_the_gateway_with_a_way_out() -> None:
    recorder = run_program(ALONE, secrets=SECRET)
    found = recorder.of(CONTAINER)

    assert networks_of(found["gateway"]) == {"oauth", "oauth_data", "issuers"}
    assert networks_of(found["nginx"]) == {"app", "oauth"}
    assert networks_of(found["redis"]) == {"data"}
    assert recorder.of(NETWORK)["issuers"]["internal"] is False
    assert {name for name in found if "issuers" in networks_of(found[name])} == {"gateway"}


def test_the_gate_alone_tells_the_gateway_nothing_of_tokens() -> None:
    config = run_program(ALONE, secrets=SECRET).of(DYNAMIC)["gateway-config"]
    written = json.loads(config["files"]["config.json"])

    assert set(config["files"]) == {"config.json"}
    assert set(written) == {"redis", "gate"}
    secret = SECRETS["gatewaySecret"]
    assert written["redis"] == {
        "url": f"redis://:{redis_password(secret)}@gateway-redis:6379/0",
        "seal_key": seal_key(secret),
    }
    assert len({secret, redis_password(secret), seal_key(secret)}) == 3
    assert written["gate"]["client_secret"] == SECRET["oidcGateClientSecret"]
    assert written["gate"]["origins"] == ["https://dify.example.com"]
    assert (config["clients_file"], config["clients_digest"], config["own_clients"]) == ("", "", {})


def test_both_share_a_gateway() -> None:
    found = run_program({**ALONE, **OAUTH}, secrets=SECRET).of(DYNAMIC)
    config = found["gateway-config"]
    written = json.loads(config["files"]["config.json"])

    assert set(config["files"]) == {"config.json", "tenants.json", "keys.json"}
    assert written["issuer"] == "https://dify.example.com"
    assert written["gate"]["issuer"] == GATE["issuer"]
    assert set(config["own_clients"]) == {"canary"}


def test_equal_settings_give_equal_files() -> None:
    given: dict[str, Any] = {
        "redis_url": "redis://redis/0",
        "seal_key": "k" * 32,
        "app_keys": {},
        "signing_keys": "",
        "client_secret": "s",
    }
    gate = gated().oidc_gate

    assert gateway_files(None, gate, **given) == gateway_files(None, gated().oidc_gate, **given)


def test_clients_may_be_gone_where_oauth_was_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.resources.gateway_config.go_live", lambda _container, _props: "revision")
    provider = GatewayConfigProvider()
    old = {"clients_digest": "abc", "clients_file": "/clients.json", "container": "c", "directory": "/d"}

    updated = provider.update("id", old, {**old, "clients_digest": "", "clients_file": ""})
    assert updated.outs
    assert updated.outs["revision"] == "revision"
    with pytest.raises(ConfigurationRejectedError, match="is gone, and with it every client"):
        provider.update("id", old, {**old, "clients_digest": ""})
