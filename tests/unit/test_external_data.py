"""External data services: settings, services, networks, variables and files of a stack that uses them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import crossplane
import pulumi
import pytest

from infra.catalogue.container_paths import DATABASE_CA_FILE, REDIS_CA_FILE, ROOTS_FILE, STREAM_PROXY_CONFIG
from infra.catalogue.service import Tier
from infra.platforms import image_needs
from infra.services.environment import environment
from infra.services.external_data import stream_proxy_files
from infra.services.spec import ServiceSpec
from infra.services.specs import networks, spec, specs, tier_volumes
from infra.settings.roots import public_roots
from infra.settings.stack import Settings
from support.certificates import issue
from support.configuration import resolved, settings

PASSWORD = "p/s:w@rd?1"  # of this test
SECRETS = {"externalDatabasePassword": PASSWORD, "externalRedisPassword": PASSWORD}
DATABASE = {"host": "db.example.com", "port": 6432}
REDIS = {"host": "cache.example.com", "port": 6380, "user": "dify"}
API_IMAGE = ("api", "api-websocket", "worker", "worker-beat", "migration")


def external(
    database: Mapping[str, Any] | None = None, redis: Mapping[str, Any] | None = None, **plain: Any
) -> Settings:
    given = {
        "database": {**DATABASE, **(database or {})},
        "redis": {**REDIS, **(redis or {})},
        **plain,
    }
    return settings(given, SECRETS)


def every(found: Settings) -> dict[str, ServiceSpec]:
    return {one.name: one for tier in Tier for one in specs(tier, found, found.dify)}


def variables(found: Settings, service: str) -> dict[str, str]:
    return resolved(environment(service, found, found.dify))


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    file = tmp_path / "ca.pem"
    file.write_text(issue(ca=True, name="data services").pem, encoding="ascii")
    return file


def test_own_services_and_volumes_are_replaced_by_the_proxies() -> None:
    own, found = every(settings()), every(external())

    assert own.keys() - found.keys() == {"db-postgres", "redis"}
    assert found.keys() - own.keys() == {"data-proxy", "data-egress"}
    assert {"postgres", "redis"} <= tier_volumes(Tier.DATA, settings(), settings().dify).keys()
    assert not {"postgres", "redis"} & tier_volumes(Tier.DATA, external(), external().dify).keys()


@pytest.mark.parametrize(
    ("plain", "secret", "gone"),
    [
        ({"database": DATABASE}, "externalDatabasePassword", "db-postgres"),
        ({"redis": REDIS}, "externalRedisPassword", "redis"),
    ],
)
def test_one_alone_leaves_the_other_in_the_stack(plain: dict[str, Any], secret: str, gone: str) -> None:
    found = every(settings(plain, {secret: PASSWORD}))

    assert {"db-postgres", "redis"} - found.keys() == {gone}
    assert found["migration"].after == tuple(
        name for name in ("db-postgres", "redis", "data-proxy") if name != gone
    )


def test_nothing_waits_for_a_service_that_does_not_run() -> None:
    found = every(external())

    assert {
        name: set(one.after) - found.keys() for name, one in found.items() if set(one.after) - found.keys()
    } == {}
    assert {"migration", "plugin-daemon", "agent-backend"} <= {
        name for name, one in found.items() if "data-proxy" in one.after
    }


def test_only_the_egress_has_a_route_out_and_no_client_shares_its_networks() -> None:
    found = external()
    internal = networks(found, found.dify)
    services = every(found)
    egress, proxy = services["data-egress"], services["data-proxy"]

    assert {name: internal[name] for name in ("data", "data_proxy", "data_egress")} == {
        "data": True,
        "data_proxy": True,
        "data_egress": False,
    }
    assert {name for name, one in services.items() if set(one.networks) & set(egress.networks)} == {
        "data-egress",
        "data-proxy",
    }
    assert all(internal[network] for network in proxy.networks)
    assert not {"data_proxy", "data_egress"} & networks(settings(), settings().dify).keys()


def test_proxy_answers_to_the_names_in_the_certificates_on_the_clients_network_alone() -> None:
    found = external({"serverName": "primary.db.example.com"})

    assert spec("data-proxy", found, found.dify).aliases == {
        "data": ("primary.db.example.com", "cache.example.com")
    }
    assert spec("data-egress", found, found.dify).aliases == {}
    assert spec("data-proxy", unverified(), unverified().dify).aliases == {}


def unverified() -> Settings:
    return external({"tls": "require"}, {"tls": False})


def passes(service: str, found: Settings, tmp_path: Path) -> dict[str, str]:
    file = tmp_path / f"{service}.conf"
    file.write_text(stream_proxy_files(service, found)[STREAM_PROXY_CONFIG], encoding="utf-8")
    payload = crossplane.parse(str(file), single=True, check_ctx=False, check_args=False)
    assert payload["status"] == "ok", payload["errors"]
    (stream,) = [one["block"] for one in payload["config"][0]["parsed"] if one["directive"] == "stream"]
    servers = [one["block"] for one in stream if one["directive"] == "server"]
    read = [{line["directive"]: line["args"] for line in block} for block in servers]
    assert all(one["proxy_pass"] == [one["set"][0]] for one in read)
    return {one["listen"][0]: one["set"][1] for one in read}


def test_proxies_pass_to_exactly_the_servers(tmp_path: Path) -> None:
    found = external()

    assert passes("data-proxy", found, tmp_path) == {"5432": "data-egress:5432", "6379": "data-egress:6379"}
    assert passes("data-egress", found, tmp_path) == {
        "5432": "db.example.com:6432",
        "6379": "cache.example.com:6380",
    }


@pytest.mark.parametrize("release", ["1.12.1", "1.14.2", "1.17.1"])
def test_services_connect_to_the_proxy_by_the_name_in_the_certificate(release: str) -> None:
    found = external(release=release)
    for service in API_IMAGE:
        if service not in every(found):
            continue
        given = variables(found, service)
        assert (given["DB_HOST"], given["DB_PORT"], given["DB_DATABASE"]) == (
            "db.example.com",
            "5432",
            "dify",
        )
        assert given["DB_PASSWORD"] == PASSWORD
        assert given["DB_EXTRAS"] == f"sslmode=verify-full&sslrootcert={DATABASE_CA_FILE}"
        assert given["CELERY_BROKER_URL"] == "rediss://dify:p%2Fs%3Aw%40rd%3F1@cache.example.com:6379/1"
        assert (given["REDIS_USE_SSL"], given["REDIS_SSL_CERT_REQS"]) == ("true", "CERT_REQUIRED")
        assert given["REDIS_SSL_CA_CERTS"] == REDIS_CA_FILE
        assert ("EVENT_BUS_REDIS_URL" in given) == (release != "1.12.1")
    daemon = variables(found, "plugin-daemon")
    assert (daemon["DB_HOST"], daemon["DB_DATABASE"]) == ("db.example.com", "dify_plugin")
    assert (daemon["DB_SSL_MODE"], daemon["PGSSLROOTCERT"]) == ("require", DATABASE_CA_FILE)
    assert daemon["REDIS_SSL_CA_CERTS"] == REDIS_CA_FILE


def test_urls_of_programs_without_a_variable_for_the_ca_have_it() -> None:
    found = external(redis={"agentDatabase": 5})
    end = "ssl_cert_reqs=required&ssl_ca_certs=%2Fetc%2Fdify-kit%2Fredis-ca.pem"
    user = "rediss://dify:p%2Fs%3Aw%40rd%3F1@cache.example.com:6379"

    assert variables(found, "agent-backend")["DIFY_AGENT_REDIS_URL"] == f"{user}/5?{end}"
    assert variables(found, "api")["EVENT_BUS_REDIS_URL"] == f"{user}/0?{end}"


@pytest.mark.parametrize(
    ("tls", "extras", "daemon"),
    [
        ("disable", "sslmode=disable", {"DB_SSL_MODE": "disable"}),
        ("require", "sslmode=require", {"DB_SSL_MODE": "require"}),
        (
            "verify-ca",
            f"sslmode=verify-ca&sslrootcert={DATABASE_CA_FILE}",
            {"DB_SSL_MODE": "require", "PGSSLROOTCERT": DATABASE_CA_FILE},
        ),
    ],
)
def test_modes_of_tls_reach_api_and_plugin_daemon(tls: str, extras: str, daemon: dict[str, str]) -> None:
    found = external({"tls": tls})
    given = variables(found, "plugin-daemon")

    assert variables(found, "api")["DB_EXTRAS"] == extras
    assert {name: given[name] for name in ("DB_SSL_MODE", "PGSSLROOTCERT") if name in given} == daemon
    # Nothing compares a name: the stack's own does.
    assert given["DB_HOST"] == "data-proxy"


def test_plain_redis_has_no_word_about_tls() -> None:
    given = variables(external(redis={"tls": False}), "api")

    assert given["REDIS_USE_SSL"] == "false"
    assert given["CELERY_BROKER_URL"].startswith("redis://dify:")
    assert not {"REDIS_SSL_CA_CERTS", "REDIS_SSL_CERT_REQS", "EVENT_BUS_REDIS_URL"} & given.keys()


def file_of(found: Settings, service: str, path: str) -> str | None:
    content = {one.path: one.content for one in spec(service, found, found.dify).files}.get(path)
    assert not isinstance(content, pulumi.Output)
    return content if content is None else str(content)


def test_clients_verify_with_the_ca_of_the_setting_alone(ca: Path) -> None:
    pem = ca.read_text(encoding="ascii")
    found = external({"caFile": str(ca)}, {"caFile": str(ca)})

    for service in (*API_IMAGE, "plugin-daemon"):
        assert file_of(found, service, DATABASE_CA_FILE) == pem
        assert file_of(found, service, REDIS_CA_FILE) == pem
    assert file_of(found, "agent-backend", REDIS_CA_FILE) == pem
    for service in ("agent-backend", "web", "sandbox"):
        assert file_of(found, service, DATABASE_CA_FILE) is None
    # Other connections of api do not trust it; the plugin daemon has one list for all of them.
    assert file_of(found, "api", ROOTS_FILE) is None
    assert file_of(found, "plugin-daemon", ROOTS_FILE) == public_roots() + pem


def test_without_a_ca_the_public_authorities_are_trusted() -> None:
    assert file_of(external(), "api", DATABASE_CA_FILE) == public_roots()
    assert file_of(external(), "plugin-daemon", ROOTS_FILE) is None
    assert file_of(unverified(), "api", DATABASE_CA_FILE) is None


def test_images_of_services_outside_are_not_needed() -> None:
    own = image_needs.roles(image_needs.parts_of(settings({"vectorStore": "pgvector"})), settings().dify)
    found = image_needs.roles(image_needs.parts_of(external()), external().dify)

    assert set(own) - set(found) == {"postgres", "redis"}


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"database": {"host": "db.example.com", "tls": "prefer"}}, "database.tls", "verify-full"),
    ({"database": {"host": "10.0.0.5"}}, "database.host", "database.serverName"),
    ({"database": {"host": "localhost"}}, "database.host", "each container itself"),
    ({"database": {"host": "db-postgres"}}, "database.host", "service of the stack"),
    ({"database": {"host": "2001:db8::1"}}, "database.host", "IPv"),
    ({"database": {"host": "db.example.com", "port": 0}}, "database.port", "from 1"),
    ({"database": {"host": "db.example.com", "user": "a b"}}, "database.user", "user name"),
    (
        {"database": {"host": "db.example.com", "database": "di-fy"}},
        "database.database",
        "name of a database",
    ),
    (
        {"database": {"host": "db.example.com", "database": "one", "pluginDatabase": "one"}},
        "database.pluginDatabase",
        "tables would mix",
    ),
    ({"database": {"host": "db.example.com", "caFile": "/no/such"}}, "database.caFile", "PEM"),
    ({"database": {"port": 6432}}, "database.port", "without a host"),
    (
        {"database": {"host": "10.0.0.5", "tls": "require", "serverName": "db.example.com"}},
        "database.serverName",
        "no effect",
    ),
    ({"redis": {"host": "10.0.0.5"}}, "redis.host", "redis.serverName"),
    ({"redis": {"host": "cache.example.com", "celeryDatabase": 0}}, "redis.database", "used twice"),
    ({"redis": {"host": "cache.example.com", "database": 16}}, "redis.database", "0 to 15"),
    (
        {"redis": {"host": "cache.example.com", "serverName": "redis"}},
        "redis.serverName",
        "service of the stack",
    ),
    ({"redis": {"hots": "cache.example.com"}}, "redis.hots", "redis.host"),
    ({"extraEnv": {"api": {"DB_HOST": "db.example.com"}}}, "extraEnv.api.DB_HOST", "dify:database.host"),
    ({"extraEnv": {"worker": {"REDIS_HOST": "cache"}}}, "extraEnv.worker.REDIS_HOST", "dify:redis.host"),
    ({"extraEnv": {"api": {"VECTOR_STORE": "milvus"}}}, "extraEnv.api.VECTOR_STORE", "dify:vectorStore"),
    ({"extraEnv": {"api": {"STORAGE_TYPE": "s3"}}}, "extraEnv.api.STORAGE_TYPE", "dify:storage.type"),
    (
        {"extraEnv": {"api": {"REDIS_USE_SENTINEL": "true"}}},
        "extraEnv.api.REDIS_USE_SENTINEL",
        "not supported",
    ),
]


@pytest.mark.parametrize(("plain", "key", "words"), WRONG, ids=[f"{key}-{words}" for _, key, words in WRONG])
def test_wrong_setting_is_named_with_its_fix(plain: dict[str, Any], key: str, words: str) -> None:
    with pytest.raises(pulumi.RunError) as caught:
        settings(plain, SECRETS)

    lines = [line for line in str(caught.value).splitlines() if line.startswith(f"  - dify:{key}:")]
    assert lines, str(caught.value)
    assert any(words in line for line in lines), lines


def test_password_is_required_and_never_shown() -> None:
    with pytest.raises(pulumi.RunError, match="externalDatabasePassword: the secret is not set"):
        settings({"database": DATABASE})
    with pytest.raises(pulumi.RunError, match="a space, a quote or a backslash") as caught:
        settings({"database": DATABASE}, {"externalDatabasePassword": "it's mine"})

    assert "it's mine" not in str(caught.value)
    assert PASSWORD not in repr(external().database)
