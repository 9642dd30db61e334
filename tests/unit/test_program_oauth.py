"""The program with OAuth: what it declares for the gateway, and who gets to see what."""

import json
from collections.abc import Mapping
from typing import Any

import pulumi
import pytest

from dify_gateway import client_secrets
from infra.catalogue.images import BASE
from infra.exports import oauth_facts
from infra.resources.gateway_config import revision_of
from infra.resources.oauth_client import OAuthClientProvider
from infra.services.gateway_secrets import redis_password, seal_key
from support.configuration import SECRETS, settings
from tests.unit.recording import CONTAINER, DYNAMIC, IMAGE, NETWORK, VOLUME, run_program
from tests.unit.test_program import networks_of

TENANTS: Mapping[str, Any] = {"acme": {"app": "echo-chat", "requests": 5, "seconds": 60}}
OAUTH: dict[str, Any] = {"oauth": {"enabled": True, "tenants": TENANTS}}
EXTERNAL = {"issuer": "https://id.example.com", "audience": "dify", "tenant": "acme"}


def dynamic(plain: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return run_program(plain).of(DYNAMIC)


def test_off_by_default() -> None:
    recorder = run_program()

    assert "gateway" not in recorder.of(CONTAINER)
    assert "oauth" not in recorder.of(NETWORK)
    assert not [name for name in recorder.of(DYNAMIC) if name.startswith(("tenant-", "gateway", "oauth"))]


def test_gateway_is_closed() -> None:
    gateway = run_program(OAUTH).of(CONTAINER)["gateway"]

    assert gateway["readOnly"] is True
    assert gateway["user"] == "1002"
    assert gateway["capabilities"] == {"drops": ["ALL"], "adds": []}
    assert not gateway.get("ports")
    assert not gateway.get("uploads")
    assert gateway["memory"] == 256
    assert gateway["healthcheck"]["tests"][-1] == "http://127.0.0.1:8091/healthz"
    assert not [one for one in gateway["envs"] if "redis" in one.lower() or "KEY" in one]


def test_nginx_and_redis_reach_it_and_it_reaches_nobody_else() -> None:
    recorder = run_program(OAUTH)
    found = recorder.of(CONTAINER)

    assert networks_of(found["gateway"]) == {"oauth", "oauth_data"}
    assert networks_of(found["redis"]) == {"data"}
    assert {name for name in found if "oauth_data" in networks_of(found[name])} == {
        "gateway-redis",
        "gateway",
    }
    assert networks_of(found["gateway-redis"]) == {"oauth_data"}
    assert recorder.of(NETWORK)["oauth_data"]["internal"] is True
    assert networks_of(found["nginx"]) == {"app", "oauth"}
    assert {name for name in found if "oauth" in networks_of(found[name])} == {"nginx", "gateway"}
    assert recorder.of(NETWORK)["oauth"]["internal"] is True
    assert "issuers" not in recorder.of(NETWORK)


def test_it_has_a_way_out_only_to_external_issuers() -> None:
    recorder = run_program({"oauth": {**OAUTH["oauth"], "issuers": [EXTERNAL]}})

    assert recorder.of(NETWORK)["issuers"]["internal"] is False
    found = recorder.of(CONTAINER)
    assert {name for name in found if "issuers" in networks_of(found[name])} == {"gateway"}


@pytest.mark.parametrize(
    ("plain", "base"),
    [
        ({}, "debian:trixie-slim"),
        ({"images": "registry", "vectorStore": "weaviate"}, f"debian:trixie-slim@{BASE.digest}"),
        (
            {"images": "mirror", "mirror": "registry.example.com/dify", "vectorStore": "weaviate"},
            f"registry.example.com/dify/debian:trixie-slim@{BASE.digest}",
        ),
    ],
)
def test_its_image_is_built_in_every_mode(plain: dict[str, Any], base: str) -> None:
    image = run_program({**OAUTH, **plain}).of(IMAGE)["gateway"]

    assert image["name"].startswith("dify-kit/gateway:")
    assert image["build"]["context"].endswith("gateway")
    assert image["build"]["buildArgs"] == {"BASE": base}


def test_each_tenant_has_a_key_that_only_the_gateway_is_told() -> None:
    found = dynamic(OAUTH)

    assert found["tenant-acme"]["app_id"] == found["key-echo-chat"]["app_id"]
    assert found["tenant-canary"]["app_id"] == found["key-canary"]["app_id"]
    tenants = json.loads(found["gateway-config"]["files"]["tenants.json"])["tenants"]
    assert tenants == {
        "acme": {"app_key": "app-made-by-the-mock-tenant-acme", "limits": "acme"},
        "canary": {"app_key": "app-made-by-the-mock-tenant-canary", "limits": "canary"},
    }


def test_app_of_a_tenant_is_imported_without_a_key_of_its_own() -> None:
    found = dynamic({**OAUTH, "apps": []})

    assert {"app-echo-chat", "tenant-acme"} <= set(found)
    assert "key-echo-chat" not in found


def test_configuration_of_the_gateway() -> None:
    config = dynamic(OAUTH)["gateway-config"]
    written = json.loads(config["files"]["config.json"])

    assert set(config["files"]) == {"config.json", "tenants.json", "keys.json"}
    assert written["issuer"] == "http://localhost:8080"
    secret = SECRETS["gatewaySecret"]
    assert written["redis"] == {
        "url": f"redis://:{redis_password(secret)}@gateway-redis:6379/0",
        "seal_key": seal_key(secret),
    }
    assert len({secret, redis_password(secret), seal_key(secret)}) == 3
    assert config["files"]["keys.json"] == SECRETS["oauthSigningKeys"]
    assert (config["owner"], config["workers"]) == (1002, 2)
    assert config["own_clients"] == {
        "canary": {"tenant": "canary", "scopes": ["chat", "conversations"], "secrets": ["hash-of-the-mock"]}
    }


def test_edge_comes_after_the_gateway_and_its_volume_holds_no_data() -> None:
    recorder = run_program(OAUTH)
    order = [(one.type, one.name) for one in recorder.resources]

    assert order.index((DYNAMIC, "gateway-ready")) < order.index((CONTAINER, "nginx"))
    assert recorder.of(VOLUME)["volume-gateway"]["labels"] == [{"label": "dify-kit.stack", "value": "unit"}]


def test_without_the_canary_nothing_is_made_for_it() -> None:
    found = dynamic({**OAUTH, "canary": False})

    assert not [name for name in found if "canary" in name]
    assert found["gateway-config"]["own_clients"] == {}


def test_exports_tell_where_tokens_are_and_nothing_secret() -> None:
    told = oauth_facts(settings({**OAUTH, "publicUrl": "https://dify.example.com"}).oauth)

    assert told is not None
    assert told["tokenUrl"] == "https://dify.example.com/oauth/token"
    assert told["metadataUrl"] == "https://dify.example.com/.well-known/oauth-authorization-server"
    assert (told["tenants"], told["clients"]) == (["acme", "canary"], 0)
    assert oauth_facts(None) is None


def test_canary_gets_a_secret_that_its_hash_verifies() -> None:
    made = OAuthClientProvider().create({"client_id": "canary", "secret": None, "hash": None})

    assert made.id == "canary"
    assert made.outs is not None
    assert client_secrets.matches(made.outs["secret"], (client_secrets.parse_hash(made.outs["hash"]),))
    assert not OAuthClientProvider().diff("canary", made.outs, {"client_id": "canary"}).changes


def test_revision_names_everything_that_counts_and_no_path() -> None:
    props = {"files": {"a": "1"}, "clients_digest": "x", "own_clients": {}, "clients_file": "/a"}

    assert revision_of(props) == revision_of({**props, "clients_file": "/b", "container": "c"})
    for key, value in {"files": {"a": "2"}, "clients_digest": "y", "own_clients": {"canary": {}}}.items():
        assert revision_of(props) != revision_of({**props, key: value})


def test_what_the_gateway_remembers_is_closed_to_everything_that_runs_plugins_or_code() -> None:
    recorder = run_program(OAUTH)
    found = recorder.of(CONTAINER)
    memory, declared = (
        found["gateway-redis"],
        json.dumps([one for name, one in found.items() if "gateway" not in name]),
    )
    secret = SECRETS["gatewaySecret"]

    assert {upload["permissions"] for upload in memory["uploads"]} == {"0400"}
    assert redis_password(secret) in json.dumps(memory["uploads"])
    assert "volume-gateway_redis" in recorder.of(VOLUME)
    # Neither what opens it nor what seals entries is anywhere else.
    for value in (secret, redis_password(secret), seal_key(secret)):
        assert value not in declared
    assert seal_key(secret) not in json.dumps(memory)
    assert secret not in json.dumps(memory)


def test_stack_without_the_secret_is_told_how_to_get_it() -> None:
    with pytest.raises(
        pulumi.RunError, match=r"dify:gatewaySecret: the secret is not set; `.*dify-kit set gatewaySecret"
    ):
        settings(OAUTH, {"gatewaySecret": ""})
    assert settings({}, {"gatewaySecret": ""}).secrets.gateway_secret is None
